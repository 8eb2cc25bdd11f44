//! What is left of a machine at its end.

use std::fmt;

/// The result of [`Machine::shutdown`](crate::Machine::shutdown).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Pages that are not free and were free right after boot; negative where pages came back that
    /// nobody had.
    pub lost_pages: i64,
    /// The size of a page in bytes.
    pub page_bytes: u64,
    /// What objects are with callers, by who allocated them (A162), as /proc/allocinfo shows it: bytes,
    /// objects, the call. Of caches that keep owners: see `slab_debug`.
    pub leaks: Vec<String>,
    /// What is not sound in the manager's structures.
    pub corruption: Option<String>,
    /// The reports of misuse; the oldest of them where there were very many.
    pub misuses: Vec<String>,
    /// How many reports of misuse there were.
    pub misuse_count: u64,
    /// Tasks that were spawned and have not ended.
    pub running_tasks: usize,
}

impl Shutdown {
    /// Whether nothing was lost or corrupted. Misuse that was caught does not count: it did no harm.
    pub fn is_clean(&self) -> bool {
        self.lost_pages == 0
            && self.leaks.is_empty()
            && self.corruption.is_none()
            && self.running_tasks == 0
    }
}

/// One line: what is wrong, or that all is well.
impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(corruption) = &self.corruption {
            parts.push(format!("memory is corrupt: {corruption}"));
        }
        match self.lost_pages {
            0 => {}
            1 => parts.push(format!(
                "1 page of {} bytes is lost: it was allocated and not freed",
                self.page_bytes
            )),
            lost @ 2.. => parts.push(format!(
                "{lost} pages of {} bytes are lost: they were allocated and not freed",
                self.page_bytes
            )),
            extra => parts.push(format!("pages that are free and never were before: {}", -extra)),
        }
        if !self.leaks.is_empty() {
            parts.push(format!("objects that were not freed: {}", self.leaks.join(", ").trim()));
        }
        if self.running_tasks != 0 {
            parts.push(format!("tasks that still run: {}", self.running_tasks));
        }
        if parts.is_empty() {
            parts.push("all pages are free and all structures sound".into());
        }
        if self.misuse_count != 0 {
            parts.push(format!("wrong calls that were caught: {}", self.misuse_count));
        }
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::Shutdown;

    #[test]
    fn one_lost_page_is_singular_and_more_are_plural() {
        let text = |lost_pages| {
            let shutdown = Shutdown {
                lost_pages,
                page_bytes: 4096,
                leaks: Vec::new(),
                corruption: None,
                misuses: Vec::new(),
                misuse_count: 0,
                running_tasks: 0,
            };
            shutdown.to_string()
        };
        assert_eq!(text(1), "1 page of 4096 bytes is lost: it was allocated and not freed");
        assert_eq!(text(2), "2 pages of 4096 bytes are lost: they were allocated and not freed");
        assert_eq!(text(-1), "pages that are free and never were before: 1");
    }
}

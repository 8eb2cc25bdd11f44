//! What was allocated and not freed, by who allocated it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use kmem::{Mm, Platform, Reclaim};

use crate::Count;

/// What the code below a folder has allocated and holds, a line a call; `None` where it is nothing
/// (A162). Caches that keep owners know: see the machine's key `slab_debug`.
pub(super) fn leaks<P: Platform, R: Reclaim>(mm: &Mm<P, R>, folder: &str) -> Option<String> {
    let mut calls = BTreeMap::<(&str, u32, String), (u64, u64)>::new();
    // It is called with a lock of the manager held: this heap is not the manager's.
    mm.each_owned(|owned| {
        let site = owned.caller.site;
        if site.file().starts_with(folder) {
            let call = (site.file(), site.line(), owned.cache.to_string());
            let (objects, bytes) = calls.entry(call).or_default();
            *objects += 1;
            *bytes += u64::from(owned.asked);
        }
    });
    let lines = calls.into_iter().map(|((file, line, cache), (objects, bytes))| {
        format!("{objects} of {cache}, {}, allocated at {file}:{line}", Count(bytes, "byte"))
    });
    lines.reduce(|all, line| format!("{all}; {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmem::boot::SlabDebug;
    use kmem::platform::desk::Desk;
    use kmem::{GFP_KERNEL, MemoryMap, NodeId, Setup};

    /// A162
    #[test]
    fn what_is_not_freed_is_told_by_call() {
        let mut ram = alloc::vec![0; 17 << 20];
        // SAFETY: one thread uses it.
        let mm = Mm::new(unsafe { Desk::<12>::new(&mut ram) });
        let setup = Setup::new().slab_debug(SlabDebug::parse("U").unwrap());
        // SAFETY: the RAM is this test's, for this manager alone.
        unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &setup) }.unwrap();
        let folder = file!().rsplit_once('/').unwrap().0;
        assert_eq!(leaks(&mm, folder), None);
        let held = [(); 2].map(|()| mm.kmalloc(100, GFP_KERNEL).unwrap());
        let line = line!() - 1;
        let found = leaks(&mm, folder).unwrap();
        let expected = format!("2 of kmalloc-104, 200 bytes, allocated at {}:{line}", file!());
        assert_eq!(found, expected);
        assert_eq!(leaks(&mm, "elsewhere/"), None);
        // SAFETY: the test's own.
        held.into_iter().for_each(|memory| unsafe { mm.kfree(memory.as_ptr()) });
        assert_eq!(leaks(&mm, folder), None);
        let byte = mm.kmalloc(1, GFP_KERNEL).unwrap();
        assert!(leaks(&mm, folder).unwrap().starts_with("1 of kmalloc-8, 1 byte, allocated at "));
        // SAFETY: the test's own.
        unsafe { mm.kfree(byte.as_ptr()) };
    }
}

//! Which caches are debugged.

use core::fmt;

use crate::CacheFlags;

/// The most rules.
const MAX_RULES: usize = 8;
/// The longest pattern, in bytes.
const PATTERN: usize = 31;

/// Which caches of a machine are debugged, beyond what whoever makes them asks for: rules of flags and
/// names.
///
/// As text, rules are parted by `;`, and each is letters, then, parted by `,`, the names of the caches
/// that it is for, whose last character may be `*`; without names it is for all:
///
/// | letter | flag |
/// | --- | --- |
/// | `P` | [`CacheFlags::POISON`] |
/// | `Z` | [`CacheFlags::RED_ZONE`] |
/// | `U` | [`CacheFlags::STORE_USER`] |
/// | `Q` | [`CacheFlags::QUARANTINE`] |
///
/// ```
/// use kmem::CacheFlags;
/// use kmem::boot::SlabDebug;
///
/// let rules = SlabDebug::parse("U;PZ,dog,kmalloc-*")?;
/// assert_eq!(rules.flags_for("inode"), CacheFlags::STORE_USER);
/// assert_eq!(rules.flags_for("kmalloc-64"), CacheFlags::STORE_USER | CacheFlags::POISON | CacheFlags::RED_ZONE);
/// # Ok::<(), kmem::boot::SlabDebugError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SlabDebug {
    rules: [Rule; MAX_RULES],
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    flags: CacheFlags,
    /// `len` bytes; none for all caches.
    pattern: [u8; PATTERN],
    len: usize,
}

impl Rule {
    const NONE: Rule = Rule { flags: CacheFlags::NONE, pattern: [0; PATTERN], len: 0 };

    fn is_for(&self, name: &str) -> bool {
        match self.pattern[..self.len].split_last() {
            None => true,
            Some((b'*', start)) => name.as_bytes().starts_with(start),
            Some(_) => name.as_bytes() == &self.pattern[..self.len],
        }
    }
}

/// Why a text says nothing of which caches are debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlabDebugError {
    /// A letter stands for nothing.
    Letter(char),
    /// There are more rules, or names in them, than 8.
    TooMany,
    /// A name is empty, or longer than 31 bytes.
    Name,
}

impl fmt::Display for SlabDebugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlabDebugError::Letter(letter) => write!(
                f,
                "{letter} debugs nothing: give P (poison), Z (red zones), U (owners), Q (quarantine), \
                 then names, as in PZ,kmalloc-*"
            ),
            SlabDebugError::TooMany => write!(f, "more than {MAX_RULES} rules and names"),
            SlabDebugError::Name => write!(f, "a cache's name has 1 to {PATTERN} bytes"),
        }
    }
}

impl core::error::Error for SlabDebugError {}

impl SlabDebug {
    /// No cache but those that are made to be.
    pub const NONE: SlabDebug = SlabDebug { rules: [Rule::NONE; MAX_RULES], count: 0 };

    /// Reads rules.
    ///
    /// # Errors
    ///
    /// See [`SlabDebugError`].
    pub fn parse(text: &str) -> Result<SlabDebug, SlabDebugError> {
        let mut all = SlabDebug::NONE;
        for rule in text.split(';').filter(|rule| !rule.is_empty()) {
            let (letters, names) = match rule.split_once(',') {
                Some((letters, names)) => (letters, Some(names)),
                None => (rule, None),
            };
            let mut flags = CacheFlags::NONE;
            for letter in letters.chars() {
                flags |= match letter.to_ascii_uppercase() {
                    'P' => CacheFlags::POISON,
                    'Z' => CacheFlags::RED_ZONE,
                    'U' => CacheFlags::STORE_USER,
                    'Q' => CacheFlags::QUARANTINE,
                    _ => return Err(SlabDebugError::Letter(letter)),
                };
            }
            match names {
                None => all.add(Rule { flags, ..Rule::NONE })?,
                Some(names) => {
                    for name in names.split(',') {
                        let mut rule = Rule { flags, len: name.len(), ..Rule::NONE };
                        let room = rule.pattern.get_mut(..name.len());
                        let room = room.filter(|room| !room.is_empty());
                        room.ok_or(SlabDebugError::Name)?.copy_from_slice(name.as_bytes());
                        all.add(rule)?;
                    }
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, rule: Rule) -> Result<(), SlabDebugError> {
        *self.rules.get_mut(self.count).ok_or(SlabDebugError::TooMany)? = rule;
        self.count += 1;
        Ok(())
    }

    /// What is debugged of the cache with this name.
    pub fn flags_for(&self, name: &str) -> CacheFlags {
        let rules = self.rules[..self.count].iter().filter(|rule| rule.is_for(name));
        rules.fold(CacheFlags::NONE, |flags, rule| flags | rule.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_the_caches_that_they_name() {
        let (p, z, u, q) = (
            CacheFlags::POISON,
            CacheFlags::RED_ZONE,
            CacheFlags::STORE_USER,
            CacheFlags::QUARANTINE,
        );
        for (text, name, flags) in [
            ("", "dog", CacheFlags::NONE),
            ("PZ", "dog", p | z),
            ("pzuq", "dog", p | z | u | q),
            ("P,dog", "dog", p),
            ("P,dog", "dogs", CacheFlags::NONE),
            ("P,dog*", "dogs", p),
            ("P,do", "dog", CacheFlags::NONE),
            ("P,cat,dog;;Z,dog", "dog", p | z),
            (",dog", "dog", CacheFlags::NONE),
            ("U,*", "kmalloc-8", u),
        ] {
            assert_eq!(SlabDebug::parse(text).unwrap().flags_for(name), flags, "{text} {name}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let error = |text: &str| SlabDebug::parse(text).err();
        assert_eq!(error("PX"), Some(SlabDebugError::Letter('X')));
        assert_eq!(error("P,"), Some(SlabDebugError::Name));
        assert_eq!(error("P,a,,b"), Some(SlabDebugError::Name));
        assert_eq!(error("P,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), Some(SlabDebugError::Name));
        assert_eq!(error("P,1,2,3,4,5,6,7,8,9"), Some(SlabDebugError::TooMany));
        assert_eq!(error("P;P;P;P;P;P;P;P;P"), Some(SlabDebugError::TooMany));
    }
}

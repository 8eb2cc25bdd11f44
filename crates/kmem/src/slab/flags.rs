//! How a cache is to be.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// Flags of a cache (A192 to A199).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CacheFlags(u32);

impl CacheFlags {
    /// No flag.
    pub const NONE: CacheFlags = CacheFlags(0);
    /// Objects lie at multiples of a line of the processor's cache, so that no two share one (A193).
    /// It costs memory. Small objects share a line evenly: two, four or eight to it.
    pub const HWCACHE_ALIGN: CacheFlags = CacheFlags(1 << 0);
    /// Slabs lie where ISA devices reach them. Only for objects that are used for DMA (A194).
    pub const CACHE_DMA: CacheFlags = CacheFlags(1 << 1);
    /// Slabs count as reclaimable: the cache can be shrunk (A199).
    pub const RECLAIM_ACCOUNT: CacheFlags = CacheFlags(1 << 2);
    /// The cache is not shrunk when memory is sought (A192).
    pub const NO_REAP: CacheFlags = CacheFlags(1 << 3);
    /// Creation must not fail: it panics if it does, and the caller need not look (A197).
    pub const PANIC: CacheFlags = CacheFlags(1 << 4);
    /// Accepted and without effect: the checker that it turned off is no more (A198).
    pub const NOTRACK: CacheFlags = CacheFlags(1 << 5);

    const NAMES: [(CacheFlags, &'static str); 6] = [
        (Self::HWCACHE_ALIGN, "SLAB_HWCACHE_ALIGN"),
        (Self::CACHE_DMA, "SLAB_CACHE_DMA"),
        (Self::RECLAIM_ACCOUNT, "SLAB_RECLAIM_ACCOUNT"),
        (Self::NO_REAP, "SLAB_NO_REAP"),
        (Self::PANIC, "SLAB_PANIC"),
        (Self::NOTRACK, "SLAB_NOTRACK"),
    ];

    /// Whether all flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: CacheFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    pub const fn union(self, other: CacheFlags) -> CacheFlags {
        CacheFlags(self.0 | other.0)
    }
}

impl BitOr for CacheFlags {
    type Output = CacheFlags;
    fn bitor(self, other: CacheFlags) -> CacheFlags {
        self.union(other)
    }
}

impl BitOrAssign for CacheFlags {
    fn bitor_assign(&mut self, other: CacheFlags) {
        *self = self.union(other);
    }
}

impl fmt::Display for CacheFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("0");
        }
        let mut separator = "";
        for (_, name) in Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        Ok(())
    }
}

impl fmt::Debug for CacheFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

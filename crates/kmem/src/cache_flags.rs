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

    /// Objects have known bytes while they are free, and others when they are handed out (A195): a
    /// write to a free object is found, and a read of what nobody wrote is seen. Not with a
    /// constructor.
    pub const POISON: CacheFlags = CacheFlags(1 << 6);
    /// Objects lie between zones of known bytes: a write beside an object is found (A196).
    pub const RED_ZONE: CacheFlags = CacheFlags(1 << 7);
    /// Who allocated and who freed each object is kept: caller, CPU and time.
    pub const STORE_USER: CacheFlags = CacheFlags(1 << 8);
    /// Freed objects are kept out of use for a while, so that a late write, or a second free, finds
    /// them free.
    pub const QUARANTINE: CacheFlags = CacheFlags(1 << 9);

    /// The flags that make a cache one that is debugged. It has no magazines, and each of its objects
    /// costs a lock taken and its bytes written and looked at.
    pub const DEBUG: CacheFlags =
        Self::POISON.union(Self::RED_ZONE).union(Self::STORE_USER).union(Self::QUARANTINE);

    const NAMES: [(CacheFlags, &'static str); 10] = [
        (Self::HWCACHE_ALIGN, "SLAB_HWCACHE_ALIGN"),
        (Self::CACHE_DMA, "SLAB_CACHE_DMA"),
        (Self::RECLAIM_ACCOUNT, "SLAB_RECLAIM_ACCOUNT"),
        (Self::NO_REAP, "SLAB_NO_REAP"),
        (Self::PANIC, "SLAB_PANIC"),
        (Self::NOTRACK, "SLAB_NOTRACK"),
        (Self::POISON, "SLAB_POISON"),
        (Self::RED_ZONE, "SLAB_RED_ZONE"),
        (Self::STORE_USER, "SLAB_STORE_USER"),
        (Self::QUARANTINE, "SLAB_QUARANTINE"),
    ];

    /// Whether all flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: CacheFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags without those of `other`.
    pub const fn without(self, other: CacheFlags) -> CacheFlags {
        CacheFlags(self.0 & !other.0)
    }

    /// Whether a cache with these is debugged.
    pub const fn is_debugging(self) -> bool {
        self.0 & Self::DEBUG.0 != 0
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

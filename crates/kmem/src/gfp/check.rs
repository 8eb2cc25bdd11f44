//! Combinations of flags that cannot be meant.

use core::fmt;

use super::Gfp;

/// Why a mask is refused. Each variant but the first holds the flags that are in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GfpError {
    /// Bits that are no flag.
    UnknownBits {
        /// The bits that are unknown.
        bits: u32,
    },
    /// More than one of `DMA`, `DMA32` and `HIGHMEM`: a page lies in one zone.
    TwoZones(Gfp),
    /// `MOVABLE` and `RECLAIMABLE`: a page is placed among those of one mobility.
    TwoMobilities(Gfp),
    /// More than one of `NOFAIL`, `NORETRY` and `RETRY_MAYFAIL`: they give different answers to one
    /// question.
    TwoRetryRules(Gfp),
    /// `NOFAIL` without `DIRECT_RECLAIM`: who cannot sleep cannot wait for memory (A108).
    NofailWithoutReclaim(Gfp),
    /// `IO` or `FS` without `DIRECT_RECLAIM`: they permit what only reclaim does.
    IoWithoutReclaim(Gfp),
    /// `FS` without `IO`: filesystems start I/O (A122).
    FsWithoutIo(Gfp),
    /// `COMP` or `NOFAIL` for a run of single pages, which is no block, and which no reclaim is sure
    /// to make.
    NotForRuns(Gfp),
    /// High, movable or DMA32 memory for an object, DMA memory of a cache that is not for it, or zeros
    /// where a constructor has been.
    NotForObjects(Gfp),
}

impl Gfp {
    /// Refuses a mask whose flags contradict each other.
    ///
    /// Legal although it may look wrong: `MEMALLOC` with `NOMEMALLOC`, where the latter wins (A110),
    /// and `MOVABLE` with a zone.
    ///
    /// # Errors
    ///
    /// The first conflict in the order of [`GfpError`]'s variants.
    #[inline]
    pub const fn check(self) -> Result<(), GfpError> {
        let zones = self.intersection(Self::EXCLUSIVE_ZONES);
        if zones.is_several() {
            return Err(GfpError::TwoZones(zones));
        }
        if self.contains(Self::MOBILITIES) {
            return Err(GfpError::TwoMobilities(Self::MOBILITIES));
        }
        let retry_rules = self.intersection(Self::RETRY_RULES);
        if retry_rules.is_several() {
            return Err(GfpError::TwoRetryRules(retry_rules));
        }
        if !self.may_sleep() && self.contains(Self::NOFAIL) {
            return Err(GfpError::NofailWithoutReclaim(Self::NOFAIL));
        }
        if !self.may_sleep() && self.intersects(Self::IO_AND_FS) {
            return Err(GfpError::IoWithoutReclaim(self.intersection(Self::IO_AND_FS)));
        }
        if self.may_fs() && !self.may_io() {
            return Err(GfpError::FsWithoutIo(Self::FS));
        }
        Ok(())
    }

    /// Whether a fast path may take the request: none of the rare flags, and nothing that
    /// [`Gfp::check`] refuses.
    ///
    /// Without the rare flags, what contradicts lies in two groups of neighbouring bits, so two
    /// tables of bits say it: two shifts, where `check` has six tests.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        let mobility = Self::SOUND_LOW >> (self.bits() & Self::LOW) & 1;
        let reclaim = Self::SOUND_RECLAIM >> (self.bits() >> Self::RECLAIM_SHIFT & 0xf) & 1;
        self.bits() & Self::RARE == 0 && mobility & reclaim != 0
    }

    /// The zone modifiers and `RECLAIMABLE`.
    const LOW: u32 = 0x1f;
    /// From `IO` on four bits: IO, FS, ZERO, DIRECT_RECLAIM.
    const RECLAIM_SHIFT: u32 = Self::IO.bits().trailing_zeros();
    /// Bit n says whether `check` accepts the low flags n.
    const SOUND_LOW: u32 = {
        let (mut table, mut bits) = (0, 0);
        while bits <= Self::LOW {
            if Gfp(bits).check().is_ok() {
                table |= 1 << bits;
            }
            bits += 1;
        }
        table
    };
    /// Bit n says whether `check` accepts the flags n from `IO` on.
    const SOUND_RECLAIM: u32 = {
        let (mut table, mut bits) = (0, 0);
        while bits <= 0xf {
            if Gfp(bits << Self::RECLAIM_SHIFT).check().is_ok() {
                table |= 1 << bits;
            }
            bits += 1;
        }
        table
    };

    /// As [`Gfp::check`], for a run of single pages.
    pub(crate) const fn check_for_run(self) -> Result<(), GfpError> {
        let flags = self.intersection(Self::COMP.union(Self::NOFAIL));
        if flags.is_empty() { self.check() } else { Err(GfpError::NotForRuns(flags)) }
    }

    const EXCLUSIVE_ZONES: Gfp = Self::DMA.union(Self::DMA32).union(Self::HIGHMEM);
    const MOBILITIES: Gfp = Self::MOVABLE.union(Self::RECLAIMABLE);
    const RETRY_RULES: Gfp = Self::NOFAIL.union(Self::NORETRY).union(Self::RETRY_MAYFAIL);
    const IO_AND_FS: Gfp = Self::IO.union(Self::FS);

    /// Clearing the lowest set bit leaves something exactly where there are two or more.
    const fn is_several(self) -> bool {
        self.bits() & self.bits().wrapping_sub(1) != 0
    }
}

impl fmt::Display for GfpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GfpError::UnknownBits { bits } => {
                write!(f, "gfp bits {bits:#x} are no flags: use bits of {:#x} only", Gfp::KNOWN)
            }
            GfpError::TwoZones(flags) => {
                write!(f, "gfp flags {flags} name more than one zone: keep one of them")
            }
            GfpError::TwoMobilities(flags) => {
                write!(f, "gfp flags {flags} give a page two mobilities: keep one of them")
            }
            GfpError::TwoRetryRules(flags) => {
                write!(f, "gfp flags {flags} are different rules for a failure: keep one of them")
            }
            GfpError::NofailWithoutReclaim(flags) => write!(
                f,
                "gfp flag {flags} waits for memory without an end but the call may not sleep: add {} \
                 or drop {flags}",
                Gfp::DIRECT_RECLAIM
            ),
            GfpError::IoWithoutReclaim(flags) => write!(
                f,
                "gfp flags {flags} permit reclaim to do I/O but the call may not reclaim: add {} or \
                 drop {flags}",
                Gfp::DIRECT_RECLAIM
            ),
            GfpError::FsWithoutIo(flags) => write!(
                f,
                "gfp flag {flags} permits filesystem calls but not the I/O that they start: add {} \
                 or drop {flags}",
                Gfp::IO
            ),
            GfpError::NotForObjects(flags) => {
                write!(f, "gfp flags {flags} cannot be had for an object of this cache: drop them")
            }
            GfpError::NotForRuns(flags) => {
                write!(f, "gfp flags {flags} cannot be had for a run of single pages: drop them")
            }
        }
    }
}

impl core::error::Error for GfpError {}

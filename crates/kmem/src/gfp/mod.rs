//! GFP flags: how, where and for what purpose memory is asked for.
//!
//! GFP stands for *get free pages* (A094): the words were made for the page allocator's calls. The
//! same mask serves every other allocation call too (A098, A128), because each of them ends in the
//! page allocator.
//!
//! # Three groups
//!
//! A mask is made from flags of three groups (A095):
//!
//! - *Zone modifiers* say **where** from. They are the lowest four bits (A100): `DMA`, `DMA32`,
//!   `HIGHMEM` and `MOVABLE`. At most one of the first three may be given. With none of them the
//!   request begins in the zone Normal, so that the scarce zones stay stocked (A118).
//! - *Action modifiers* say **how**: whether the allocator may sleep, what it may do to find memory,
//!   how far it may go into the reserves, how hard it tries, and what the pages should be like.
//! - *Type flags* are **ready combinations**, one for each purpose: `KERNEL`, `ATOMIC` and so on.
//!
//! Single flags carry a double underscore in the texts and combinations do not (A096):
//! `__GFP_IO`, `GFP_KERNEL`. In Rust both are associated constants without the prefix, [`Gfp::IO`]
//! and [`Gfp::KERNEL`]; the combinations exist under the texts' names as well: [`GFP_KERNEL`]. The
//! [text form](#text) is the texts' in all cases.
//!
//! # Which one to use
//!
//! Ordinary code names a type flag and leaves the modifiers to the manager (A129).
//!
//! | where the code runs | flags | source |
//! | --- | --- | --- |
//! | a task that may sleep | `GFP_KERNEL` | A130 |
//! | a task that may not sleep, as under a spin lock | `GFP_ATOMIC`, or allocate with `GFP_KERNEL` where sleeping is allowed | A131 |
//! | interrupt handler, softirq, tasklet | `GFP_ATOMIC` | A132 |
//! | a device that needs memory for DMA, may sleep | `GFP_DMA \| GFP_KERNEL` | A133 |
//! | the same, may not sleep | `GFP_DMA \| GFP_ATOMIC`, or allocate earlier | A134 |
//! | block I/O code | `GFP_NOIO` | A121 |
//! | filesystem code | `GFP_NOFS` | A122 |
//!
//! Whatever the flags, be ready for failure (A143); only [`Gfp::NOFAIL`] rules it out.
//!
//! # Valid masks
//!
//! `|` joins masks without asking whether the sum makes sense. [`Gfp::check`] tells; the allocation
//! calls ask it, [`Gfp::from_bits`] and the text form do too. [`GfpError`] lists what is refused.
//!
//! # Text
//!
//! `Display` writes the largest type flag that the mask contains, then the flags that are left, as
//! Linux's trace events do: `GFP_KERNEL|__GFP_ZERO`. A mask with no flag is `0`. `FromStr` reads
//! that back, and also every other name of the texts (`__GFP_WAIT`, `__GFP_REPEAT`), names without
//! their prefix and in either case (`kernel|dma`), bits in hexadecimal (`0x20`), and `none`.
//!
//! ```
//! use kmem::{GFP_DMA, GFP_KERNEL, Gfp};
//!
//! let flags = GFP_KERNEL | Gfp::ZERO;
//! assert_eq!(flags.to_string(), "GFP_KERNEL|__GFP_ZERO");
//! assert_eq!("kernel | dma".parse(), Ok(GFP_KERNEL | GFP_DMA));
//! assert_eq!(
//!     "KERNAL|DMA".parse::<Gfp>().unwrap_err().to_string(),
//!     "unknown gfp flag \"KERNAL\" at byte 0: did you mean GFP_KERNEL?",
//! );
//! ```
//!
//! # What differs from Linux
//!
//! - Impossible combinations are refused with a reason. Linux lets most of them pass and drops a
//!   flag in silence, or warns.
//! - Only the lowest five bits have Linux's values. The others are chosen for this manager: what a
//!   fast path does not handle is one group of bits, so that one test finds all of it. [`numeric`]
//!   translates the values that the texts state.
//! - The compositions are today's. `GFP_ATOMIC` and `GFP_NOWAIT`, which in the texts are `__GFP_HIGH`
//!   and 0 (A119, A120), now wake the reclaiming daemon too; `GFP_USER` has `HARDWALL` (A124).
//! - Flags that today's Linux has removed and the texts describe still work: `__GFP_WAIT`,
//!   `__GFP_REPEAT`, `__GFP_COLD`, `GFP_BUFFER`.

mod check;
pub mod numeric;
mod text;
mod zone_kind;

use core::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, Sub, SubAssign};

pub use check::GfpError;
pub use text::{ParseGfpError, Word};
pub use zone_kind::ZoneKind;

/// A set of GFP flags, one unsigned 32-bit integer wide (A093).
///
/// The [module's documentation](self) tells how flags combine and what their text form is.
///
/// # Invariants
///
/// Only bits of the flags below are set: no constructor lets in another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Gfp(u32);

/// Zone modifiers: where the pages may come from (A095, A100).
impl Gfp {
    /// `__GFP_DMA`: from the zone DMA and no other (A114); on a machine without it, where devices
    /// reach all of the direct map, from Normal.
    pub const DMA: Gfp = Gfp(0x01);

    /// `__GFP_HIGHMEM`: from the zone HighMem if possible, else from Normal and below (A116). Calls
    /// that return an address refuse it, for such a page may have none.
    pub const HIGHMEM: Gfp = Gfp(0x02);

    /// `__GFP_DMA32`: from the zone DMA32, and from DMA when that is exhausted (A115).
    pub const DMA32: Gfp = Gfp(0x04);

    /// `__GFP_MOVABLE`: the owner allows the page to be moved. With `HIGHMEM` the zone Movable is
    /// open to it too (A117).
    pub const MOVABLE: Gfp = Gfp(0x08);

    const ZONE_MASK: u32 = 0x0f;
}

/// Action modifiers: how the allocator may go about it (A095).
impl Gfp {
    /// `__GFP_RECLAIMABLE`: the pages can be had back on demand, as those of a cache that shrinks;
    /// they are placed among pages of that kind (A112).
    pub const RECLAIMABLE: Gfp = Gfp(0x10);

    /// `__GFP_HIGH`: urgent; may go deeper into the reserves (A102).
    pub const HIGH: Gfp = Gfp(0x20);

    /// `__GFP_IO`: reclaim may start disk I/O (A103).
    pub const IO: Gfp = Gfp(0x40);

    /// `__GFP_FS`: reclaim may call into filesystems (A104).
    pub const FS: Gfp = Gfp(0x80);

    /// `__GFP_ZERO`: the pages are filled with zero.
    pub const ZERO: Gfp = Gfp(0x100);

    /// `__GFP_DIRECT_RECLAIM`: the caller may sleep and free memory itself (A101).
    pub const DIRECT_RECLAIM: Gfp = Gfp(0x200);

    /// `__GFP_KSWAPD_RECLAIM`: wake the reclaiming daemon when memory runs low (A101).
    pub const KSWAPD_RECLAIM: Gfp = Gfp(0x400);

    /// `__GFP_NOWARN`: no message when the request fails (A106).
    pub const NOWARN: Gfp = Gfp(0x800);

    /// `__GFP_HARDWALL`: only from nodes that the task is allowed (A111).
    pub const HARDWALL: Gfp = Gfp(0x1000);

    /// `__GFP_RETRY_MAYFAIL`: try again while it may help, yet fail in the end (A107).
    pub const RETRY_MAYFAIL: Gfp = Gfp(0x2000);

    /// `__GFP_NOFAIL`: try for ever; the call cannot fail (A108). Needs `DIRECT_RECLAIM`.
    pub const NOFAIL: Gfp = Gfp(0x4000);

    /// `__GFP_NORETRY`: one attempt to free memory, then fail (A109).
    pub const NORETRY: Gfp = Gfp(0x8000);

    /// `__GFP_MEMALLOC`: the caller is about to free more memory than it takes: no reserve is kept
    /// from it.
    pub const MEMALLOC: Gfp = Gfp(0x1_0000);

    /// `__GFP_NOMEMALLOC`: keep away from the reserves; wins over `MEMALLOC` (A110).
    pub const NOMEMALLOC: Gfp = Gfp(0x2_0000);

    /// `__GFP_THISNODE`: from the node asked for and no other.
    pub const THISNODE: Gfp = Gfp(0x4_0000);

    /// `__GFP_COMP`: the pages of the block form a compound page (A113).
    pub const COMP: Gfp = Gfp(0x8_0000);

    /// `__GFP_COLD`: prefer pages that are not in the CPU's cache, as for a transfer by a device
    /// (A105).
    pub const COLD: Gfp = Gfp(0x10_0000);

    /// `__GFP_WAIT`: the allocator may sleep, the word of the texts (A101). Today it is two flags.
    pub const WAIT: Gfp = Gfp(Self::DIRECT_RECLAIM.0 | Self::KSWAPD_RECLAIM.0);

    /// `__GFP_REPEAT`: the older name of `RETRY_MAYFAIL` (A107).
    pub const REPEAT: Gfp = Self::RETRY_MAYFAIL;

    /// The flags that a fast path leaves to the general one: neighbours, so that one test of the
    /// mask finds them all.
    pub(crate) const RARE: u32 = 0x1f_e000;

    const KNOWN: u32 = 0x1f_ffff;
}

/// Type flags: ready combinations (A095), composed as today.
impl Gfp {
    /// `GFP_ATOMIC`: urgent and never sleeps; for interrupt handlers, bottom halves and code that
    /// holds a spin lock (A119).
    pub const ATOMIC: Gfp = Gfp(Self::HIGH.0 | Self::KSWAPD_RECLAIM.0);

    /// `GFP_NOWAIT`: never sleeps and has no claim to the emergency reserve, so it fails sooner than
    /// `GFP_ATOMIC`, and without a message (A120).
    pub const NOWAIT: Gfp = Gfp(Self::KSWAPD_RECLAIM.0 | Self::NOWARN.0);

    /// `GFP_NOIO`: may sleep; starts no I/O (A121).
    pub const NOIO: Gfp = Self::WAIT;

    /// `GFP_NOFS`: may sleep and start disk I/O; calls no filesystem (A122).
    pub const NOFS: Gfp = Gfp(Self::WAIT.0 | Self::IO.0);

    /// `GFP_KERNEL`: the default choice; may sleep and do whatever frees memory (A123).
    pub const KERNEL: Gfp = Gfp(Self::NOFS.0 | Self::FS.0);

    /// `GFP_USER`: for a user process, within the nodes that it is allowed (A124).
    pub const USER: Gfp = Gfp(Self::KERNEL.0 | Self::HARDWALL.0);

    /// `GFP_HIGHUSER`: for a user process, from HighMem if possible (A125).
    pub const HIGHUSER: Gfp = Gfp(Self::USER.0 | Self::HIGHMEM.0);

    /// `GFP_HIGHUSER_MOVABLE`: as `GFP_HIGHUSER`, and the page may be moved (A125).
    pub const HIGHUSER_MOVABLE: Gfp = Gfp(Self::HIGHUSER.0 | Self::MOVABLE.0);

    /// `GFP_BUFFER`: for the buffer cache; may sleep, but makes fewer attempts to flush dirty pages
    /// (A127).
    ///
    /// The text gives no composition; this is that of Linux 2.4. Without `IO` the caller never
    /// flushes, so a cache of disk blocks cannot wait for itself. Only the daemon that `WAIT` wakes
    /// still does, which makes the attempts fewer, not none. `HIGH` makes up for it, and is what
    /// tells it from the later `GFP_NOIO`: the caller may go deeper into the reserves.
    pub const BUFFER: Gfp = Gfp(Self::HIGH.0 | Self::WAIT.0);
}

/// [`Gfp::ATOMIC`] (A119).
pub const GFP_ATOMIC: Gfp = Gfp::ATOMIC;
/// [`Gfp::NOWAIT`] (A120).
pub const GFP_NOWAIT: Gfp = Gfp::NOWAIT;
/// [`Gfp::NOIO`] (A121).
pub const GFP_NOIO: Gfp = Gfp::NOIO;
/// [`Gfp::NOFS`] (A122).
pub const GFP_NOFS: Gfp = Gfp::NOFS;
/// [`Gfp::KERNEL`] (A123).
pub const GFP_KERNEL: Gfp = Gfp::KERNEL;
/// [`Gfp::USER`] (A124).
pub const GFP_USER: Gfp = Gfp::USER;
/// [`Gfp::HIGHUSER`] (A125).
pub const GFP_HIGHUSER: Gfp = Gfp::HIGHUSER;
/// [`Gfp::HIGHUSER_MOVABLE`] (A125).
pub const GFP_HIGHUSER_MOVABLE: Gfp = Gfp::HIGHUSER_MOVABLE;
/// [`Gfp::DMA`], to be joined with [`GFP_KERNEL`] or [`GFP_ATOMIC`] (A126).
pub const GFP_DMA: Gfp = Gfp::DMA;
/// [`Gfp::DMA32`], to be joined with [`GFP_KERNEL`] or [`GFP_ATOMIC`].
pub const GFP_DMA32: Gfp = Gfp::DMA32;
/// [`Gfp::BUFFER`] (A127).
pub const GFP_BUFFER: Gfp = Gfp::BUFFER;

/// Sets of flags.
impl Gfp {
    /// No flag: from Normal, never sleeps, wakes nobody. The texts' `GFP_NOWAIT` (A120).
    pub const NONE: Gfp = Gfp(0);

    /// The mask as an integer (A093).
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The mask with these bits, as [`Gfp::bits`] gives them.
    ///
    /// # Errors
    ///
    /// [`GfpError::UnknownBits`] for a bit that is no flag, else what [`Gfp::check`] finds.
    pub const fn from_bits(bits: u32) -> Result<Gfp, GfpError> {
        match Self::known(bits) {
            Ok(gfp) => match gfp.check() {
                Ok(()) => Ok(gfp),
                Err(error) => Err(error),
            },
            unknown => unknown,
        }
    }

    const fn known(bits: u32) -> Result<Gfp, GfpError> {
        match bits & !Self::KNOWN {
            0 => Ok(Gfp(bits)),
            bits => Err(GfpError::UnknownBits { bits }),
        }
    }

    /// The flags of either mask (A097); what `|` does, for constants.
    #[inline]
    pub const fn union(self, other: Gfp) -> Gfp {
        Gfp(self.0 | other.0)
    }

    /// The flags of both masks; what `&` does, for constants.
    #[inline]
    pub const fn intersection(self, other: Gfp) -> Gfp {
        Gfp(self.0 & other.0)
    }

    /// The flags of this mask that are not in `other`; what `-` does, for constants.
    #[inline]
    pub const fn difference(self, other: Gfp) -> Gfp {
        Gfp(self.0 & !other.0)
    }

    /// Whether every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Gfp) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Gfp) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no flag is set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a mask asks for.
impl Gfp {
    /// Whether the call may sleep, and so is a bug in atomic context (A101, A135).
    #[inline]
    pub const fn may_sleep(self) -> bool {
        self.intersects(Self::DIRECT_RECLAIM)
    }

    /// Whether low memory wakes the reclaiming daemon (A101).
    #[inline]
    pub const fn wakes_kswapd(self) -> bool {
        self.intersects(Self::KSWAPD_RECLAIM)
    }

    /// Whether reclaim on the caller's behalf may start disk I/O (A103).
    #[inline]
    pub const fn may_io(self) -> bool {
        self.intersects(Self::IO)
    }

    /// Whether reclaim on the caller's behalf may call filesystems (A104).
    #[inline]
    pub const fn may_fs(self) -> bool {
        self.intersects(Self::FS)
    }

    /// Whether the pages are to be filled with zero.
    #[inline]
    pub const fn zeroed(self) -> bool {
        self.intersects(Self::ZERO)
    }

    /// The zone modifiers: the lowest four bits (A100).
    #[inline]
    pub const fn zone_bits(self) -> u32 {
        self.0 & Self::ZONE_MASK
    }

    /// The mobility asked for: 0 unmovable, 1 movable (A117), 2 reclaimable (A112).
    ///
    /// 3 is no mobility; a mask that passes [`Gfp::check`] never gives it.
    #[inline]
    pub const fn migrate_type_bits(self) -> u32 {
        (self.0 >> Self::MOVABLE.0.trailing_zeros()) & 3
    }

    /// The highest zone that may serve the request; those below it follow (A114 to A118).
    ///
    /// `MOVABLE` alone does not open the zone Movable: its pages may lie outside the direct map, so
    /// the caller must also accept `HIGHMEM`. A machine need not have the zone.
    #[inline]
    pub const fn highest_zone(self) -> ZoneKind {
        ZoneKind::HIGHEST[self.zone_bits() as usize]
    }
}

const _: () = {
    assert!(Gfp::ZONE_MASK == Gfp::DMA.0 | Gfp::HIGHMEM.0 | Gfp::DMA32.0 | Gfp::MOVABLE.0);
    // `migrate_type_bits` takes the two as neighbours.
    assert!(Gfp::RECLAIMABLE.0 == Gfp::MOVABLE.0 << 1);
    let retry = Gfp::RETRY_MAYFAIL.0 | Gfp::NOFAIL.0 | Gfp::NORETRY.0;
    let reserve = Gfp::MEMALLOC.0 | Gfp::NOMEMALLOC.0;
    assert!(Gfp::RARE == retry | reserve | Gfp::THISNODE.0 | Gfp::COMP.0 | Gfp::COLD.0);
    assert!(Gfp::KNOWN == Gfp::RARE | ((1 << Gfp::RARE.trailing_zeros()) - 1));
    // `is_plain` takes the four that belong together as neighbours.
    assert!(Gfp::FS.0 == Gfp::IO.0 << 1 && Gfp::DIRECT_RECLAIM.0 == Gfp::IO.0 << 3);
};

impl BitOr for Gfp {
    type Output = Gfp;

    /// The flags of either mask (A097).
    #[inline]
    fn bitor(self, other: Gfp) -> Gfp {
        self.union(other)
    }
}

impl BitOrAssign for Gfp {
    #[inline]
    fn bitor_assign(&mut self, other: Gfp) {
        *self = self.union(other);
    }
}

impl BitAnd for Gfp {
    type Output = Gfp;

    /// The flags of both masks.
    #[inline]
    fn bitand(self, other: Gfp) -> Gfp {
        self.intersection(other)
    }
}

impl BitAndAssign for Gfp {
    #[inline]
    fn bitand_assign(&mut self, other: Gfp) {
        *self = self.intersection(other);
    }
}

impl Sub for Gfp {
    type Output = Gfp;

    /// The mask without the flags of `other`.
    #[inline]
    fn sub(self, other: Gfp) -> Gfp {
        self.difference(other)
    }
}

impl SubAssign for Gfp {
    #[inline]
    fn sub_assign(&mut self, other: Gfp) {
        *self = self.difference(other);
    }
}

#[cfg(test)]
mod tests;

//! How far down a zone may be used, and by whom.

use crate::Gfp;
use crate::gfp::ZoneKind;

/// A zone's watermarks, in pages (A026).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// Ordinary requests stop and reclaim here.
    pub min: u64,
    /// Background reclaim is woken here.
    pub low: u64,
    /// Background reclaim stops here.
    pub high: u64,
}

impl Watermarks {
    /// The marks of a zone with `managed` pages, which is given `min` of the machine's minimum.
    ///
    /// The steps between the marks are a quarter of `min`, or a thousandth of the zone where that is
    /// more: on a large zone a quarter of min would be used up before background reclaim gets going.
    pub const fn new(min: u64, managed: u64) -> Watermarks {
        let quarter = min / 4;
        let thousandth = managed / 1000;
        let step = if quarter > thousandth { quarter } else { thousandth };
        Watermarks { min, low: min + step, high: min + 2 * step }
    }
}

/// What a request may do to a zone's reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Only what is above the low mark: the first try of everybody.
    Low,
    /// Down to min.
    Normal,
    /// Half of min (`__GFP_HIGH`, A102).
    High,
    /// A quarter of what is left after that, too: high, and cannot wait (GFP_ATOMIC, A119).
    Atomic,
    /// Everything (`__GFP_MEMALLOC`, or a task that frees memory).
    All,
}

impl Priority {
    /// The priority of a request on its second and later tries.
    ///
    /// `memalloc` says that the current task frees memory for others; `__GFP_NOMEMALLOC` wins over
    /// it and over `__GFP_MEMALLOC` (A110).
    pub const fn of(gfp: Gfp, memalloc: bool, whole_reserve_for_atomic: bool) -> Priority {
        if (memalloc || gfp.contains(Gfp::MEMALLOC)) && !gfp.contains(Gfp::NOMEMALLOC) {
            Priority::All
        } else if gfp.contains(Gfp::HIGH) && !gfp.contains(Gfp::NOMEMALLOC) {
            if whole_reserve_for_atomic {
                Priority::All
            } else if gfp.may_sleep() {
                Priority::High
            } else {
                Priority::Atomic
            }
        } else {
            Priority::Normal
        }
    }
}

/// The number of free pages that a request must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor(u64);

impl Floor {
    /// Nothing needs to be left.
    pub const NONE: Floor = Floor(0);

    /// What a request of this priority must leave in a zone with these marks, which keeps `reserve`
    /// back from it.
    pub const fn new(marks: &Watermarks, reserve: u64, priority: Priority) -> Floor {
        let mark = match priority {
            Priority::Low => marks.low,
            Priority::Normal => marks.min,
            Priority::High => marks.min - marks.min / 2,
            Priority::Atomic => {
                let half = marks.min - marks.min / 2;
                half - half / 4
            }
            Priority::All => return Floor(0),
        };
        Floor(mark + reserve)
    }

    /// How many pages may be taken from a zone with `free` free pages.
    ///
    /// A block may be taken while more than the floor is free when all but one of its pages are
    /// gone: a block's size alone does not make a request fail earlier than single pages would.
    #[inline]
    pub const fn allows(self, free: u64) -> u64 {
        free.saturating_sub(self.0)
    }
}

/// The machine's minimum of free memory, in KiB, for its pages that the kernel can use directly:
/// 4 times the square root, between 128 KiB and 256 MiB. A machine of 16 times the memory needs
/// about 4 times the reserve.
pub fn min_free_kilobytes(lowmem_kilobytes: u64) -> u64 {
    (lowmem_kilobytes * 16).isqrt().clamp(128, 262_144)
}

/// What a zone keeps back from requests for each higher kind: the pages of the zones above it, up
/// to that kind, divided by the zone's ratio (A037). A ratio of 0 keeps nothing back.
pub fn lowmem_reserve(
    kind: ZoneKind,
    ratio: u32,
    managed_of: impl Fn(ZoneKind) -> u64,
) -> [u64; ZoneKind::COUNT] {
    let mut above = 0;
    ZoneKind::ALL.map(|highest| {
        if highest <= kind || ratio == 0 {
            return 0;
        }
        above += managed_of(highest);
        above / u64::from(ratio)
    })
}

//! When each block of pages was handed out, as far as a trace tells.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kmem::Pfn;
use kmem::platform::Event;

/// A time for each frame of RAM: that of the block which begins there.
///
/// The manager keeps no time of a page, and need not: a machine that is traced is told of each block that is
/// handed out or given back.
pub(crate) struct Ages {
    /// The frames of RAM in order, and how many there are before each range.
    ram: Vec<(Range<u64>, usize)>,
    /// In nanoseconds since the machine was made; 0 where no block begins that is known of.
    times: Box<[AtomicU64]>,
}

impl Ages {
    /// For RAM in these ranges of bytes, in order, and pages of `2^shift` bytes.
    pub(crate) fn new(ram: &[Range<u64>], shift: u32) -> Ages {
        let mut count = 0;
        let ranges = ram.iter().map(|bytes| {
            let frames = bytes.start >> shift..bytes.end.div_ceil(1 << shift);
            let before = count;
            count += (frames.end - frames.start) as usize;
            (frames, before)
        });
        let ram = ranges.collect();
        // Zeroes from the host, which gives memory for them when the first time is written.
        let times = Box::into_raw(vec![0u64; count].into_boxed_slice()) as *mut [AtomicU64];
        // SAFETY: an `AtomicU64` has the size and, on 64-bit hosts, the alignment of a `u64`, and every value
        // of it is good; nobody else has the memory.
        Ages { ram, times: unsafe { Box::from_raw(times) } }
    }

    fn time(&self, pfn: Pfn) -> Option<&AtomicU64> {
        let frame = pfn.number();
        let at = self.ram.partition_point(|(frames, _)| frames.end <= frame);
        let (frames, before) = self.ram.get(at).filter(|(frames, _)| frames.start <= frame)?;
        self.times.get(before + (frame - frames.start) as usize)
    }

    /// Takes an event that happened at a time. Any context.
    pub(crate) fn note(&self, event: &Event, now: u64) {
        let (first, time) = match event {
            Event::PageAlloc { first: Some(first), .. } => (first, now.max(1)),
            Event::PageFree { first, .. } => (first, 0),
            _ => return,
        };
        if let Some(place) = self.time(first.pfn) {
            place.store(time, Relaxed);
        }
    }

    /// When the block that begins at a frame was handed out; `None` where that is not known.
    pub(crate) fn since(&self, first: Pfn) -> Option<u64> {
        self.time(first).map(|time| time.load(Relaxed)).filter(|time| *time > 0)
    }
}

const _: () = assert!(align_of::<AtomicU64>() == align_of::<u64>());

#[cfg(test)]
mod tests {
    use kmem::platform::Frame;
    use kmem::{Gfp, Order, VirtAddr};

    use super::*;

    #[test]
    fn a_block_has_the_time_of_its_last_allocation_until_it_is_freed() {
        let ages = Ages::new(&[0x1000..0x4800, 0x10_0000..0x10_2000], 12);
        assert_eq!(ages.times.len(), 4 + 2);
        let pfn = |frame| Pfn::new(frame).unwrap();
        let first = |frame| Frame { descriptor: VirtAddr::new(0), pfn: pfn(frame) };
        let order = Order::ZERO;
        let alloc = |frame| Event::PageAlloc {
            first: Some(first(frame)),
            order,
            migrate_type: 0,
            gfp: Gfp::NONE,
        };
        for (frame, time) in [(1, 10), (4, 20), (0x101, 30), (0x101, 40), (0, 50), (5, 60)] {
            ages.note(&alloc(frame), time);
        }
        // The last one is no frame of RAM, as the first and the one behind the first range.
        let since = |frame| ages.since(pfn(frame));
        assert_eq!([1, 2, 4, 0x101].map(since), [Some(10), None, Some(20), Some(40)]);
        assert_eq!([0, 5, 0xff, 0x102].map(since), [None; 4]);
        ages.note(&Event::PageFree { first: first(4), order }, 70);
        assert_eq!((since(4), since(1)), (None, Some(10)));
        // A machine may be so young that its time is 0.
        ages.note(&alloc(2), 0);
        assert_eq!(since(2), Some(1));
    }
}

//! What is kept of an area: who has it, and which frames are mapped there.

use core::panic::Location;
use core::ptr::NonNull;

use crate::Pfn;

/// What an area is, which says who gives it back and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// Memory of `vmalloc` and its sisters: the frames are the area's.
    Vmalloc,
    /// Frames of somebody else, mapped by `vmap`.
    Vmap,
    /// The same, mapped by `vm_map_ram`.
    VmMapRam,
    /// A device's registers or memory, mapped by `ioremap`.
    Ioremap,
    /// A kernel stack.
    Stack,
}

impl AreaKind {
    /// What `/proc/vmallocinfo` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            AreaKind::Vmalloc => "vmalloc",
            AreaKind::Vmap => "vmap",
            AreaKind::VmMapRam => "vm_map_ram",
            AreaKind::Ioremap => "ioremap",
            AreaKind::Stack => "stack",
        }
    }

    /// How many pages there are before its first that nothing is mapped at: a stack is run out of at its
    /// lower end.
    pub(crate) const fn pages_before(self) -> usize {
        match self {
            AreaKind::Stack => 1,
            _ => 0,
        }
    }
}

/// Frames that lie side by side and are mapped side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first frame.
    pub(crate) first: Pfn,
    /// Which page of the area it is mapped at.
    pub(crate) at: u32,
}

/// How many runs an area keeps without more memory. A block of the buddy system is a run, and a number of
/// pages with few bits set is found in as few blocks where memory is not splintered.
pub(crate) const FEW: usize = 3;

/// The runs of an area, in the order in which they are mapped.
///
/// # Invariants
///
/// `Many` points to so many runs, which do not change until whoever takes the area apart frees them.
#[derive(Clone, Copy)]
pub(crate) enum Runs {
    /// So many of them.
    Few([Run; FEW], u8),
    /// More, in memory of their own.
    Many(NonNull<Run>, usize),
}

// SAFETY: the runs do not change.
unsafe impl Send for Runs {}

impl Runs {
    /// One run.
    pub(crate) const fn one(first: Pfn) -> Runs {
        Runs::Few([Run { first, at: 0 }; FEW], 1)
    }

    /// The runs.
    pub(crate) fn as_slice(&self) -> &[Run] {
        match self {
            Runs::Few(runs, count) => &runs[..usize::from(*count)],
            // SAFETY: the invariant.
            Runs::Many(runs, count) => unsafe {
                core::slice::from_raw_parts(runs.as_ptr(), *count)
            },
        }
    }

    /// The runs from one on with the number of pages of each, of an area of so many pages.
    pub(crate) fn from(&self, first: usize, pages: usize) -> impl Iterator<Item = (Run, usize)> {
        let runs = self.as_slice();
        (first..runs.len()).map(move |index| {
            let end = runs.get(index + 1).map_or(pages, |next| next.at as usize);
            (runs[index], end - runs[index].at as usize)
        })
    }

    /// The runs with those joined that lie side by side: the first frame and the number of pages of each.
    pub(crate) fn joined(&self, pages: usize) -> impl Iterator<Item = (Pfn, usize)> {
        let mut runs = self.from(0, pages).peekable();
        core::iter::from_fn(move || {
            let (Run { first, .. }, mut pages) = runs.next()?;
            let follows =
                |pages: usize, run: &Run| first.checked_add(pages as u64) == Some(run.first);
            while let Some((_, more)) = runs.next_if(|(run, _)| follows(pages, run)) {
                pages += more;
            }
            Some((first, pages))
        })
    }

    /// The frame of a page of the area. A search among the runs by halves.
    pub(crate) fn frame(&self, page: usize) -> Option<Pfn> {
        let runs = self.as_slice();
        let run = runs[..runs.partition_point(|run| run.at as usize <= page)].last()?;
        run.first.checked_add((page - run.at as usize) as u64)
    }
}

/// An area that waits to be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Going {
    /// Its first address.
    pub(crate) start: usize,
    /// How many pages it has.
    pub(crate) pages: usize,
}

/// What is kept of an area.
pub(crate) struct Mapping {
    pub(crate) kind: AreaKind,
    /// Whether it has been given back and waits to be unmapped.
    pub(crate) is_going: bool,
    /// The next one that waits.
    pub(crate) next_going: Option<Going>,
    /// How many pages are mapped. Guard pages are not counted.
    pub(crate) pages: usize,
    pub(crate) runs: Runs,
    /// Who made it.
    pub(crate) caller: &'static Location<'static>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_of_each_page_is_found_in_its_run() {
        let pfn = |number| Pfn::new(number).unwrap();
        let run = |first, at| Run { first: pfn(first), at };
        let mut many = [run(100, 0), run(50, 4), run(7, 5), run(300, 9), run(200, 10)];
        let runs = Runs::Many(NonNull::from(&mut many).cast(), many.len());
        let frames: std::vec::Vec<u64> =
            (0..12).map(|page| runs.frame(page).unwrap().number()).collect();
        assert_eq!(frames, [100, 101, 102, 103, 50, 7, 8, 9, 10, 300, 200, 201]);
        let lengths: std::vec::Vec<usize> = runs.from(0, 12).map(|(_, pages)| pages).collect();
        assert_eq!(lengths, [4, 1, 4, 1, 2]);
        assert_eq!(runs.joined(12).count(), 5);
        assert_eq!(Runs::one(pfn(9)).frame(3), Some(pfn(12)));
    }
}

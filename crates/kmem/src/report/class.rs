//! What frames are counted as, by all reports that show them.

use crate::mm::Owner;
use crate::page::{Block, Memmap};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, Pfn, PfnRange, Zone};

/// What a frame is counted as.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Class {
    Free,
    Listed,
    Slab,
    InUse,
    KernelImage,
    Metadata,
    Reserved,
    Late,
}

impl Class {
    pub(super) const COUNT: usize = 8;

    pub(super) const ALL: [Class; Self::COUNT] = [
        Class::Free,
        Class::Listed,
        Class::Slab,
        Class::InUse,
        Class::KernelImage,
        Class::Metadata,
        Class::Reserved,
        Class::Late,
    ];

    pub(super) fn of(owner: Owner) -> Class {
        match owner {
            Owner::Free => Class::Free,
            Owner::FreeOnLists(_) => Class::Listed,
            Owner::Slab => Class::Slab,
            Owner::KernelImage => Class::KernelImage,
            Owner::Metadata => Class::Metadata,
            Owner::Reserved => Class::Reserved,
            Owner::Late => Class::Late,
            Owner::Kernel
            | Owner::Vmalloc
            | Owner::Private
            | Owner::PageCache { .. }
            | Owner::User { .. } => Class::InUse,
            // Only frames of RAM are asked for: the block was split or merged at this moment.
            Owner::Hole => Class::InUse,
        }
    }

    /// The sign of a cell that is wholly of the class, and of one that mostly is.
    pub(super) const fn signs(self) -> [char; 2] {
        match self {
            Class::Free => ['.', ':'],
            Class::Listed => ['C', 'c'],
            Class::Slab => ['S', 's'],
            Class::InUse => ['U', 'u'],
            Class::KernelImage => ['K', 'k'],
            Class::Metadata => ['M', 'm'],
            Class::Reserved => ['R', 'r'],
            Class::Late => ['L', 'l'],
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Class::Free => "free",
            Class::Listed => "on a CPU's list",
            Class::Slab => "slab",
            Class::InUse => "in use",
            Class::KernelImage => "kernel image",
            Class::Metadata => "the manager's tables",
            Class::Reserved => "reserved",
            Class::Late => "to be released late",
        }
    }

    /// The class in one word, for programs.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Class::Free => "free",
            Class::Listed => "listed",
            Class::Slab => "slab",
            Class::InUse => "used",
            Class::KernelImage => "kernel",
            Class::Metadata => "tables",
            Class::Reserved => "reserved",
            Class::Late => "late",
        }
    }
}

/// The sign of what is no RAM.
pub(super) const NO_RAM: char = '-';

/// A frame, and what of its block follows it.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// Who has all of it.
    pub(super) owner: Owner,
    /// What the frame is part of.
    pub(super) block: Block,
    /// Where it ends.
    pub(super) end: u64,
}

/// What begins at a frame of RAM. A free or used block is one piece, of one class; anything else is a piece a
/// frame.
pub(super) fn piece<P: Platform, R: Reclaim>(mm: &Mm<P, R>, memmap: &Memmap, frame: u64) -> Piece {
    let head = Pfn::new(frame).and_then(|pfn| memmap.head(pfn));
    let Some((head, block)) = head else {
        return Piece { owner: Owner::Hole, block: Block::Hole, end: frame + 1 };
    };
    let end = match block {
        Block::Free(order) | Block::Used(order) | Block::Compound(order) => {
            head.number() + order.pages()
        }
        Block::Hole | Block::Reserved | Block::Interior | Block::Tail => frame + 1,
    };
    Piece { owner: mm.owner(head), block, end }
}

/// A zone's frames, from its first of RAM to its last.
pub(super) fn span(zone: &Zone) -> PfnRange {
    zone.start_pfn()..zone.start_pfn() + zone.spanned_pages()
}

pub(super) fn intersect(a: &PfnRange, b: &PfnRange) -> Option<PfnRange> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

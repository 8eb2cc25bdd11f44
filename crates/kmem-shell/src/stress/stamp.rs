//! What a holder writes into its pages, and reads again before it frees them.

use core::fmt;

use kmem::{Mm, Page, Pfn, Platform, Reclaim};

use super::Problem;
use super::held::Held;
use super::random::mix;
use crate::memory::with_page;

/// Bytes that are not what the holder wrote.
#[derive(Clone, Copy)]
pub(super) struct Damage {
    pfn: u64,
    offset: usize,
    expected: u64,
    found: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { pfn, offset, expected, found } = self;
        write!(
            f,
            "page {pfn:#x} was changed while it was held: {found:#018x} at byte {offset} where its \
             holder wrote {expected:#018x}"
        )
    }
}

const WORD: usize = size_of::<u64>();

/// A word of the stamp: different for every page, word and salt.
fn word(pfn: u64, salt: u16, index: usize) -> u64 {
    mix(pfn << 32 | u64::from(salt) << 16 | index as u64)
}

/// Which words of a page are stamped, of `words`.
///
/// A single page whose salt is a multiple of 16 is stamped wholly, small blocks at both ends and
/// somewhere within each page, large ones at one word a page: otherwise filling memory would take
/// all the time.
fn stamped(held: &Held, pfn: u64, words: usize) -> impl Iterator<Item = usize> {
    const SMALL: u32 = 8;
    let some = mix(pfn ^ u64::from(held.salt)) as usize % words;
    let whole = held.pages == 1 && held.salt.is_multiple_of(16);
    let (all, few) = match held.pages {
        1 if whole => (words, 0),
        0..=SMALL => (0, 3),
        _ => (0, 1),
    };
    (0..all).chain([some, 0, words - 1].into_iter().take(few))
}

/// Writes a block's stamp.
///
/// # Safety
///
/// The block is the caller's alone.
pub(super) unsafe fn write<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    held: &Held,
) -> Result<(), Problem> {
    // SAFETY: the block is the caller's.
    unsafe {
        each_page(mm, held, |pfn, bytes| {
            for index in stamped(held, pfn, bytes.len() / WORD) {
                let stamp = word(pfn, held.salt, index).to_ne_bytes();
                bytes[index * WORD..][..WORD].copy_from_slice(&stamp);
            }
            Ok(())
        })
    }
}

/// Reads a block's stamp.
///
/// # Safety
///
/// The block is the caller's alone.
pub(super) unsafe fn verify<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    held: &Held,
) -> Result<(), Problem> {
    // SAFETY: the block is the caller's.
    unsafe {
        each_page(mm, held, |pfn, bytes| {
            for index in stamped(held, pfn, bytes.len() / WORD) {
                let expected = word(pfn, held.salt, index);
                let mut found = [0; WORD];
                found.copy_from_slice(&bytes[index * WORD..][..WORD]);
                let found = u64::from_ne_bytes(found);
                if found != expected {
                    let offset = index * WORD;
                    return Err(Problem::Damaged(Damage { pfn, offset, expected, found }));
                }
            }
            Ok(())
        })
    }
}

/// Checks that a block that was asked for cleared is.
///
/// # Safety
///
/// The block is the caller's alone.
pub(super) unsafe fn verify_cleared<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    held: &Held,
) -> Result<(), Problem> {
    // SAFETY: the block is the caller's.
    unsafe {
        each_page(mm, held, |pfn, bytes| match bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(offset) => Err(Problem::NotCleared { pfn, offset }),
        })
    }
}

/// Lends each page of a block to `work`.
///
/// # Safety
///
/// The block is the caller's alone.
unsafe fn each_page<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    held: &Held,
    work: impl Fn(u64, &mut [u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let first = held.pfn.number();
    (first..first + u64::from(held.pages)).try_for_each(|pfn| {
        let page: Option<Page> = Pfn::new(pfn).and_then(|pfn| mm.pfn_to_page(pfn));
        // SAFETY: the page is part of the block, which is the caller's.
        let done = page.and_then(|page| unsafe { with_page(mm, page, |bytes| work(pfn, bytes)) });
        done.unwrap_or(Err(Problem::Unreachable { pfn }))
    })
}

//! The memory of one stack.

use core::ptr::NonNull;

use crate::platform::{StackHarm, StackOwner};

/// Which end of a stack its owner's record is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordAt {
    /// The lower one, where an overflow destroys it.
    Base,
    /// The upper one.
    Top,
}

/// What a stack says of its owner.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
struct ThreadInfo {
    /// [`RECORD`] mixed with the address of the record.
    mark: usize,
    owner: StackOwner,
}

/// Stacks begin at a multiple of this, as all usual processors want it.
const _: () = assert!(size_of::<ThreadInfo>().is_multiple_of(16));

/// Marks a record, and a canary. Odd words that no address and no small number is.
const RECORD: usize = 0x7ead_1f05_7ac4_0001_u64 as usize;
const CANARY: usize = 0x0bad_57ac_ca9a_1235_u64 as usize;

/// What a word is painted with that nobody has used.
const PAINT: usize = 0x5a5a_a5a5_5a5a_a5a5_u64 as usize;

const WORD: usize = size_of::<usize>();

/// The memory of a stack.
///
/// Everything is read and written by words, and volatile: the code whose stack it is writes there as well.
///
/// # Invariants
///
/// `bytes` from `base` on are mapped memory that nobody has but the code that runs on the stack, and whoever
/// has this value. `base` is aligned to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    record: RecordAt,
}

/// What the canary at a place is.
fn canary_for(place: *mut usize) -> usize {
    CANARY ^ place.addr()
}

/// Puts the canary of a mapped stack back that begins at `base`: an overflow that met the page below has been
/// reported, and came by here.
///
/// # Safety
///
/// A mapped stack begins there, and stays meanwhile.
pub(crate) unsafe fn restore_canary(base: *mut usize) {
    // SAFETY: the caller's promise.
    unsafe { base.write_volatile(canary_for(base)) };
}

impl Memory {
    /// # Safety
    ///
    /// The invariants, for as long as the value and its copies are used.
    pub(crate) unsafe fn new(base: NonNull<u8>, bytes: usize, record: RecordAt) -> Memory {
        Memory { base, bytes, record }
    }

    /// The lowest address.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn record_at(&self) -> *mut ThreadInfo {
        let offset = match self.record {
            RecordAt::Base => 0,
            RecordAt::Top => self.bytes - size_of::<ThreadInfo>(),
        };
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    fn canary_at(&self) -> *mut usize {
        let offset = match self.record {
            RecordAt::Base => size_of::<ThreadInfo>(),
            RecordAt::Top => 0,
        };
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    /// The offsets of the part that code may use.
    fn free_part(&self) -> core::ops::Range<usize> {
        match self.record {
            RecordAt::Base => size_of::<ThreadInfo>() + WORD..self.bytes,
            RecordAt::Top => WORD..self.bytes - size_of::<ThreadInfo>(),
        }
    }

    /// The first address behind what code may use: a multiple of 16.
    pub(crate) fn top(&self) -> NonNull<u8> {
        // SAFETY: inside of the stack's memory, or just behind it.
        unsafe { self.base.add(self.free_part().end) }
    }

    /// How many bytes code may use.
    pub(crate) fn usable(&self) -> usize {
        self.free_part().len()
    }

    /// Writes record and canary, and, where the stack is measured, paint. `is_painted` says that it was
    /// before: then only what was used since is painted again.
    pub(crate) fn prepare(&self, owner: StackOwner, measured: bool, is_painted: bool) {
        // SAFETY: the invariant: both lie in the stack's memory, and are aligned.
        unsafe {
            self.record_at().write_volatile(ThreadInfo { mark: self.record_mark(), owner });
            self.canary_at().write_volatile(self.canary());
        }
        if measured {
            let used = if is_painted { self.most_used() } else { self.usable() };
            let part = self.free_part();
            for offset in (part.end - used..part.end).step_by(WORD) {
                // SAFETY: as above.
                unsafe { self.word(offset).write_volatile(PAINT) };
            }
        }
    }

    /// How many bytes of a stack that was painted have been used at most, as far as that shows.
    pub(crate) fn most_used(&self) -> usize {
        let part = self.free_part();
        // SAFETY: the invariant.
        let is_used = |offset: &usize| unsafe { self.word(*offset).read_volatile() } != PAINT;
        part.clone().step_by(WORD).find(is_used).map_or(0, |lowest| part.end - lowest)
    }

    /// What is not as it was written, if anything is not.
    pub(crate) fn harm(&self, owner: StackOwner) -> Option<StackHarm> {
        // SAFETY: the invariant.
        let canary = unsafe { self.canary_at().read_volatile() } != self.canary();
        let thread_info = self.owner() != Some(owner);
        (canary || thread_info).then_some(StackHarm { canary, thread_info })
    }

    /// Has the stack say that it is nobody's, for one that is kept.
    pub(crate) fn disown(&self) {
        let mark = self.record_at().cast::<usize>();
        // SAFETY: the invariant; the record begins with its mark.
        unsafe { mark.write_volatile(0) };
    }

    /// Whose the stack says that it is; `None` where that was overwritten.
    pub(crate) fn owner(&self) -> Option<StackOwner> {
        // SAFETY: the invariant.
        unsafe { owner_at(self.record_at(), self.record_at().addr()) }
    }

    fn word(&self, offset: usize) -> *mut usize {
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    fn record_mark(&self) -> usize {
        mark_at(self.record_at().addr())
    }

    fn canary(&self) -> usize {
        canary_for(self.canary_at())
    }
}

/// The mark of a record at an address.
fn mark_at(address: usize) -> usize {
    RECORD ^ address
}

/// What a record says that has an address, and is seen where `record` says.
///
/// # Safety
///
/// There is memory, aligned for a record.
unsafe fn owner_at(record: *const ThreadInfo, address: usize) -> Option<StackOwner> {
    // SAFETY: the caller's promise. All bytes are good ones for a record.
    let info = unsafe { record.read_volatile() };
    (info.mark == mark_at(address)).then_some(info.owner)
}

/// What a stack says of its owner that has its record at the upper end. `end` is the first address behind
/// it, and `seen` where the same memory is seen elsewhere.
///
/// # Safety
///
/// The page before `seen` is memory.
pub(crate) unsafe fn owner_before(seen: *const u8, end: usize) -> Option<StackOwner> {
    let record = seen.wrapping_sub(size_of::<ThreadInfo>()).cast();
    // SAFETY: the caller's promise; pages end at a multiple of 16.
    unsafe { owner_at(record, end - size_of::<ThreadInfo>()) }
}

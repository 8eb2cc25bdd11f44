//! Caches that are debugged: known bytes in and around objects, and who had them.
//!
//! ```text
//!        left zone    object                       slack       right zone
//!   ... [ cc cc cc ][ what its holder writes ... ][ cc cc ][ cc cc cc cc ] ...     with a caller
//!   ... [ bb bb bb ][ 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b a5 ][ bb bb bb bb ] ...     free
//! ```
//!
//! Such a cache has no magazines: objects are handed out and taken back under the node's lock, where
//! their bytes are checked and written. The values are those that people who read dumps of kernels
//! know; an object that was just handed out is full of a5, as the texts have it (A195).

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::platform::{Caller, Where};
use crate::{CacheFlags, CpuId};

/// What an object is full of when it is handed out: nobody has written it.
const UNWRITTEN: u8 = 0xa5;
/// What a free object is full of.
const FREED: u8 = 0x6b;
/// The last byte of a free object.
const FREED_END: u8 = 0xa5;
/// The zones around an object that is with a caller, and what it did not ask for.
const ZONE_ACTIVE: u8 = 0xcc;
/// The zones around a free object.
const ZONE_INACTIVE: u8 = 0xbb;

/// The least size of a zone, in bytes: a word.
const ZONE: u32 = 8;

/// How a debugged cache's objects are laid out and what is checked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Debug {
    flags: CacheFlags,
    /// The size of an object, in bytes.
    size: u32,
    /// From one object to the next, in bytes.
    stride: u32,
    /// The bytes of the zone before an object; 0 without zones.
    zone: u32,
    /// Whether a caller may ask for less than the size: kmalloc.
    has_slack: bool,
    poison: bool,
}

impl Debug {
    /// How a cache with such flags and objects of such a size at multiples of `align` is debugged;
    /// `None` where it is not. `has_slack`: a caller may ask for less than the size.
    pub(crate) fn new(flags: CacheFlags, size: u32, align: u32, has_slack: bool) -> Option<Debug> {
        if !flags.is_debugging() {
            return None;
        }
        let zone = if flags.contains(CacheFlags::RED_ZONE) { ZONE.max(align) } else { 0 };
        let stride = (size + 2 * zone).next_multiple_of(align);
        let poison = flags.contains(CacheFlags::POISON);
        let has_slack = has_slack && zone > 0;
        Some(Debug { flags, size, stride, zone, has_slack, poison })
    }

    /// From one object to the next, in bytes.
    pub(crate) fn stride(&self) -> u32 {
        self.stride
    }

    /// How far the first object is from the place where it would be without a zone, in bytes.
    pub(crate) fn zone(&self) -> u32 {
        self.zone
    }

    /// Whether free objects are kept out of use for a while.
    pub(crate) fn has_quarantine(&self) -> bool {
        self.flags.contains(CacheFlags::QUARANTINE)
    }

    /// Whether owners are kept.
    pub(crate) fn has_owners(&self) -> bool {
        self.flags.contains(CacheFlags::STORE_USER)
    }

    /// Whether what a caller did not ask for of an object is not the caller's.
    pub(crate) fn has_slack(&self) -> bool {
        self.has_slack
    }

    /// Writes an object's bytes as those of a free one.
    ///
    /// # Safety
    ///
    /// An object of a cache with this layout begins there, and nobody uses it.
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's promise; the zones are the object's.
        unsafe {
            self.write_zones(object, ZONE_INACTIVE);
            if self.poison {
                object.write_bytes(FREED, self.size as usize - 1);
                object.add(self.size as usize - 1).write(FREED_END);
            }
        }
    }

    /// Writes an object's bytes as those of one that is handed out to a caller who asked for so many.
    ///
    /// # Safety
    ///
    /// As [`Debug::free`].
    pub(crate) unsafe fn hand_out(&self, object: NonNull<u8>, asked: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.poison {
                object.write_bytes(UNWRITTEN, self.size as usize);
            }
            self.mend_held(object, asked);
        }
    }

    /// Writes the bytes around an object, and those that its caller did not ask for.
    ///
    /// # Safety
    ///
    /// An object of a cache with this layout begins there; its holder may use it meanwhile.
    pub(crate) unsafe fn mend_held(&self, object: NonNull<u8>, asked: u32) {
        // SAFETY: the caller's promise; the zones and the slack are not the holder's.
        unsafe {
            self.write_zones(object, ZONE_ACTIVE);
            if self.has_slack && asked < self.size {
                let slack = (self.size - asked) as usize;
                object.add(asked as usize).write_bytes(ZONE_ACTIVE, slack);
            }
        }
    }

    unsafe fn write_zones(&self, object: NonNull<u8>, value: u8) {
        let behind = (self.stride - self.size - self.zone) as usize;
        if self.zone > 0 {
            // SAFETY: the caller's promise: what lies between two objects is the zones of both.
            unsafe {
                object.sub(self.zone as usize).write_bytes(value, self.zone as usize);
                object.add(self.size as usize).write_bytes(value, behind);
            }
        }
    }

    /// The first bytes of a free object that are not as [`Debug::free`] left them.
    ///
    /// # Safety
    ///
    /// An object of a cache with this layout begins there, and its bytes have been written.
    pub(crate) unsafe fn check_free(&self, object: NonNull<u8>) -> Option<(Where, i32, Bytes)> {
        // SAFETY: the caller's promise.
        unsafe {
            self.check_zones(object, ZONE_INACTIVE).or_else(|| {
                let last = self.size as i32 - 1;
                let freed = |from, to, value| {
                    let (offset, bytes) = differing(object, from, to, value)?;
                    Some((Where::Freed, offset, bytes))
                };
                let is = || freed(0, last, FREED).or_else(|| freed(last, last + 1, FREED_END));
                self.poison.then(is)?
            })
        }
    }

    /// The first bytes around an object that is with a caller, who asked for so many, that are not as
    /// [`Debug::hand_out`] left them.
    ///
    /// # Safety
    ///
    /// As [`Debug::check_free`].
    pub(crate) unsafe fn check_held(
        &self,
        object: NonNull<u8>,
        asked: u32,
    ) -> Option<(Where, i32, Bytes)> {
        // SAFETY: the caller's promise.
        unsafe {
            self.check_zones(object, ZONE_ACTIVE).or_else(|| {
                let asked = if self.has_slack { asked.min(self.size) } else { self.size };
                let (offset, bytes) =
                    differing(object, asked as i32, self.size as i32, ZONE_ACTIVE)?;
                Some((Where::Slack, offset, bytes))
            })
        }
    }

    unsafe fn check_zones(&self, object: NonNull<u8>, value: u8) -> Option<(Where, i32, Bytes)> {
        if self.zone == 0 {
            return None;
        }
        let (zone, size) = (self.zone as i32, self.size as i32);
        let end = self.stride as i32 - zone;
        // SAFETY: the caller's promise, as in `write_zones`.
        let (left, right) =
            unsafe { (differing(object, -zone, 0, value), differing(object, size, end, value)) };
        let left = left.map(|(offset, bytes)| (Where::LeftZone, offset, bytes));
        left.or_else(|| right.map(|(offset, bytes)| (Where::RightZone, offset, bytes)))
    }
}

/// Bytes that are not what they should be.
pub(crate) struct Bytes {
    pub(crate) expected: u8,
    pub(crate) found: [u8; 8],
    pub(crate) length: u32,
}

/// The bytes that differ from a value, of those from one offset to another: the first one's offset.
///
/// # Safety
///
/// All of them can be read.
unsafe fn differing(object: NonNull<u8>, from: i32, to: i32, value: u8) -> Option<(i32, Bytes)> {
    // Volatile: somebody may be writing where they should not at this moment.
    // SAFETY: the caller's promise.
    let read = |offset: i32| unsafe { object.offset(offset as isize).read_volatile() };
    let first = (from..to).find(|offset| read(*offset) != value)?;
    let last = (first..to).rev().find(|offset| read(*offset) != value).unwrap_or(first);
    let length = (last - first) as u32 + 1;
    let mut found = [0; 8];
    for (byte, offset) in found.iter_mut().zip(first..=last) {
        *byte = read(offset);
    }
    Some((first, Bytes { expected: value, found, length }))
}

/// Who had an object, as it is kept behind the slab's record.
///
/// All bytes zero is valid: nobody had it.
#[repr(C)]
pub(crate) struct Track {
    allocated: Call,
    freed: Call,
    /// How many bytes the caller asked for.
    asked: AtomicU32,
}

/// The size of a [`Track`], a multiple of 8.
pub(crate) const TRACK: u32 = size_of::<Track>() as u32;

#[repr(C)]
struct Call {
    site: AtomicUsize,
    /// The complement of `site`: a stray write does not make a pointer of what it left.
    check: AtomicUsize,
    time: AtomicU64,
    cpu: AtomicU32,
}

impl Call {
    fn set(&self, owner: Option<Caller>) {
        let site = owner.map_or(0, |owner| core::ptr::from_ref(owner.site).expose_provenance());
        self.site.store(site, Relaxed);
        self.check.store(!site, Relaxed);
        self.time.store(owner.map_or(0, |owner| owner.time), Relaxed);
        self.cpu.store(owner.map_or(0, |owner| owner.cpu.get()), Relaxed);
    }

    fn get(&self) -> Option<Caller> {
        let site = self.site.load(Relaxed);
        if site == 0 || self.check.load(Relaxed) != !site {
            return None;
        }
        // SAFETY: it is the address of a location that lives for ever, which `set` exposed: what
        // else may have been written there does not have its complement beside it.
        let site = unsafe { &*core::ptr::with_exposed_provenance::<Location<'static>>(site) };
        let cpu = CpuId::new(self.cpu.load(Relaxed))?;
        Some(Caller { site, cpu, time: self.time.load(Relaxed) })
    }
}

impl Track {
    /// Keeps who allocated the object, if that is known, and how many bytes they asked for.
    pub(crate) fn allocated(&self, owner: Option<Caller>, asked: u32) {
        self.allocated.set(owner);
        self.asked.store(asked, Relaxed);
    }

    /// Keeps who freed it, if that is known.
    pub(crate) fn freed(&self, owner: Option<Caller>) {
        self.freed.set(owner);
    }

    /// Who allocated it, and who freed it.
    pub(crate) fn owners(&self) -> (Option<Caller>, Option<Caller>) {
        (self.allocated.get(), self.freed.get())
    }

    /// How many bytes its last caller asked for.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Relaxed)
    }
}

//! Mapped addresses that are read and written with volatile accesses, each looked at first.

use core::ptr::NonNull;

use super::{IoError, Registers};

/// Registers, or memory that is shared with a device: an address and a size.
///
/// # Invariants
///
/// `size` bytes from `start` on are mapped for as long as this value is there, and to read or write them
/// does no harm to memory.
#[derive(Debug)]
pub struct IoRange {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: each access is a single volatile one, as a device's own are; the value has no state.
unsafe impl Send for IoRange {}
// SAFETY: as above.
unsafe impl Sync for IoRange {}

/// Has writes to memory before this come before accesses of registers behind it.
#[inline(always)]
fn before_write() {
    // x86 does not reorder writes, so that this is for the compiler alone.
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Has accesses of registers before this come before reads of memory behind it.
#[inline(always)]
fn after_read() {
    // Nor does it reorder reads.
    before_write();
}

macro_rules! accessors {
    ($($kind:ty: $read:ident $write:ident $read_relaxed:ident $write_relaxed:ident $bits:literal;)*) => { $(
        #[doc = concat!("Reads ", $bits, " bits at an offset in bytes, a multiple of their size. What the device wrote to")]
        /// memory before it set the register is seen by whoever reads memory afterwards.
        ///
        /// # Errors
        ///
        /// [`IoError`]: outside, or not aligned. Nothing is read.
        ///
        /// # Context
        ///
        /// Any. Cost: the device's.
        #[inline]
        pub fn $read(&self, offset: usize) -> Result<$kind, IoError> {
            let value = self.$read_relaxed(offset);
            after_read();
            value
        }

        #[doc = concat!("Writes ", $bits, " bits at an offset in bytes, a multiple of their size. What was written to memory")]
        /// before is there for the device when it sees this.
        ///
        /// # Errors
        ///
        /// [`IoError`]: outside, or not aligned. Nothing is written.
        ///
        /// # Context
        ///
        /// Any. Cost: the device's.
        #[inline]
        pub fn $write(&self, value: $kind, offset: usize) -> Result<(), IoError> {
            before_write();
            self.$write_relaxed(value, offset)
        }

        #[doc = concat!("[`IoRange::", stringify!($read), "`] that is in order with other registers only, not with memory.")]
        ///
        /// # Errors, context and cost
        ///
        #[doc = concat!("As [`IoRange::", stringify!($read), "`].")]
        #[inline]
        pub fn $read_relaxed(&self, offset: usize) -> Result<$kind, IoError> {
            let at = self.at(offset, size_of::<$kind>())?.cast::<$kind>();
            // SAFETY: `at` has seen that it lies in the range and is aligned.
            Ok(<$kind>::from_le(unsafe { at.read_volatile() }))
        }

        #[doc = concat!("[`IoRange::", stringify!($write), "`] that is in order with other registers only, not with memory.")]
        ///
        /// # Errors, context and cost
        ///
        #[doc = concat!("As [`IoRange::", stringify!($write), "`].")]
        #[inline]
        pub fn $write_relaxed(&self, value: $kind, offset: usize) -> Result<(), IoError> {
            let at = self.at(offset, size_of::<$kind>())?.cast::<$kind>();
            // SAFETY: `at` has seen that it lies in the range and is aligned.
            unsafe { at.write_volatile(value.to_le()) };
            Ok(())
        }
    )* };
}

impl IoRange {
    /// # Safety
    ///
    /// The invariant.
    pub(crate) const unsafe fn new(start: NonNull<u8>, size: usize) -> IoRange {
        IoRange { start, size }
    }

    /// How many bytes there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The first address.
    pub fn start(&self) -> super::IoPtr {
        super::IoPtr::new(self.start)
    }

    accessors! {
        u8: readb writeb readb_relaxed writeb_relaxed "8";
        u16: readw writew readw_relaxed writew_relaxed "16";
        u32: readl writel readl_relaxed writel_relaxed "32";
        u64: readq writeq readq_relaxed writeq_relaxed "64";
    }

    /// Copies out of a device's memory: words where the device's side is aligned, bytes where it is not.
    ///
    /// # Errors
    ///
    /// [`IoError::Outside`]: not all of it is there. Nothing is read.
    ///
    /// # Context
    ///
    /// Any. Cost: an access for each eight bytes.
    pub fn memcpy_fromio(&self, into: &mut [u8], offset: usize) -> Result<(), IoError> {
        let from = self.inside(offset, into.len())?;
        each_piece(from, into.len(), |at, done, is_word| {
            if is_word {
                // SAFETY: a piece lies in the range, and a word of it is aligned.
                let word = unsafe { at.cast::<u64>().read_volatile() };
                into[done..done + 8].copy_from_slice(&word.to_ne_bytes());
            } else {
                // SAFETY: a piece lies in the range.
                into[done] = unsafe { at.read_volatile() };
            }
        });
        after_read();
        Ok(())
    }

    /// Copies into a device's memory, as [`IoRange::memcpy_fromio`] does out of it.
    ///
    /// # Errors
    ///
    /// [`IoError::Outside`]: there is not so much room. Nothing is written.
    ///
    /// # Context and cost
    ///
    /// As [`IoRange::memcpy_fromio`].
    pub fn memcpy_toio(&self, offset: usize, from: &[u8]) -> Result<(), IoError> {
        let to = self.inside(offset, from.len())?;
        before_write();
        each_piece(to, from.len(), |at, done, is_word| {
            if is_word {
                let mut word = [0; 8];
                word.copy_from_slice(&from[done..done + 8]);
                // SAFETY: a piece lies in the range, and a word of it is aligned.
                unsafe { at.cast::<u64>().write_volatile(u64::from_ne_bytes(word)) };
            } else {
                // SAFETY: a piece lies in the range.
                unsafe { at.write_volatile(from[done]) };
            }
        });
        Ok(())
    }

    /// Sets bytes of a device's memory to a value.
    ///
    /// # Errors
    ///
    /// [`IoError::Outside`]: there are not so many. Nothing is written.
    ///
    /// # Context and cost
    ///
    /// As [`IoRange::memcpy_fromio`].
    pub fn memset_io(&self, offset: usize, value: u8, count: usize) -> Result<(), IoError> {
        let to = self.inside(offset, count)?;
        before_write();
        each_piece(to, count, |at, _, is_word| {
            // SAFETY: a piece lies in the range, and a word of it is aligned.
            unsafe {
                if is_word {
                    at.cast::<u64>().write_volatile(u64::from_ne_bytes([value; 8]));
                } else {
                    at.write_volatile(value);
                }
            }
        });
        Ok(())
    }

    /// Where `width` bytes at an offset are, if they all lie in the range.
    #[inline]
    fn inside(&self, offset: usize, width: usize) -> Result<NonNull<u8>, IoError> {
        // The subtraction cannot wrap where the first test holds.
        if width <= self.size && offset <= self.size - width {
            // SAFETY: the offset is not behind the end of the range.
            Ok(unsafe { self.start.add(offset) })
        } else {
            Err(IoError::Outside { offset, width, size: self.size })
        }
    }

    /// The same for one access, which is aligned as an address.
    #[inline]
    fn at(&self, offset: usize, width: usize) -> Result<NonNull<u8>, IoError> {
        let at = self.inside(offset, width)?;
        if at.addr().get().is_multiple_of(width) {
            Ok(at)
        } else {
            Err(IoError::Misaligned { offset, width })
        }
    }
}

/// Calls `access` for each piece of a copy: where it is, how much lies before it, and whether it is an
/// aligned word of eight bytes or one byte.
fn each_piece(start: NonNull<u8>, count: usize, mut access: impl FnMut(NonNull<u8>, usize, bool)) {
    let mut done = 0;
    while done < count {
        // SAFETY: `done` is below the number of bytes that the caller has seen to be there.
        let at = unsafe { start.add(done) };
        let is_word = count - done >= 8 && at.addr().get().is_multiple_of(8);
        access(at, done, is_word);
        done += if is_word { 8 } else { 1 };
    }
}

impl Registers for IoRange {
    fn read32(&self, offset: usize) -> Result<u32, IoError> {
        self.readl(offset)
    }

    fn write32(&self, value: u32, offset: usize) -> Result<(), IoError> {
        self.writel(value, offset)
    }

    fn write64(&self, value: u64, offset: usize) -> Result<(), IoError> {
        self.writeq(value, offset)
    }
}

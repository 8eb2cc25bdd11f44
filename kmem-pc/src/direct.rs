//! The direct map: where physical memory is seen.

/// Where physical address 0 is seen.
pub const BASE: usize = 0xffff_8000_0000_0000;

/// Where the image is linked above its physical address.
pub const IMAGE: usize = 0xffff_ffff_8000_0000;

/// A physical address that is read through the direct map: tables that the loader and the firmware left.
#[derive(Clone, Copy)]
pub struct At(u64);

/// The physical address `address`.
pub fn at(address: u64) -> At {
    At(address)
}

/// The physical address of something that lies in the image.
pub fn of_image<T>(thing: *const T) -> u64 {
    (thing.addr() - IMAGE) as u64
}

/// Where a physical address is seen.
pub fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(BASE.wrapping_add(address as usize))
}

impl At {
    /// The address so many bytes on.
    pub fn plus(self, offset: usize) -> At {
        At(self.0 + offset as u64)
    }

    /// The byte there.
    pub fn u8(self, offset: usize) -> u8 {
        // SAFETY: what the loader and the firmware left lies in the direct map, and nobody writes it
        // while it is read.
        unsafe { pointer::<u8>(self.0 + offset as u64).read() }
    }

    /// The two bytes there.
    pub fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset + 1)])
    }

    /// The four bytes there.
    pub fn u32(self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// The eight bytes there.
    pub fn u64(self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    /// The text there, up to a byte 0, which is one of the first 4096; `None` where there is none, or no
    /// UTF-8.
    pub fn text(self) -> Option<&'static str> {
        let length = (0..4096).find(|at| self.u8(*at) == 0)?;
        // SAFETY: as in `u8`; the bytes stay as they are for as long as the kernel runs.
        let bytes = unsafe { core::slice::from_raw_parts(pointer(self.0), length) };
        core::str::from_utf8(bytes).ok()
    }
}

//! Physical memory: a memfd, and the direct map of it.
//!
//! Physical address `a` is byte `a` of the file. The file is sparse and pages of it come into being
//! when they are first touched, so a large machine costs nothing until it is used.
//!
//! ```text
//!   memfd      0 ──── ram ────┬─ hole ─┬──── ram ────┬─────── ram ───────┬─ hole ─┬─ device ─
//!                             │        │             │ limit             │
//!   process    base ──────────┴─ none ─┴─────────────┘                   end
//!              mapped           a fault  mapped        not mapped: high memory
//! ```
//!
//! Behind the end of RAM is the window of a device: mapped only by whoever asks for it.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::null_mut;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::edu::WINDOW;

/// Blocks of the largest order are aligned as addresses too, as on real machines.
const ALIGNMENT: u64 = 1 << 30;

/// A range of this process's addresses, given back when dropped.
pub(crate) struct Reservation {
    start: usize,
    size: usize,
}

impl Reservation {
    /// Reserves `size` bytes at a multiple of `alignment`. Touching them is a fault.
    pub(crate) fn new(size: u64, alignment: u64) -> Result<Reservation, Errno> {
        let page = rustix::param::page_size() as u64;
        let padded = size.checked_add(alignment).ok_or(Errno::NOMEM)?.next_multiple_of(page);
        let padded = usize::try_from(padded).map_err(|_| Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping wherever there is room changes nothing that is there.
        let start =
            unsafe { rustix::mm::mmap_anonymous(null_mut(), padded, ProtFlags::empty(), flags)? };
        let whole = Reservation { start: start.expose_provenance(), size: padded };
        let aligned = whole.start.next_multiple_of(alignment as usize);
        Ok(whole.trim(aligned, size.next_multiple_of(page) as usize))
    }

    /// Keeps `size` bytes from `start` on and gives back the rest.
    fn trim(self, start: usize, size: usize) -> Reservation {
        let whole = std::mem::ManuallyDrop::new(self);
        release(whole.start, start - whole.start);
        release(start + size, whole.start + whole.size - start - size);
        Reservation { start, size }
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn end(&self) -> usize {
        self.start + self.size
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        release(self.start, self.size);
    }
}

/// Gives back a range that belongs to a reservation alone.
fn release(start: usize, size: usize) {
    if size > 0 {
        // SAFETY: the range is the caller's reservation, and what was handed out of it is not used
        // any more. An error leaves address space unused, nothing worse.
        let _ = unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(start), size) };
    }
}

/// The physical memory of a machine.
pub(crate) struct Memory {
    file: OwnedFd,
    /// The physical addresses of the device.
    window: Range<u64>,
    direct_map: Reservation,
}

impl Memory {
    /// Memory with RAM in these ranges, mapped below `limit`.
    pub(crate) fn new(ram: &[Range<u64>], limit: u64) -> Result<Memory, Errno> {
        let page = rustix::param::page_size() as u64;
        let end = ram.iter().map(|range| range.end).max().unwrap_or(0).next_multiple_of(page);
        let file = rustix::fs::memfd_create("kmem-ram", MemfdFlags::CLOEXEC)?;
        // Neither RAM nor part of the direct map, with a gap before it.
        let start = (end.max(limit) + 1).next_multiple_of(WINDOW);
        let window = start..start + WINDOW;
        rustix::fs::ftruncate(&file, window.end)?;
        let direct_map = Reservation::new(limit, ALIGNMENT)?;
        let memory = Memory { file, window, direct_map };
        // RAM need not begin or end with a page of the host; neighbours may share one.
        let mut mapped = 0;
        for range in ram {
            let start = (range.start / page * page).max(mapped);
            let end = range.end.next_multiple_of(page).min(limit);
            if start < end {
                let address = memory.direct_map.start() + start as usize;
                // SAFETY: the range lies in the direct map's own reservation.
                unsafe { memory.map(address, start, (end - start) as usize)? };
                mapped = end;
            }
        }
        Ok(memory)
    }

    /// Where physical address 0 is mapped.
    pub(crate) fn base(&self) -> usize {
        self.direct_map.start()
    }

    /// The physical addresses of the device.
    pub(crate) fn window(&self) -> Range<u64> {
        self.window.clone()
    }

    /// Reads by physical address, as a device does; where there is nothing, nothing is read. Any context.
    pub(crate) fn read(&self, from: u64, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&self.file, &mut into[done..], from + done as u64) {
                Ok(0) => return,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => panic!("cannot read physical memory at {from:#x}: {error}"),
            }
        }
    }

    /// Writes by physical address, as a device does; what is behind the device's own window is nowhere.
    /// Any context.
    pub(crate) fn write(&self, to: u64, bytes: &[u8]) {
        let room = usize::try_from(self.window.end.saturating_sub(to)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[done..], to + done as u64) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => panic!("cannot write physical memory at {to:#x}: {error}"),
            }
        }
    }

    /// How many bytes of it the host has had to supply.
    pub(crate) fn touched(&self) -> u64 {
        rustix::fs::fstat(&self.file).map_or(0, |status| status.st_blocks as u64 * 512)
    }

    /// Maps `size` bytes from physical address `from` on at `address`. Any context.
    ///
    /// # Safety
    ///
    /// The addresses lie in a reservation of the caller's, and nothing uses what is there.
    pub(crate) unsafe fn map(&self, address: usize, from: u64, size: usize) -> Result<(), Errno> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.map_for(address, from, size, ProtFlags::READ | ProtFlags::WRITE) }
    }

    /// [`Memory::map`] for such accesses.
    ///
    /// # Safety
    ///
    /// As for [`Memory::map`].
    pub(crate) unsafe fn map_for(
        &self,
        address: usize,
        from: u64,
        size: usize,
        access: ProtFlags,
    ) -> Result<(), Errno> {
        let at = std::ptr::with_exposed_provenance_mut(address);
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the caller owns the addresses. Other mappings of the same frames are the point.
        unsafe { rustix::mm::mmap(at, size, access, flags, &self.file, from).map(drop) }
    }
}

/// Makes addresses of a reservation fault again. Any context.
///
/// # Safety
///
/// As for [`Memory::map`].
pub(crate) unsafe fn unmap(address: usize, size: usize) -> Result<(), Errno> {
    let at = std::ptr::with_exposed_provenance_mut(address);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the caller owns the addresses and nothing uses what is there.
    unsafe { rustix::mm::mmap_anonymous(at, size, ProtFlags::empty(), flags).map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_memory_costs_nothing_until_it_is_touched() {
        let ram = [0..1 << 20, (1 << 36) - (1 << 30)..1 << 36];
        let memory = Memory::new(&ram, 1 << 36).unwrap();
        assert!(memory.base().is_multiple_of(1 << 30));
        assert_eq!(memory.touched(), 0);
        let last = std::ptr::with_exposed_provenance_mut::<u8>(memory.base() + (1 << 36) - 1);
        // SAFETY: RAM below the limit is mapped.
        unsafe {
            assert_eq!(last.read(), 0);
            last.write(7);
            assert_eq!(last.read(), 7);
        }
        assert!((1..1 << 20).contains(&memory.touched()));
    }

    #[test]
    fn the_same_frame_is_seen_through_both_mappings() {
        let memory = Memory::new(std::slice::from_ref(&(0..1 << 20)), 1 << 20).unwrap();
        let other = Reservation::new(1 << 16, 1 << 16).unwrap();
        // SAFETY: the reservation is this test's, and RAM is mapped.
        unsafe {
            memory.map(other.start(), 0x8000, 0x1000).unwrap();
            let alias = std::ptr::with_exposed_provenance_mut::<u64>(other.start());
            alias.write(42);
            let direct = std::ptr::with_exposed_provenance::<u64>(memory.base() + 0x8000);
            assert_eq!(direct.read(), 42);
            unmap(other.start(), 0x1000).unwrap();
        }
    }

    #[test]
    fn ranges_that_share_a_host_page_are_both_mapped() {
        let memory = Memory::new(&[0..0x1800, 0x1c00..0x3001], 0x10_0000).unwrap();
        assert_eq!(memory.window(), 0x20_0000..0x30_0000);
        for at in [0, 0x17ff, 0x1c00, 0x3000] {
            // SAFETY: RAM below the limit is mapped.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(memory.base() + at).write(1) };
        }
    }
}

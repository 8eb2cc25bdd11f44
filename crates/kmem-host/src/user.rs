//! A user's address space: addresses of this process at which single frames are mapped.

use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use kmem::Pfn;
use kmem::platform::PageMapError;
use rustix::io::Errno;
use rustix::mm::ProtFlags;

use crate::mapping::Room;
use crate::memory::{Memory, Reservation, unmap};

/// How many bytes of addresses there are for a user.
const SIZE: u64 = 256 << 20;

/// What a page of a user's addresses is: so much above the number of the frame that is mapped there.
const FRAME: u32 = 1;
/// Nothing is mapped there.
const FREE: u32 = 0;
/// Somebody maps or unmaps it at this moment. No frame has such a number.
const BUSY: u32 = u32::MAX;

/// A user's address space. Each page of it is a mapping of the host, of which a process has only so many.
pub(crate) struct UserSpace {
    range: Reservation,
    page_shift: u32,
    pages: Box<[AtomicU32]>,
}

impl UserSpace {
    pub(crate) fn new(page_shift: u32) -> Result<UserSpace, Errno> {
        let pages = (0..SIZE >> page_shift).map(|_| AtomicU32::new(FREE)).collect();
        Ok(UserSpace { range: Reservation::new(SIZE, 1 << 21)?, page_shift, pages })
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.range.start()..self.range.end()
    }

    fn page(&self, address: usize) -> Option<&AtomicU32> {
        let offset = address.checked_sub(self.range.start())?;
        self.pages.get(offset >> self.page_shift)
    }

    /// See [`kmem::platform::UserMap::map`].
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn map(
        &self,
        memory: &Memory,
        address: usize,
        frame: Pfn,
        writable: bool,
    ) -> Result<(), PageMapError> {
        let page = self.page(address).ok_or(PageMapError::Occupied)?;
        let room = Room::take().ok_or(PageMapError::TooManyMappings)?;
        let number = frame.number() as u32 + FRAME;
        // Acquire pairs with the Release in `unmap`: what was there is gone.
        if page.compare_exchange(FREE, BUSY, Acquire, Relaxed).is_err() {
            return Err(PageMapError::Occupied);
        }
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let (from, size) = (frame.start(self.page_shift).get(), 1 << self.page_shift);
        // SAFETY: the range is this value's reservation, and the page was free.
        if unsafe { memory.map_for(address, from, size, access) }.is_err() {
            page.store(FREE, Release);
            return Err(PageMapError::TooManyMappings);
        }
        room.keep();
        // Release pairs with the Acquire in `unmap`: the page is mapped.
        page.store(number, Release);
        Ok(())
    }

    /// See [`kmem::platform::UserMap::unmap`].
    pub(crate) fn unmap(&self, address: usize) -> Option<Pfn> {
        let page = self.page(address)?;
        let number = page.load(Relaxed);
        // Of two that unmap one page the first one answers its frame. Acquire pairs with the Release in
        // `map`.
        let is_own = number != FREE
            && number != BUSY
            && page.compare_exchange(number, BUSY, Acquire, Relaxed).is_ok();
        if !is_own {
            return None;
        }
        // SAFETY: the range is this value's reservation; a user that touches the page meets a fault from
        // now on, which is what is wanted.
        if let Err(error) = unsafe { unmap(address, 1 << self.page_shift) } {
            // A mapping is replaced: that takes no more of them than there were.
            panic!("cannot unmap a user's page at {address:#x}: {error}");
        }
        Room::give_back();
        // Release pairs with the Acquire in `map`: nothing is mapped there.
        page.store(FREE, Release);
        Pfn::new(u64::from(number - FRAME))
    }
}

impl Drop for UserSpace {
    fn drop(&mut self) {
        let left = self.pages.iter().filter(|page| page.load(Relaxed) != FREE).count();
        (0..left).for_each(|_| Room::give_back());
    }
}

//! Chunks: a page for each CPU, and the lists of them.

use core::ptr::NonNull;

use super::map::{CLASSES, Cut, Map, NotAllocated, Rooms, Wanted};
use crate::CpuId;

/// A chunk. Behind it in its memory lie the bases, one for each CPU, and the parts of its map.
///
/// # Invariants
///
/// That memory is as large as [`Chunk::bytes`] says for `cpus` and `cut`, and all of it initialised.
/// `class` is that of the map.
#[repr(C, align(8))]
pub(crate) struct Chunk {
    next: Option<NonNull<Chunk>>,
    prev: Option<NonNull<Chunk>>,
    cpus: u32,
    cut: Cut,
    class: u8,
    rooms: Rooms,
}

/// An object: where its copies are.
///
/// # Invariants
///
/// `bases` is a table with an entry for each CPU that there can be.
#[derive(Clone, Copy)]
pub struct Memory {
    pub(crate) bases: NonNull<NonNull<u8>>,
    pub(crate) offset: usize,
}

impl Memory {
    /// The copy of a CPU.
    ///
    /// # Safety
    ///
    /// The object is allocated, and the CPU one that there can be.
    #[inline]
    pub(crate) unsafe fn copy(self, cpu: CpuId) -> NonNull<u8> {
        // SAFETY: the table has an entry for the CPU, and the object lies within the page.
        unsafe { self.bases.add(cpu.index()).read().add(self.offset) }
    }
}

impl Chunk {
    /// How many bytes a chunk takes itself, for so many CPUs and pages of so many bytes.
    pub(crate) const fn bytes(cpus: u32, page: usize) -> usize {
        let words = Cut::new(page).words as usize;
        size_of::<Chunk>() + Chunk::bases_bytes(cpus) + (2 * size_of::<u64>() + 1) * words
    }

    /// How many bytes the bases take; the words behind them are aligned.
    const fn bases_bytes(cpus: u32) -> usize {
        (cpus as usize * size_of::<NonNull<u8>>()).next_multiple_of(align_of::<u64>())
    }

    /// Makes a chunk in `memory`, where everything is free. `base` answers the page of each CPU.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, aligned to 8 bytes, and has [`Chunk::bytes`].
    pub(crate) unsafe fn init(
        memory: NonNull<u8>,
        cpus: u32,
        page: usize,
        mut base: impl FnMut(CpuId) -> NonNull<u8>,
    ) -> NonNull<Chunk> {
        let mut chunk = memory.cast::<Chunk>();
        let cut = Cut::new(page);
        // SAFETY: the memory has room for the chunk and all that lies behind it, by `bytes`.
        unsafe {
            let (next, prev, rooms) = (None, None, Rooms::default());
            chunk.write(Chunk { next, prev, cpus, cut, class: 0, rooms });
            let bases = Chunk::bases_of(chunk);
            for cpu in (0..cpus).filter_map(CpuId::new) {
                bases.add(cpu.index()).write(base(cpu));
            }
            // What the map is made of has to be bytes before it can be a map.
            let behind = Chunk::bytes(cpus, page) - size_of::<Chunk>() - Chunk::bases_bytes(cpus);
            bases.byte_add(Chunk::bases_bytes(cpus)).cast::<u8>().write_bytes(0, behind);
            Chunk::map_of(chunk).init();
            chunk.as_mut().class = cut.whole();
        }
        chunk
    }

    /// The bases of a chunk.
    ///
    /// # Safety
    ///
    /// There is room for a chunk's header at least.
    unsafe fn bases_of(chunk: NonNull<Chunk>) -> NonNull<NonNull<u8>> {
        // SAFETY: the bases follow the header.
        unsafe { chunk.add(1).cast() }
    }

    /// The map of a chunk.
    ///
    /// # Safety
    ///
    /// The chunk is there, and nobody else has its map while this lives.
    #[inline]
    unsafe fn map_of<'m>(chunk: NonNull<Chunk>) -> Map<'m> {
        // SAFETY: by the invariant these parts lie behind the bases, one behind the other.
        unsafe {
            let (cpus, cut) = ((*chunk.as_ptr()).cpus, (*chunk.as_ptr()).cut);
            let words = usize::from(cut.words);
            let used = Chunk::bases_of(chunk).byte_add(Chunk::bases_bytes(cpus)).cast::<u64>();
            let first = used.add(words);
            let classes = first.add(words).cast::<u8>();
            Map::new(
                cut,
                &mut (*chunk.as_ptr()).rooms,
                NonNull::slice_from_raw_parts(used, words).as_mut(),
                NonNull::slice_from_raw_parts(first, words).as_mut(),
                NonNull::slice_from_raw_parts(classes, words).as_mut(),
            )
        }
    }

    /// The object at an offset.
    ///
    /// # Safety
    ///
    /// The chunk is there.
    #[inline]
    pub(crate) unsafe fn memory(chunk: NonNull<Chunk>, offset: usize) -> Memory {
        // SAFETY: as the caller says.
        Memory { bases: unsafe { Chunk::bases_of(chunk) }, offset }
    }

    /// The page of each CPU.
    ///
    /// # Safety
    ///
    /// The chunk is there while the answer is used.
    pub(crate) unsafe fn bases<'c>(chunk: NonNull<Chunk>) -> &'c [NonNull<u8>] {
        // SAFETY: there are so many, which nobody changes.
        unsafe {
            let count = (*chunk.as_ptr()).cpus as usize;
            NonNull::slice_from_raw_parts(Chunk::bases_of(chunk), count).as_ref()
        }
    }
}

// What follows the header is aligned, for pointers and for words.
const _: () = assert!(size_of::<Chunk>().is_multiple_of(align_of::<u64>()));
const _: () = assert!(align_of::<Chunk>() == 8 && align_of::<NonNull<u8>>() <= 8);

/// All chunks, by the class of the largest block that each has free.
///
/// # Invariants
///
/// The chunks were given to [`Chunks::insert`] and are there until they are taken out. One of class 0
/// is on no list; `present` has a bit for each list that is not empty.
pub(crate) struct Chunks {
    lists: [Option<NonNull<Chunk>>; CLASSES],
    present: u32,
    chunks: u64,
    objects: u64,
    bytes: u64,
}

// SAFETY: the chunks are the lists' alone.
unsafe impl Send for Chunks {}

impl Chunks {
    /// No chunks.
    pub(crate) const fn new() -> Chunks {
        Chunks { lists: [None; CLASSES], present: 0, chunks: 0, objects: 0, bytes: 0 }
    }

    /// How many chunks, objects, and bytes of objects at each CPU there are.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.chunks, self.objects, self.bytes)
    }

    /// Adds a chunk.
    ///
    /// # Safety
    ///
    /// [`Chunk::init`] made it; it is on no list, and stays until it is taken out.
    pub(crate) unsafe fn insert(&mut self, chunk: NonNull<Chunk>) {
        self.chunks += 1;
        self.link(chunk);
    }

    /// Takes what is wanted from a chunk that has room for it.
    #[inline]
    pub(crate) fn alloc(&mut self, wanted: Wanted) -> Option<Memory> {
        // The fullest that will do: others become empty, and large blocks stay.
        let fit = self.present & u32::MAX.checked_shl(wanted.class().into()).unwrap_or(0);
        let chunk = (*self.lists.get(fit.trailing_zeros() as usize)?)?;
        // SAFETY: it is on a list, and so there; the lists are borrowed mutably, so nobody else has its
        // map.
        let mut map = unsafe { Chunk::map_of(chunk) };
        let offset = map.alloc(wanted)?;
        self.objects += 1;
        self.bytes += wanted.bytes() as u64;
        if let Some(class) = map.new_class() {
            self.place(chunk, class);
        }
        // SAFETY: as above.
        Some(unsafe { Chunk::memory(chunk, offset) })
    }

    /// Gives the object at an offset back. Of chunks where everything is free one stays; a second one is
    /// taken off the lists and answered.
    ///
    /// # Safety
    ///
    /// The chunk was given to [`Chunks::insert`] and has not been taken out.
    #[inline]
    pub(crate) unsafe fn free(
        &mut self,
        chunk: NonNull<Chunk>,
        offset: usize,
    ) -> Result<Option<NonNull<Chunk>>, NotAllocated> {
        // SAFETY: as in `alloc`.
        let mut map = unsafe { Chunk::map_of(chunk) };
        let bytes = map.free(offset)?;
        self.objects -= 1;
        self.bytes -= bytes as u64;
        let Some(class) = map.new_class() else { return Ok(None) };
        // SAFETY: as above; the cut does not change.
        let whole = unsafe { chunk.as_ref() }.cut.whole();
        self.place(chunk, class);
        if class != whole
            || self.lists[usize::from(whole)].is_none_or(|first| {
                // SAFETY: it is on a list.
                first == chunk && unsafe { first.as_ref() }.next.is_none()
            })
        {
            return Ok(None);
        }
        self.remove(chunk);
        Ok(Some(chunk))
    }

    /// What is at an offset: how many bytes the object there has.
    ///
    /// # Safety
    ///
    /// As [`Chunks::free`].
    pub(crate) unsafe fn find(
        &self,
        chunk: NonNull<Chunk>,
        offset: usize,
    ) -> Result<usize, NotAllocated> {
        // SAFETY: the chunk is there; the lists are borrowed, and the map is only read.
        unsafe { Chunk::map_of(chunk) }.find(offset)
    }

    /// Takes out a chunk where everything is free, if there is one.
    pub(crate) fn take_empty(&mut self) -> Option<NonNull<Chunk>> {
        let class = self.present.checked_ilog2()?;
        let chunk = self.lists[class as usize]?;
        // SAFETY: it is on a list.
        if u32::from(unsafe { chunk.as_ref() }.cut.whole()) != class {
            return None;
        }
        self.remove(chunk);
        Some(chunk)
    }

    fn remove(&mut self, chunk: NonNull<Chunk>) {
        self.unlink(chunk);
        self.chunks -= 1;
    }

    /// Puts a chunk on the list of a class, if it is on another.
    #[inline]
    fn place(&mut self, mut chunk: NonNull<Chunk>, class: u8) {
        // SAFETY: it is there, and the lists are borrowed mutably.
        if unsafe { chunk.as_ref() }.class != class {
            self.unlink(chunk);
            // SAFETY: as above.
            unsafe { chunk.as_mut() }.class = class;
            self.link(chunk);
        }
    }

    /// Puts a chunk on the list of its class.
    fn link(&mut self, mut chunk: NonNull<Chunk>) {
        // SAFETY: it is there, and the lists are borrowed mutably.
        let this = unsafe { chunk.as_mut() };
        if this.class == 0 {
            return;
        }
        let list = &mut self.lists[usize::from(this.class)];
        (this.prev, this.next) = (None, *list);
        if let Some(mut next) = *list {
            // SAFETY: it is on a list, and not the chunk itself, which is on none.
            unsafe { next.as_mut() }.prev = Some(chunk);
        }
        *list = Some(chunk);
        self.present |= 1 << this.class;
    }

    /// Takes a chunk off the list of its class.
    fn unlink(&mut self, mut chunk: NonNull<Chunk>) {
        // SAFETY: it is there, and the lists are borrowed mutably.
        let this = unsafe { chunk.as_mut() };
        if this.class == 0 {
            return;
        }
        let (next, prev) = (this.next.take(), this.prev.take());
        if let Some(mut next) = next {
            // SAFETY: a neighbour on the list, and another chunk.
            unsafe { next.as_mut() }.prev = prev;
        }
        match prev {
            // SAFETY: as above.
            Some(mut prev) => unsafe { prev.as_mut() }.next = next,
            None => {
                self.lists[usize::from(this.class)] = next;
                if next.is_none() {
                    self.present &= !(1 << this.class);
                }
            }
        }
    }

    /// Whether the lists agree with the chunks on them, and each chunk with itself. Cost: all chunks
    /// that have room.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut on_lists = 0;
        for (class, list) in self.lists.iter().enumerate() {
            if (self.present >> class & 1 == 1) != list.is_some() {
                return false;
            }
            let (mut at, mut before) = (*list, None);
            while let Some(chunk) = at {
                // SAFETY: it is on a list; its map is only read.
                let (this, map) = unsafe { (chunk.as_ref(), Chunk::map_of(chunk)) };
                let right = usize::from(this.class) == class && map.class() == this.class;
                if !right || this.prev != before || !map.is_consistent() {
                    return false;
                }
                on_lists += 1;
                (before, at) = (at, this.next);
            }
        }
        on_lists <= self.chunks
    }
}

const _: () = assert!(CLASSES <= u32::BITS as usize);

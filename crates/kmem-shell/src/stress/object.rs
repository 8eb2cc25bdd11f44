//! An object that somebody holds, and its stamp.

use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use kmem::slab::CtorFlags;
use kmem::{AllocError, CacheId, Gfp, Mm, NodeId, Platform, Reclaim};

use super::Problem;
use super::random::{Random, mix};

/// A cache that objects are taken from.
#[derive(Clone, Copy)]
pub(super) struct ObjectCache {
    pub(super) id: CacheId,
    /// The size of its objects, in bytes; at least [`MARK`]'s where they are constructed.
    pub(super) size: usize,
    /// Whether it was made with [`construct`] and [`destruct`].
    pub(super) constructed: bool,
}

/// An object.
#[derive(Clone, Copy)]
pub(super) struct Object {
    memory: NonNull<u8>,
    /// How many bytes of it are used. At least one.
    pub(super) size: usize,
    /// What its stamp is made of. Not its address: the contents move with `krealloc`, and two that
    /// are given one object wrote different stamps.
    salt: u32,
    /// `None`: it is kmalloc's.
    pub(super) cache: Option<ObjectCache>,
}

// SAFETY: whoever has it has the object, which belongs to no CPU.
unsafe impl Send for Object {}

/// Objects up to this size are stamped wholly, larger ones at both ends and somewhere within.
const WHOLE: usize = 256;

const WORD: usize = size_of::<u64>();

/// What constructed objects begin with whenever they are not with a caller.
const MARK: u64 = 0x5ca1_ab1e_0b1e_c75a;

/// Objects that a destructor was called for and that were not as they had been constructed. One count
/// for all machines: a constructor knows its object only.
static UNCONSTRUCTED: AtomicU64 = AtomicU64::new(0);

/// See [`UNCONSTRUCTED`].
pub(super) fn unconstructed() -> u64 {
    UNCONSTRUCTED.load(Ordering::Relaxed)
}

/// Constructs an object: its first word is [`MARK`].
pub(super) fn construct(object: NonNull<u8>, _: CacheId, _: CtorFlags) {
    // SAFETY: the object is being made, it is aligned for a word and has one.
    unsafe { object.cast().write(MARK) };
}

/// Looks that an object is still as it was constructed, and makes it another.
pub(super) fn destruct(object: NonNull<u8>, _: CacheId, _: CtorFlags) {
    // SAFETY: the object is nobody else's, it is aligned for a word and has one.
    let found = unsafe { object.cast::<u64>().replace(!MARK) };
    if found != MARK {
        UNCONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Object {
    /// Takes memory from kmalloc, of a node if one is named.
    pub(super) fn kmalloc<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
        random: &mut Random,
    ) -> Result<Object, AllocError> {
        let memory = mm.kmalloc_node(size, gfp, node)?;
        // All of a size class may be used, and now and then all of it is. What was asked for is what
        // is cleared.
        let all = random.one_in(8) && !gfp.zeroed();
        let size = if all { mm.ksize(memory.as_ptr()).max(size) } else { size };
        Ok(Object { memory, size, salt: random.any() as u32, cache: None })
    }

    /// Takes an object of a cache.
    pub(super) fn of_cache<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        cache: ObjectCache,
        gfp: Gfp,
        random: &mut Random,
    ) -> Result<Object, AllocError> {
        let memory = mm.kmem_cache_alloc(cache.id, gfp)?;
        let salt = random.any() as u32;
        Ok(Object { memory, size: cache.size, salt, cache: Some(cache) })
    }

    /// Takes many objects of a cache at once: all or none.
    pub(super) fn bulk<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        cache: ObjectCache,
        count: usize,
        gfp: Gfp,
        random: &mut Random,
    ) -> Result<Vec<Object>, AllocError> {
        let mut taken = vec![None; count];
        mm.kmem_cache_alloc_bulk(cache.id, gfp, &mut taken)?;
        let object = |memory| {
            let salt = random.any() as u32;
            Object { memory, size: cache.size, salt, cache: Some(cache) }
        };
        Ok(taken.into_iter().flatten().map(object).collect())
    }

    /// Where it is.
    pub(super) fn address(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Looks that an object that was just taken is as it was asked for, and writes its stamp.
    ///
    /// # Safety
    ///
    /// The object is the caller's alone.
    pub(super) unsafe fn begin(&self, gfp: Gfp) -> Result<(), Problem> {
        let address = self.memory.addr().get();
        // SAFETY: the object has so many bytes and is the caller's.
        let bytes = unsafe { slice::from_raw_parts_mut(self.address(), self.size) };
        if gfp.zeroed()
            && let Some(offset) = bytes.iter().position(|byte| *byte != 0)
        {
            return Err(Problem::ObjectNotCleared { address, offset });
        }
        if self.is_constructed() && !bytes.starts_with(&MARK.to_ne_bytes()) {
            return Err(Problem::NotConstructed { address });
        }
        for (at, stamp) in self.stamp() {
            let chunk = bytes[at..].iter_mut().take(WORD);
            chunk.zip(stamp).for_each(|(byte, stamp)| *byte = stamp);
        }
        Ok(())
    }

    /// Reads the stamp, as far as it lies in the first `limit` bytes.
    ///
    /// # Safety
    ///
    /// The object is the caller's alone, and has at least the smaller of its size and `limit` bytes.
    pub(super) unsafe fn verify(&self, limit: usize) -> Result<(), Problem> {
        let size = self.size.min(limit);
        // SAFETY: the caller vouches for them.
        let bytes = unsafe { slice::from_raw_parts(self.address(), size) };
        for (at, stamp) in self.stamp().filter(|(at, _)| *at < size) {
            let found = &bytes[at..size.min(at + WORD)];
            if let Some(byte) = (0..found.len()).find(|byte| found[*byte] != stamp[*byte]) {
                return Err(Problem::ObjectDamaged {
                    address: self.memory.addr().get(),
                    offset: at + byte,
                    expected: stamp[byte],
                    found: found[byte],
                });
            }
        }
        Ok(())
    }

    /// Reads the stamp and gives the object back. One whose stamp is wrong is kept: two may hold it.
    ///
    /// # Safety
    ///
    /// The object is the caller's alone.
    pub(super) unsafe fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) -> Result<(), Problem> {
        // SAFETY: the object is the caller's.
        unsafe {
            self.end()?;
            match self.cache {
                None => mm.kfree(self.address()),
                Some(cache) => mm.kmem_cache_free(cache.id, self.address()),
            }
        }
        Ok(())
    }

    /// The same for many objects of a cache at once. If one's stamp is wrong all are kept.
    ///
    /// # Safety
    ///
    /// The objects are the caller's alone, and of the cache.
    pub(super) unsafe fn free_bulk<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        cache: ObjectCache,
        objects: &[Object],
    ) -> Result<(), Problem> {
        // SAFETY: the objects are the caller's.
        objects.iter().try_for_each(|object| unsafe { object.end() })?;
        let all: Vec<NonNull<u8>> = objects.iter().map(|object| object.memory).collect();
        // SAFETY: as above.
        unsafe { mm.kmem_cache_free_bulk(cache.id, &all) };
        Ok(())
    }

    /// Reads the stamp, and leaves the object as it was constructed, if it was.
    ///
    /// # Safety
    ///
    /// The object is the caller's alone.
    unsafe fn end(&self) -> Result<(), Problem> {
        // SAFETY: the object is the caller's.
        unsafe {
            self.verify(self.size)?;
            if self.is_constructed() {
                self.memory.cast().write(MARK);
            }
        }
        Ok(())
    }

    /// Makes memory of kmalloc's larger or smaller, and looks that the contents came along.
    ///
    /// # Safety
    ///
    /// The memory is the caller's alone, and kmalloc's.
    pub(super) unsafe fn resize<P: Platform, R: Reclaim>(
        &mut self,
        mm: &Mm<P, R>,
        size: usize,
        gfp: Gfp,
    ) -> Result<(), Problem> {
        // SAFETY: the caller's, and it is known by its new address from here on.
        let Ok(memory) = (unsafe { mm.krealloc(self.address(), size, gfp) }) else {
            // SAFETY: the caller's, as it was.
            return unsafe { self.verify(self.size) };
        };
        self.memory = memory;
        // SAFETY: the caller's; of what was written so many bytes are left.
        unsafe { self.verify(size) }?;
        self.size = size;
        // SAFETY: as above.
        unsafe { self.begin(Gfp::NONE) }
    }

    fn is_constructed(&self) -> bool {
        self.cache.is_some_and(|cache| cache.constructed)
    }

    /// What is written where: offsets in bytes, and a word for each. The last word may not fit.
    fn stamp(&self) -> impl Iterator<Item = (usize, [u8; WORD])> + use<> {
        let (salt, words) = (u64::from(self.salt), self.size.div_ceil(WORD));
        let some = mix(salt) as usize % words;
        let (all, few) = if self.size <= WHOLE { (words, 0) } else { (0, 3) };
        let indices = (0..all).chain([0, some, words - 1].into_iter().take(few));
        indices
            .map(move |index| (index * WORD, mix(salt << u32::BITS | index as u64).to_ne_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: &mut [u8], salt: u32) -> Object {
        let memory = NonNull::from(&mut *bytes).cast();
        Object { memory, size: bytes.len(), salt, cache: None }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_a_change_is_found() {
        for size in [1, 7, 8, 9, 255, 256, 257, 100_000] {
            let mut bytes = vec![0; size];
            let mine = object(&mut bytes, 5);
            // SAFETY: the test's own bytes.
            unsafe {
                assert!(mine.begin(Gfp::ZERO).is_ok());
                assert!(mine.verify(size).is_ok());
                // It is no longer clear, and another's stamp is another.
                assert!(mine.begin(Gfp::ZERO).is_err());
                assert!(object(&mut bytes, 6).verify(size).is_err(), "{size}");
                // The last byte counts, unless fewer are looked at.
                *mine.address().add(size - 1) ^= 1;
                assert!(matches!(
                    mine.verify(size),
                    Err(Problem::ObjectDamaged { offset, .. }) if offset == size - 1
                ));
                assert!(mine.verify(size - 1).is_ok(), "{size}");
            }
        }
    }
}

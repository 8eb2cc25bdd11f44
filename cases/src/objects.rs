//! Objects that a case holds, and gives back by itself, also where it fails half-way.

use core::ptr::NonNull;
use core::slice;

use kmem::{CacheError, CacheFlags, CacheId, CacheInfo, Gfp, Mm, Owner, Page, VirtAddr};

use crate::failure::{check, equal, some};
use crate::text::Text;
use crate::{Failure, FreeOnDemand, Machine};

/// Memory of kmalloc's, which is freed by itself.
pub(crate) struct Memory<'m, M: Machine> {
    mm: &'m Mm<M::P, FreeOnDemand>,
    at: NonNull<u8>,
}

impl<'m, M: Machine> Memory<'m, M> {
    #[track_caller]
    pub(crate) fn new(machine: &'m M, size: usize, gfp: Gfp) -> Result<Self, Failure> {
        let at = machine.mm().kmalloc(size, gfp)?;
        Ok(Memory { mm: machine.mm(), at })
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    pub(crate) fn address(&self) -> usize {
        self.at.as_ptr().expose_provenance()
    }

    /// All of it: what was asked for, and what came besides.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let size = self.mm.ksize(self.pointer());
        // SAFETY: the memory is this value's, and has so many bytes.
        unsafe { slice::from_raw_parts_mut(self.pointer(), size) }
    }
}

impl<M: Machine> Drop for Memory<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's.
        unsafe { self.mm.kfree(self.pointer()) };
    }
}

impl From<CacheError> for Failure {
    #[track_caller]
    fn from(_: CacheError) -> Self {
        Failure::new("a cache is made or destroyed")
    }
}

/// A cache that is destroyed by itself, when all of its objects are back.
pub(crate) struct Own<'m, M: Machine> {
    pub(crate) machine: &'m M,
    pub(crate) id: CacheId,
    pub(crate) name: &'static str,
}

impl<'m, M: Machine> Own<'m, M> {
    #[track_caller]
    pub(crate) fn new(
        machine: &'m M,
        name: &'static str,
        size: usize,
        flags: CacheFlags,
    ) -> Result<Self, Failure> {
        let id = machine.mm().kmem_cache_create(name, size, 0, flags, None, None)?;
        Ok(Own { machine, id, name })
    }

    #[track_caller]
    pub(crate) fn info(&self) -> Result<CacheInfo, Failure> {
        let mut caches = self.machine.mm().caches();
        some(caches.find(|cache| cache.name.as_str() == self.name), "a cache is among all")
    }

    #[track_caller]
    pub(crate) fn take(&self, gfp: Gfp) -> Result<NonNull<u8>, Failure> {
        Ok(self.machine.mm().kmem_cache_alloc(self.id, gfp)?)
    }

    /// Gives an object back.
    ///
    /// # Safety
    ///
    /// It is the caller's, or the manager refuses it.
    #[track_caller]
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { self.machine.mm().kmem_cache_free(self.id, object.as_ptr()) };
    }
}

impl<M: Machine> Drop for Own<'_, M> {
    fn drop(&mut self) {
        // SAFETY: nobody else uses it. What is wrong with it shows in the free lists.
        let _ = unsafe { self.machine.mm().kmem_cache_destroy(self.id) };
    }
}

/// Any number of objects of a cache, or of one size of kmalloc's; given back by themselves.
///
/// There is no heap to keep a list in: each one's first word is the address of the one before it, and
/// the second its number, so that an object that was given to two is noticed.
pub(crate) struct Held<'m, M: Machine> {
    machine: &'m M,
    from: Source,
    last: usize,
    pub(crate) count: u64,
    /// Whether each object had the number that it was given.
    pub(crate) intact: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Source {
    Cache(CacheId),
    Kmalloc(usize),
}

impl<'m, M: Machine> Held<'m, M> {
    pub(crate) fn new(machine: &'m M, from: Source) -> Self {
        Held { machine, from, last: 0, count: 0, intact: true }
    }

    pub(crate) fn of(cache: &Own<'m, M>) -> Self {
        Held::new(cache.machine, Source::Cache(cache.id))
    }

    pub(crate) fn push(&mut self, object: NonNull<u8>) {
        let words = object.cast::<usize>();
        // SAFETY: the object is this value's from here on, and has room for two words.
        unsafe {
            words.write(self.last);
            words.add(1).write(self.count as usize);
        }
        self.last = object.as_ptr().expose_provenance();
        self.count += 1;
    }

    fn pop(&mut self) -> Option<NonNull<u8>> {
        let object = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(self.last))?;
        let words = object.cast::<usize>();
        self.count -= 1;
        // SAFETY: the object is this value's, and has these two words.
        unsafe {
            self.last = words.read();
            self.intact &= words.add(1).read() == self.count as usize;
        }
        Some(object)
    }

    /// Takes so many objects more.
    #[track_caller]
    pub(crate) fn fill(&mut self, count: u64, gfp: Gfp) -> Result<(), Failure> {
        let mm = self.machine.mm();
        for _ in 0..count {
            let object = match self.from {
                Source::Cache(id) => mm.kmem_cache_alloc(id, gfp)?,
                Source::Kmalloc(size) => mm.kmalloc(size, gfp)?,
            };
            self.push(object);
        }
        Ok(())
    }

    fn free(&self, object: NonNull<u8>) {
        // SAFETY: the object was this value's, and is off its list.
        unsafe {
            match self.from {
                Source::Cache(id) => self.machine.mm().kmem_cache_free(id, object.as_ptr()),
                Source::Kmalloc(_) => self.machine.mm().kfree(object.as_ptr()),
            }
        }
    }

    /// Frees those that `wanted` picks.
    pub(crate) fn free_if(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        let mut kept = Held::new(self.machine, self.from);
        while let Some(object) = self.pop() {
            if wanted(object.as_ptr().expose_provenance()) {
                self.free(object);
            } else {
                kept.push(object);
            }
        }
        kept.intact &= self.intact;
        *self = kept;
    }

    /// Frees all, and fails where one was changed while it was held.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.free_if(|_| true);
        check(self.intact, "what was written into objects is there")
    }

    /// Calls `look` with each address, latest first.
    pub(crate) fn each(
        &self,
        mut look: impl FnMut(usize) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut at = self.last;
        while at != 0 {
            look(at)?;
            // SAFETY: the object is this value's, and its first word is the address before it.
            at = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read() };
        }
        Ok(())
    }
}

impl<M: Machine> Drop for Held<'_, M> {
    fn drop(&mut self) {
        while let Some(object) = self.pop() {
            self.free(object);
        }
    }
}

/// The first page of the slab that an object lies in, and where that page is seen.
#[track_caller]
pub(crate) fn slab_of<M: Machine>(machine: &M, object: usize) -> Result<(Page, usize), Failure> {
    let mm = machine.mm();
    let page = some(mm.virt_to_page(VirtAddr::new(object)), "an object has a page")?;
    check(mm.owner(page.pfn()) == Owner::Slab, "which is a slab's")?;
    let head = mm.compound_head(page);
    Ok((head, some(mm.page_address(head), "which has an address")?.get()))
}

pub(crate) fn address(object: NonNull<u8>) -> usize {
    object.as_ptr().expose_provenance()
}

/// Makes a wrong call: it is reported once, in words that hold `words`, with the caller's file as its
/// site, and as many pages are free, and objects in use, as before.
#[track_caller]
pub(crate) fn wrong<M: Machine>(
    machine: &M,
    words: &str,
    file: &str,
    call: impl FnOnce(),
) -> Result<(), Failure> {
    let mm = machine.mm();
    let look = || (mm.free_page_count(), mm.caches().map(|cache| cache.active).sum::<u64>());
    let (reports, before) = (machine.misuses(), look());
    call();
    equal(machine.misuses() - reports, 1, "a wrong call is reported, once")?;
    check(look() == before, "and changes nothing")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    check(text.contains(words), "the report says what is wrong")?;
    check(text.contains(file), "and where the call was made")
}

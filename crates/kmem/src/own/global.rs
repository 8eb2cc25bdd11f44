//! kmalloc as Rust's global allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use super::Handle;
use super::arena::Arena;
use crate::platform::Context;
use crate::{AllocError, GFP_ATOMIC, GFP_KERNEL, Gfp};

/// A `#[global_allocator]` for a kernel that uses the `alloc` crate.
///
/// It works from the first instruction: until the manager is booted, memory comes from an arena of
/// `EARLY` bytes inside this value. A piece of it that is freed, before or after boot, is known by its
/// address; it is used again if it is the last, and else lost, so let `EARLY` be what the kernel
/// allocates before [`Mm::boot`](crate::Mm::boot), and look at [`GlobalKmalloc::early_used`].
///
/// It works in any context: where sleeping is forbidden it asks with [`GFP_ATOMIC`], and else with
/// [`GFP_KERNEL`]. It takes no lock of its own.
///
/// `alloc`'s calls that cannot fail end the kernel where there is no memory: that is Rust's rule and
/// not this type's, which answers null. [`KVec`](crate::KVec) and its sisters have no such calls.
///
/// The platform's [`Hooks`](crate::platform::Hooks) are called from inside the manager and must not
/// call it, so with this allocator they must not use `alloc`.
///
/// ```no_run
/// # use kmem::platform::desk::Desk;
/// mod mm {
///     # use kmem::platform::desk::Desk;
///     # type Kernel = Desk<'static>;
///     # pub static MM: std::sync::LazyLock<kmem::Mm<Desk<'static>>> =
///     #     std::sync::LazyLock::new(|| unreachable!());
///     // With pub static MM: kmem::Mm<Kernel> = kmem::Mm::new(Kernel), without the `unsafe`.
///     kmem::kernel_types!(unsafe MM: kmem::Mm<Kernel>);
/// }
///
/// #[global_allocator]
/// static ALLOCATOR: kmem::GlobalKmalloc<mm::Memory> = kmem::GlobalKmalloc::new_in(mm::Memory);
/// ```
pub struct GlobalKmalloc<H: Handle, const EARLY: usize = { 64 << 10 }> {
    handle: H,
    arena: Arena<EARLY>,
}

impl<H: Handle, const EARLY: usize> GlobalKmalloc<H, EARLY> {
    /// An allocator over a manager, which need not be booted.
    pub const fn new_in(handle: H) -> Self {
        GlobalKmalloc { handle, arena: Arena::new() }
    }

    /// How many bytes of the arena are in use or lost; at most `EARLY`.
    pub fn early_used(&self) -> usize {
        self.arena.used()
    }

    /// How many bytes of the arena were freed and are lost.
    pub fn early_lost(&self) -> usize {
        self.arena.kept()
    }

    /// What the running code may ask with.
    fn gfp(&self) -> Gfp {
        if self.handle.mm().platform().in_atomic() { GFP_ATOMIC } else { GFP_KERNEL }
    }
}

// SAFETY: pieces of the arena and what kmalloc hands out do not overlap and stay until they are freed;
// both are aligned as the layout says. Nothing here unwinds.
unsafe impl<H: Handle + Sync, const EARLY: usize> GlobalAlloc for GlobalKmalloc<H, EARLY> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = match self.handle.mm().kmalloc_layout(layout, self.gfp()) {
            Err(AllocError::NotBooted) => self.arena.take(layout),
            memory => memory.ok(),
        };
        memory.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match self.arena.offset(memory) {
            Some(offset) => self.arena.give(offset, layout.size()),
            // SAFETY: it is not the arena's, so it is kmalloc's; the caller's promise.
            None => unsafe { self.handle.mm().kfree(memory) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let used = layout.size().min(size);
        if let Some(offset) = self.arena.offset(memory) {
            if self.arena.resize_last(offset, layout.size(), size) {
                return memory;
            }
            // The caller promises that the size, rounded up to the alignment, fits `isize`.
            let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
            // SAFETY: the caller promises that the size is not 0.
            let moved = unsafe { self.alloc(new) };
            if !moved.is_null() {
                // SAFETY: both have so many bytes, and they are two.
                unsafe { moved.copy_from_nonoverlapping(memory, used) };
                // SAFETY: the caller's promise.
                unsafe { self.dealloc(memory, layout) };
            }
            return moved;
        }
        let Some(old) = NonNull::new(memory) else { return null_mut() };
        let (mm, align) = (self.handle.mm(), layout.align());
        // SAFETY: it is not the arena's, so it is kmalloc's; the caller's promise.
        let moved = unsafe { mm.krealloc_aligned(old, used, size, align, self.gfp()) };
        moved.map_or(null_mut(), NonNull::as_ptr)
    }
}

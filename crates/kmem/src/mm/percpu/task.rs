//! Code that may sleep, as a value: what the compiler can say of `get_cpu` and sleeping (A292).

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::super::Mm;
use super::access::{CpuGuard, CpuVar};
use crate::page::Page;
use crate::percpu::PerCpuVar;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AllocError, CacheId, GFP_KERNEL};

/// The right to sleep: held by code of a task that is neither pinned nor otherwise atomic.
///
/// Calls that may sleep borrow it mutably, and so does [`Task::get_cpu`] for as long as its guard is
/// there. So a sleep between get and put does not compile:
///
/// ```compile_fail,E0499
/// # use kmem::{Task, platform::desk::Desk};
/// fn wrong(task: &mut Task<'_, Desk<'static>>) {
///     let cpu = task.get_cpu();
///     let memory = task.kmalloc(100); // may sleep: the code could go on elsewhere
///     drop(cpu);
/// }
/// ```
///
/// The same code with the two the other way round does:
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// let mut task = mm.task()?;
/// let memory = task.kmalloc(100)?;
/// let cpu = task.get_cpu();
/// assert!(mm.task().is_err(), "not while the code is pinned");
/// drop(cpu);
/// // SAFETY: it is ours, and nothing uses it any more.
/// unsafe { task.mm().kfree(memory.as_ptr()) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It is a form for those who pass it on instead of the manager: code that has the manager too can call
/// that, and is then checked when it runs ([`MisuseKind::SleepInAtomic`]). It is neither `Send` nor
/// `Sync`: another task is asked for its own.
///
/// [`MisuseKind::SleepInAtomic`]: crate::platform::MisuseKind::SleepInAtomic
pub struct Task<'m, P, R = crate::NoReclaim> {
    mm: &'m Mm<P, R>,
    stays: PhantomData<*mut ()>,
}

/// The code must not sleep: it is pinned, has interrupts masked, or is a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InAtomic;

impl fmt::Display for InAtomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this code must not sleep: it is pinned, masked or a handler")
    }
}

impl core::error::Error for InAtomic {}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The right to sleep, for code that has it (A292).
    ///
    /// # Errors
    ///
    /// [`InAtomic`] for code that has not.
    pub fn task(&self) -> Result<Task<'_, P, R>, InAtomic> {
        if self.platform.in_atomic() {
            return Err(InAtomic);
        }
        Ok(Task { mm: self, stays: PhantomData })
    }
}

impl<'m, P: Platform, R: Reclaim> Task<'m, P, R> {
    /// The manager, for calls that do not sleep. Not while a guard of this task is there.
    pub fn mm(&self) -> &'m Mm<P, R> {
        self.mm
    }

    /// [`Mm::get_cpu`], with a guard that cannot be held across a sleep.
    #[inline]
    pub fn get_cpu(&mut self) -> CpuGuard<'_, P> {
        self.mm.cpu_guard()
    }

    /// [`Mm::get_cpu_var`], with a guard that cannot be held across a sleep.
    #[inline]
    #[track_caller]
    pub fn get_cpu_var<'t, V: PerCpuVar>(&'t mut self, variable: &'t V) -> CpuVar<'t, V::Value, P> {
        self.mm.get_cpu_var(variable)
    }

    /// [`Mm::kmalloc`] with `GFP_KERNEL`.
    ///
    /// # Errors
    ///
    /// Those of [`Mm::kmalloc`].
    #[track_caller]
    pub fn kmalloc(&mut self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.mm.kmalloc(size, GFP_KERNEL)
    }

    /// [`Mm::kmem_cache_alloc`] with `GFP_KERNEL`.
    ///
    /// # Errors
    ///
    /// Those of [`Mm::kmem_cache_alloc`].
    #[track_caller]
    pub fn kmem_cache_alloc(&mut self, cache: CacheId) -> Result<NonNull<u8>, AllocError> {
        self.mm.kmem_cache_alloc(cache, GFP_KERNEL)
    }

    /// [`Mm::alloc_pages`] with `GFP_KERNEL`.
    ///
    /// # Errors
    ///
    /// Those of [`Mm::alloc_pages`].
    #[track_caller]
    pub fn alloc_pages(&mut self, order: u32) -> Result<Page, AllocError> {
        self.mm.alloc_pages(GFP_KERNEL, order)
    }

    /// [`Mm::alloc_percpu`].
    ///
    /// # Errors
    ///
    /// Those of [`Mm::alloc_percpu`].
    #[track_caller]
    pub fn alloc_percpu<T>(&mut self) -> Result<NonNull<T>, AllocError> {
        self.mm.alloc_percpu()
    }
}

//! The entry points of kernel stacks.
//!
//! # The way of a stack
//!
//! ```text
//!   alloc_stack ──> kept by this CPU?  ──yes──> record and canary are written ──> KernelStack
//!                        │ no                             ^                            │
//!                        v                                │                         dropped
//!                   a block of pages, or mapped pages ────┘                            v
//!                                                                    what its task left is freed
//!      kept by this CPU, where there is room  <── intact? ──────────────────────────────┤
//!      given back                             <─────────────────────────────────────────┘
//! ```
//!
//! Only mapped stacks of the machine's own size are kept: a block of pages comes from the CPU's page list,
//! or is one that others may want. What is kept is given back when memory is low ([`Mm::drain_stacks`]) and
//! when its CPU goes.
//!
//! # Overflow
//!
//! A stack of a block is looked at when it is given back, and whenever somebody asks
//! ([`KernelStack::check`]). One of mapped pages has a page below it that nothing is mapped at: the
//! platform's handler of the fault asks [`Mm::report_touch`] what was touched, which reports it, and then
//! does with the task what it can: code that held no lock and was in no section can be left where it is.
//!
//! # Interrupt stacks
//!
//! Each CPU has one, from the first call of [`Mm::interrupt_stack`] on, of a size of its own
//! ([`Setup::interrupt_stacks`](crate::Setup::interrupt_stacks)). A kernel has its processor switch to it where
//! an interrupt enters, so a task's stack need have no room for handlers; handlers that share it must not
//! interrupt one another. It is never kept for others, and stays while its CPU is away: a kernel that wants the
//! memory gives it back itself.
//!
//! # Locking
//!
//! None of its own.

mod kernel_stack;
mod look;
mod managed;

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Mm;
use crate::boot::{LARGEST_STACK, StackBacking, StackSetup};
use crate::platform::{Pinned, Platform, StackOwner};
use crate::reclaim::Reclaim;
use crate::stack::{CpuStacks, Memory, RecordAt};
use crate::{AllocError, CpuId, GFP_KERNEL, MAX_CPUS, Order, VirtAddr};

pub use kernel_stack::KernelStack;
pub use look::StackInfo;

/// What is counted of the stacks of a manager.
pub(super) struct Stacks {
    /// Stacks in use, and their pages.
    used: AtomicUsize,
    pages: AtomicUsize,
    /// Stacks that were made, and that came from what CPUs keep.
    made: AtomicU64,
    reused: AtomicU64,
    /// Reports of stacks that were used up.
    overflows: AtomicU64,
}

impl Stacks {
    pub(super) const fn new() -> Stacks {
        Stacks {
            used: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        }
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// A kernel stack for somebody, as [`Setup::stacks`](crate::Setup::stacks) says (A261 to A264). It is
    /// given back when the answer is dropped.
    ///
    /// # Errors
    ///
    /// [`AllocError::NoMemory`]: of a stack of more than one page in a block also where pages enough are
    /// free and no two of them are neighbours (A267). [`AllocError::NoPageMap`] where stacks are to be
    /// mapped and the platform cannot, [`AllocError::Atomic`], and what [`Mm::vmalloc`] says of addresses
    /// and page tables.
    ///
    /// # Context
    ///
    /// May sleep. Elsewhere it is reported as misuse and refused.
    ///
    /// # Cost
    ///
    /// Of a mapped stack that the CPU keeps: an exchange and a few stores, and where stacks are measured
    /// the painting of what the last holder used. Otherwise a block of pages, or all that
    /// [`Mm::vmalloc`] does.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use kmem::{Mm, platform::{StackOwner, desk::Desk}};
    /// # fn example(mm: &Mm<Desk<'_>>) -> Result<(), kmem::AllocError> {
    /// let stack = mm.alloc_stack(StackOwner::new(12, "init"))?;
    /// let top = stack.top(); // where the task's stack pointer begins
    /// # let _ = top;
    /// // ... the task runs, and ends ...
    /// drop(stack);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn alloc_stack(&self, owner: StackOwner) -> Result<KernelStack<'_, P, R>, AllocError> {
        self.stack_at(self.stack_setup(), owner, Location::caller())
    }

    /// [`Mm::alloc_stack`] of another size or backing than the machine's: for a CPU's idle loop or its
    /// handlers, or for a task that is to be measured.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::alloc_stack`]; [`AllocError::OrderTooLarge`] above order 6.
    #[track_caller]
    pub fn alloc_stack_of(
        &self,
        setup: StackSetup,
        owner: StackOwner,
    ) -> Result<KernelStack<'_, P, R>, AllocError> {
        self.stack_at(setup, owner, Location::caller())
    }

    fn stack_at(
        &self,
        setup: StackSetup,
        owner: StackOwner,
        site: &'static Location<'static>,
    ) -> Result<KernelStack<'_, P, R>, AllocError> {
        let order = setup.order.get();
        if order > LARGEST_STACK {
            let largest = Order::from_raw(LARGEST_STACK as u8);
            return Err(AllocError::OrderTooLarge { order, largest });
        }
        let bytes = self.stack_bytes(setup);
        self.may_sleep_here(bytes, site)?;
        let (base, is_painted) = match self.take_kept(setup) {
            Some(base) => {
                self.stacks.reused.fetch_add(1, Ordering::Relaxed);
                // What is kept is of the machine's own kind.
                (base, self.stack_setup().measured)
            }
            None => (self.make_stack(setup, site)?, false),
        };
        // SAFETY: the memory was just taken, is mapped for as long as the stack is in use, and begins with
        // a page.
        let memory = unsafe { Memory::new(base, bytes, record_at(setup.backing)) };
        memory.prepare(owner, setup.measured, is_painted);
        self.stacks.used.fetch_add(1, Ordering::Relaxed);
        self.stacks.pages.fetch_add(1 << order, Ordering::Relaxed);
        // SAFETY: the stack is this call's, and was prepared for this owner.
        Ok(unsafe { KernelStack::new(self, memory, setup, owner) })
    }

    /// What stacks are like where it is not said for one.
    fn stack_setup(&self) -> StackSetup {
        self.tables().map_or(StackSetup::MODERN, |tables| tables.stack_setup)
    }

    /// The stacks of a CPU that there can be.
    fn cpu_stacks(&self, cpu: CpuId) -> Option<&CpuStacks> {
        self.tables()?.stacks(cpu)
    }

    fn stack_bytes(&self, setup: StackSetup) -> usize {
        1 << (P::PAGE_SHIFT + setup.order.get())
    }

    fn make_stack(
        &self,
        setup: StackSetup,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let base = match setup.backing {
            StackBacking::Mapped => self.map_stack(self.stack_bytes(setup), site)?,
            StackBacking::Pages => {
                let address = self.__get_free_pages(GFP_KERNEL, setup.order.get())?;
                // Memory at the first address of all would be no pointer: the manager never hands it out.
                NonNull::new(address.as_ptr()).ok_or(AllocError::NotAllocated)?
            }
        };
        self.stacks.made.fetch_add(1, Ordering::Relaxed);
        Ok(base)
    }

    /// Gives the memory of a stack back.
    ///
    /// # Safety
    ///
    /// It is a stack of this kind, the caller's, and nothing is on it.
    unsafe fn unmake_stack(
        &self,
        base: NonNull<u8>,
        setup: StackSetup,
        site: &'static Location<'static>,
    ) {
        match setup.backing {
            // SAFETY: the caller's promise.
            StackBacking::Mapped => unsafe { self.unmap_stack(base, site) },
            StackBacking::Pages => {
                // SAFETY: the caller's promise.
                unsafe { self.free_pages(VirtAddr::from_ptr(base.as_ptr()), setup.order.get()) }
            }
        }
    }

    /// Whether stacks of this kind are kept: those of the machine's own size that are mapped.
    fn is_kept(&self, setup: StackSetup) -> bool {
        setup.backing == StackBacking::Mapped && setup == self.stack_setup()
    }

    fn take_kept(&self, setup: StackSetup) -> Option<NonNull<u8>> {
        if !self.is_kept(setup) {
            return None;
        }
        let pinned = Pinned::new(&self.platform);
        self.cpu_stacks(pinned.cpu())?.take()
    }

    /// Gives a stack back that nothing is on.
    ///
    /// # Safety
    ///
    /// As [`Mm::unmake_stack`].
    unsafe fn give_stack_back(
        &self,
        memory: Memory,
        setup: StackSetup,
        is_intact: bool,
        site: &'static Location<'static>,
    ) {
        self.stacks.used.fetch_sub(1, Ordering::Relaxed);
        self.stacks.pages.fetch_sub(1 << setup.order.get(), Ordering::Relaxed);
        // One whose lowest words were overwritten may be written by somebody yet. A CPU that has gone has
        // nobody to give back what it would keep.
        let base = memory.base();
        if is_intact && self.is_kept(setup) {
            // Before somebody else may take it.
            memory.disown();
            let pinned = Pinned::new(&self.platform);
            let cpu = pinned.cpu();
            let own = self.cpu_stacks(cpu).filter(|_| self.is_online(cpu));
            if own.is_some_and(|own| own.put(base).is_ok()) {
                return;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.unmake_stack(base, setup, site) };
    }

    /// Gives back the stacks that all CPUs keep, and answers how many pages they have. Their memory is free
    /// when they are unmapped: see [`Mm::vm_unmap_aliases`]. It happens by itself where memory is low.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: that of [`Mm::vfree`] for each stack.
    pub fn drain_stacks(&self) -> u64 {
        (0..MAX_CPUS as u32)
            .filter_map(CpuId::new)
            .map(|cpu| self.drain_stacks_of(cpu))
            .sum::<u64>()
    }

    /// The same of one CPU.
    #[track_caller]
    pub(super) fn drain_stacks_of(&self, cpu: CpuId) -> u64 {
        let (setup, site, mut pages) = (self.stack_setup(), Location::caller(), 0);
        let Some(own) = self.cpu_stacks(cpu) else { return 0 };
        while let Some(base) = own.take() {
            // SAFETY: it was kept by itself, and is of the machine's own kind.
            unsafe { self.unmake_stack(base, setup, site) };
            pages += setup.order.pages();
        }
        pages
    }

    /// A stack for the interrupt handlers of a CPU: its first address, and the first behind what they may use.
    /// It is made at the first call and is the CPU's until [`Mm::free_interrupt_stack`]: a page for each CPU
    /// that has one, or as many as [`Setup::interrupt_stacks`](crate::Setup::interrupt_stacks) says.
    ///
    /// A kernel whose tasks have more than one page can do without, and have handlers share the stack that
    /// they interrupt; a task's only page has no room for both (A263).
    ///
    /// # Errors
    ///
    /// As [`Mm::alloc_stack`]; [`AllocError::NoSuchCpu`].
    ///
    /// # Context
    ///
    /// May sleep, the first time for a CPU: it is for a kernel that brings a CPU in.
    #[track_caller]
    pub fn interrupt_stack(&self, cpu: CpuId) -> Result<core::ops::Range<VirtAddr>, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        let own = tables.stacks(cpu).ok_or(AllocError::NoSuchCpu(cpu))?;
        if let Some(base) = own.interrupt() {
            return Ok(range_of(self.interrupt_memory(base)));
        }
        let owner = interrupt_owner(cpu);
        let stack = self.stack_at(self.interrupt_setup(), owner, Location::caller())?;
        let memory = *stack.memory();
        match own.set_interrupt(memory.base()) {
            Ok(()) => {
                core::mem::forget(stack);
                Ok(range_of(memory))
            }
            // Somebody else was faster, and this one goes back.
            Err(first) => Ok(range_of(self.interrupt_memory(first))),
        }
    }

    /// Gives a CPU's interrupt stack back, if it has one.
    ///
    /// # Safety
    ///
    /// No handler runs on it, and none will.
    ///
    /// # Context
    ///
    /// Any but NMI.
    #[track_caller]
    pub unsafe fn free_interrupt_stack(&self, cpu: CpuId) {
        if let Some(base) = self.cpu_stacks(cpu).and_then(CpuStacks::take_interrupt) {
            let (memory, setup) = (self.interrupt_memory(base), self.interrupt_setup());
            // SAFETY: the stack was made and forgotten by `interrupt_stack`, with this owner.
            drop(unsafe { KernelStack::new(self, memory, setup, interrupt_owner(cpu)) });
        }
    }

    /// What interrupt stacks are like: of their own size, as guarded as the machine's others.
    fn interrupt_setup(&self) -> StackSetup {
        let order = self.tables().map_or(Order::ZERO, |tables| tables.interrupt_stack_order);
        StackSetup { order, ..self.stack_setup() }
    }

    fn interrupt_memory(&self, base: NonNull<u8>) -> Memory {
        let setup = self.interrupt_setup();
        // SAFETY: it was made so by `interrupt_stack`, and stays until `free_interrupt_stack`, whose caller
        // promises that nobody uses it then.
        unsafe { Memory::new(base, self.stack_bytes(setup), record_at(setup.backing)) }
    }
}

/// From the first address to the first behind what code may use.
fn range_of(memory: Memory) -> core::ops::Range<VirtAddr> {
    VirtAddr::from_ptr(memory.base().as_ptr())..VirtAddr::from_ptr(memory.top().as_ptr())
}

/// The owner of a CPU's interrupt stack.
fn interrupt_owner(cpu: CpuId) -> StackOwner {
    StackOwner::new(cpu.get(), "interrupts")
}

/// Where stacks with a backing have their owner's record.
fn record_at(backing: StackBacking) -> RecordAt {
    match backing {
        StackBacking::Pages => RecordAt::Base,
        StackBacking::Mapped => RecordAt::Top,
    }
}

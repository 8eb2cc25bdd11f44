//! A stack that somebody has.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr;

use super::super::Mm;
use super::managed::Managed;
use crate::VirtAddr;
use crate::boot::{StackBacking, StackSetup};
use crate::platform::{Misuse, MisuseKind, Passed, Platform, StackOwner, There};
use crate::reclaim::Reclaim;
use crate::stack::Memory;

/// A kernel stack that is in use. It is its holder's alone, and is given back when this is dropped: by the
/// kernel, when the task has ended and runs on another stack, or never began.
///
/// It also has what the task allocates by it ([`KernelStack::kmalloc`] and its sisters): that goes with it,
/// however the task ended.
///
/// # Invariants
///
/// The memory is a stack of the manager's with this setup, prepared for this owner, and this value's alone
/// but for the code that runs on it. `managed` is null or leads to memory that was allocated by this value
/// and not freed.
pub struct KernelStack<'m, P: Platform, R: Reclaim = crate::NoReclaim> {
    mm: &'m Mm<P, R>,
    memory: Memory,
    setup: StackSetup,
    owner: StackOwner,
    pub(super) managed: Cell<*mut Managed>,
    /// Whether code runs on it.
    is_entered: Cell<bool>,
    /// What is managed is written without a lock.
    not_sync: PhantomData<*mut ()>,
}

// SAFETY: the memory and what is managed are this value's alone, whoever has it.
unsafe impl<P: Platform, R: Reclaim + Sync> Send for KernelStack<'_, P, R> {}

impl<'m, P: Platform, R: Reclaim> KernelStack<'m, P, R> {
    /// # Safety
    ///
    /// The invariants.
    pub(super) unsafe fn new(
        mm: &'m Mm<P, R>,
        memory: Memory,
        setup: StackSetup,
        owner: StackOwner,
    ) -> Self {
        let managed = Cell::new(ptr::null_mut());
        let is_entered = Cell::new(false);
        KernelStack { mm, memory, setup, owner, managed, is_entered, not_sync: PhantomData }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Says that code runs on it from now on, until [`KernelStack::leave`]. `false`, and nothing, where some
    /// does already: what began at its top again would overwrite that. For whoever switches stacks.
    #[must_use]
    pub fn enter(&self) -> bool {
        !self.is_entered.replace(true)
    }

    /// The code that ran on it has ended.
    pub fn leave(&self) {
        self.is_entered.set(false);
    }

    /// The manager that it is of.
    pub fn mm(&self) -> &'m Mm<P, R> {
        self.mm
    }

    /// The lowest address of its memory.
    pub fn base(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.memory.base().as_ptr())
    }

    /// The first address behind what code may use, a multiple of 16: where the stack pointer begins.
    pub fn top(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.memory.top().as_ptr())
    }

    /// How many bytes code may use: the pages without the owner's record and the canary.
    pub fn usable(&self) -> usize {
        self.memory.usable()
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        1 << self.setup.order().get()
    }

    /// Whose it is.
    pub fn owner(&self) -> StackOwner {
        self.owner
    }

    /// What it is like.
    pub fn setup(&self) -> StackSetup {
        self.setup
    }

    /// Whether a touch of what is below it is a fault.
    pub fn is_guarded(&self) -> bool {
        self.setup.backing() == StackBacking::Mapped
    }

    /// The most bytes that were used of it at one time, as far as that shows: code that skips words hides
    /// what is below them. `None` where stacks are not [measured](StackSetup::measured). Cost: a look at each
    /// word that is free.
    pub fn most_used(&self) -> Option<usize> {
        self.setup.is_measured().then(|| self.memory.most_used())
    }

    /// Looks whether its lowest words are as they were written, and reports it as misuse if they are not:
    /// code that runs on it has used more than there is (A266). Answers whether all is well. Any context; a
    /// few loads.
    #[track_caller]
    pub fn check(&self) -> bool {
        self.check_at(Location::caller())
    }

    fn check_at(&self, site: &'static Location<'static>) -> bool {
        let Some(harm) = self.memory.harm(self.owner) else { return true };
        let there = There::Stack {
            start: self.base(),
            pages: self.pages(),
            owner: Some(self.owner),
            harm: Some(harm),
        };
        self.mm.count_overflow();
        let passed = Passed::Object(self.base());
        self.mm.report(&Misuse { kind: MisuseKind::StackOverflow, passed, there, site });
        false
    }
}

impl<P: Platform, R: Reclaim> Drop for KernelStack<'_, P, R> {
    /// Frees what the task left, looks at the stack as [`KernelStack::check`] does, and gives it back. Any
    /// context but NMI.
    fn drop(&mut self) {
        let site = Location::caller();
        self.free_managed();
        let is_intact = self.check_at(site);
        // SAFETY: the invariants; the value ends here.
        unsafe { self.mm.give_stack_back(self.memory, self.setup, is_intact, site) };
    }
}

impl<P: Platform, R: Reclaim> fmt::Debug for KernelStack<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelStack")
            .field("base", &self.base())
            .field("pages", &self.pages())
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

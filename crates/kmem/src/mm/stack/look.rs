//! Looking at stacks, and reporting what was touched.

use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;

use super::super::{AreaInfo, Mm, Touch};
use crate::boot::StackSetup;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, StackOwner, There};
use crate::reclaim::Reclaim;
use crate::stack::{CpuStacks, owner_before, restore_canary};
use crate::vmalloc::AreaKind;
use crate::{CpuId, MAX_CPUS, Pfn, VirtAddr};

/// The kernel stacks of a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackInfo {
    /// What they are like where it is not said for one.
    pub setup: StackSetup,
    /// What those of interrupt handlers are like.
    pub interrupts: StackSetup,
    /// How many are in use, with those of interrupts.
    pub used: usize,
    /// How many pages these have: `KernelStack` in `/proc/meminfo`.
    pub pages: usize,
    /// How many CPUs keep at hand.
    pub kept: usize,
    /// How many were made since boot.
    pub made: u64,
    /// How many came from what a CPU kept.
    pub reused: u64,
    /// How often one was reported as used up.
    pub overflows: u64,
}

/// Something is under way that must be finished, until this is dropped: on the CPU on which it was begun.
pub(in super::super) struct Unfinished<'t>(Option<&'t CpuStacks>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(stacks) = self.0 {
            stacks.finish();
        }
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The kernel stacks. Any context; a look at each CPU's.
    pub fn stack_info(&self) -> StackInfo {
        let cpus = (0..MAX_CPUS as u32).filter_map(CpuId::new);
        StackInfo {
            setup: self.stack_setup(),
            interrupts: self.interrupt_setup(),
            used: self.stacks.used.load(Relaxed),
            pages: self.stacks.pages.load(Relaxed),
            kept: cpus.filter_map(|cpu| self.cpu_stacks(cpu)).map(CpuStacks::count).sum(),
            made: self.stacks.made.load(Relaxed),
            reused: self.stacks.reused.load(Relaxed),
            overflows: self.stacks.overflows.load(Relaxed),
        }
    }

    /// What a fault at an address was about, as [`Mm::explain_touch`] says, reported as misuse where it is a
    /// wrong touch of mapped memory: below a stack that is used up, behind an area, in one that was given
    /// back, or of an address for mappings that no area has. `None`, and no report, where it is none of
    /// these: the fault is somebody else's.
    ///
    /// For the platform's handler of faults, which then ends the task where that can be done: code that
    /// holds no lock, has interrupts unmasked and is not pinned is in no structure of the manager's.
    ///
    /// A fault has no call: the report names who made the area, or where this was called.
    ///
    /// # Context
    ///
    /// Any. Cost: a search of the areas.
    #[track_caller]
    pub fn report_touch(&self, address: VirtAddr) -> Option<Touch> {
        let touch = self.explain_touch(address)?;
        let (kind, there, site) = match touch {
            Touch::StackOverflow(AreaInfo { start, pages, caller, .. }, owner, _) => {
                self.count_overflow();
                let there = There::Stack { start, pages, owner, harm: None };
                (MisuseKind::StackOverflow, there, caller)
            }
            Touch::Guard(info, _) | Touch::Freed(info, _) | Touch::BelowFreed(info, _) => {
                let AreaInfo { start, pages, kind, is_going, caller, .. } = info;
                let there = There::Area { start, pages, kind: kind.name(), is_going, caller };
                (MisuseKind::Unmapped, there, caller)
            }
            Touch::NoArea(_) => (MisuseKind::Unmapped, There::Nothing, Location::caller()),
            Touch::Used(..) => return None,
        };
        self.report(&Misuse { kind, passed: Passed::Object(address), there, site });
        if let Touch::StackOverflow(area, ..) = touch {
            self.forgive_canary(area.start);
        }
        Some(touch)
    }

    /// Whether the running CPU is inside what it has of the manager's for itself, its page lists or its
    /// magazines, or at something that must be finished, as the unmapping of areas. Code that is there must not be left where it is. For handlers of faults on a platform
    /// whose [`Cpus::pin`](crate::platform::Cpus::pin) leaves no trace; the manager's locks are taken with
    /// interrupts masked, which shows.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: a look at each cache.
    pub fn is_inside(&self) -> bool {
        let Some(tables) = self.tables() else { return false };
        let pinned = Pinned::new(&self.platform);
        let cpu = pinned.cpu();
        let at_lists = self.is_online(cpu) && self.area(cpu).section.is_entered();
        let unfinished = self.cpu_stacks(cpu).is_some_and(CpuStacks::is_unfinished);
        at_lists || unfinished || self.is_at_magazines(tables, cpu)
    }

    /// Says that what the running code does from here on must be finished, though interrupts are let in:
    /// somebody would wait for it for ever, or memory be lost. A task that strays meanwhile is not ended.
    pub(in super::super) fn unfinished(&self) -> Unfinished<'_> {
        let pinned = Pinned::new(&self.platform);
        let stacks = self.cpu_stacks(pinned.cpu());
        if let Some(stacks) = stacks {
            stacks.begin();
        }
        Unfinished(stacks)
    }

    /// An overflow that met the page below a mapped stack has been reported; that it overwrote the canary on
    /// its way is not to be once more.
    fn forgive_canary(&self, start: VirtAddr) {
        let Some(areas) = self.look_at_areas(start) else { return };
        let area = areas.find(start.get()).map(|area| &area.data);
        // With the lock held, what is in use stays mapped.
        if area.is_some_and(|area| area.kind == AreaKind::Stack && !area.is_going) {
            // SAFETY: the stack is mapped, and the canary is no part of what its code may use.
            unsafe { restore_canary(start.as_ptr()) };
        }
    }

    pub(super) fn count_overflow(&self) {
        self.stacks.overflows.fetch_add(1, Relaxed);
    }

    /// Whose a mapped stack says that it is, by its last frame and the address behind its last page.
    pub(in super::super) fn owner_of_mapped(&self, last: Pfn, end: usize) -> Option<StackOwner> {
        let seen = self.platform.phys_to_virt(last.start(P::PAGE_SHIFT))?;
        let behind = seen.as_ptr::<u8>().wrapping_add(1 << P::PAGE_SHIFT);
        // SAFETY: the direct map has all of the frame.
        unsafe { owner_before(behind, end) }
    }
}

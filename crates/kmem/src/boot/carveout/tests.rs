//! What an NMI handler meets that interrupted the holder of the lock.

use core::fmt;
use std::vec;

use super::{Carveout, CarveoutError};
use crate::platform::desk::Desk;
use crate::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse, MisuseKind};
use crate::{CpuId, PhysAddr, VirtAddr};

/// The desk, as an NMI handler sees it.
struct InNmi<'d, 'r>(&'d Desk<'r>);

// SAFETY: the desk's.
unsafe impl Cpus for InNmi<'_, '_> {
    fn pin(&self) {
        self.0.pin();
    }

    fn unpin(&self) {
        self.0.unpin();
    }

    fn current(&self) -> CpuId {
        self.0.current()
    }

    fn relax(&self) {
        panic!("an nmi handler waits for what it interrupted");
    }
}

// SAFETY: the desk's.
unsafe impl Context for InNmi<'_, '_> {
    type Saved = bool;

    fn mask(&self) -> bool {
        self.0.mask()
    }

    fn restore(&self, saved: bool) {
        self.0.restore(saved);
    }

    fn in_atomic(&self) -> bool {
        true
    }

    fn in_nmi(&self) -> bool {
        true
    }
}

// SAFETY: the desk's.
unsafe impl DirectMap for InNmi<'_, '_> {
    fn base(&self) -> VirtAddr {
        self.0.base()
    }

    fn limit(&self) -> PhysAddr {
        self.0.limit()
    }
}

impl Hooks for InNmi<'_, '_> {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}

    fn misuse(&self, _: &Misuse<'_>) {}
}

/// A256
#[test]
fn an_nmi_handler_that_would_have_to_wait_is_refused() {
    let mut ram = vec![0; 1 << 20];
    // SAFETY: one thread.
    let desk: Desk<'_> = unsafe { Desk::new(&mut ram) };
    let (nmi, area) = (InNmi(&desk), Carveout::new());
    // SAFETY: the RAM is this test's.
    unsafe { area.begin(&desk, PhysAddr::new(0x1000)..PhysAddr::new(0x8000)) }.unwrap();
    let held = area.alloc_memory(&desk, 1, 1).unwrap();
    let lock = area.memory.lock(&desk);
    assert_eq!(area.alloc(&nmi, 1, 1), Err(CarveoutError::Busy));
    assert_eq!(area.usage(&nmi), Err(CarveoutError::Busy));
    // SAFETY: the test's own.
    let refused = unsafe { area.free_memory(&nmi, held) }.unwrap_err();
    assert_eq!(refused.kind, MisuseKind::SleepInAtomic);
    drop(lock);
    assert_eq!(area.usage(&nmi).unwrap().used, 1, "nothing was freed");
    // SAFETY: the test's own.
    assert_eq!(unsafe { area.free_memory(&nmi, held) }.ok(), Some(1));
}

//! The host keeps the contract of a platform.

use std::ops::Range;
use std::sync::Arc;

use kmem::platform::{PageMap, conformance};
use kmem::{CpuId, GFP_KERNEL, PhysAddr};
use kmem_host::{Description, Machine};

fn boot<const SHIFT: u32>(name: &str) -> Arc<Machine<SHIFT>> {
    let mut description = Description::preset(name).unwrap();
    description.set(&format!("page_shift={SHIFT}")).unwrap();
    Machine::boot(&description).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs `check` as a task on each CPU with eight pages of RAM that are its own.
fn with_scratch<const SHIFT: u32>(
    machine: &Machine<SHIFT>,
    check: impl Fn(Range<PhysAddr>) -> Result<(), conformance::Violation>,
) {
    for cpu in machine.all_cpus() {
        machine.run_on(cpu, || {
            let mm = machine.mm();
            let pages = mm.pages(GFP_KERNEL, 3).unwrap();
            let start = mm.page_to_phys(pages.page()).get();
            let scratch = PhysAddr::new(start)..PhysAddr::new(start + (8 << SHIFT));
            check(scratch).unwrap_or_else(|violation| panic!("on cpu {cpu}: {violation}"));
        });
    }
    let end = machine.shutdown();
    assert!(end.is_clean(), "{end}");
}

fn keeps_the_contract<const SHIFT: u32>(name: &str) {
    let machine = boot::<SHIFT>(name);
    let host = machine.host();
    with_scratch(&machine, |scratch| {
        // SAFETY: the scratch pages are the test's.
        unsafe { conformance::check(host, scratch.clone()) }?;
        conformance::check_clock(host)?;
        conformance::check_page_map(host, scratch, host.range().start)
    });
}

#[test]
fn the_host_keeps_the_contract_with_every_page_size() {
    keeps_the_contract::<12>("tiny");
    keeps_the_contract::<13>("numa2");
    keeps_the_contract::<14>("default");
    keeps_the_contract::<16>("default");
}

#[test]
fn the_host_keeps_the_contract_with_high_memory() {
    keeps_the_contract::<12>("lkd-i386");
}

#[test]
fn the_host_keeps_interrupts_back_while_they_are_masked() {
    let machine = boot::<12>("tiny");
    machine.run_on(CpuId::BOOT, || {
        let raise = |handler: &'static (dyn Fn() + Sync)| {
            machine.interrupt(CpuId::BOOT, handler).unwrap();
        };
        conformance::check_interrupts(machine.host(), &raise).unwrap();
    });
}

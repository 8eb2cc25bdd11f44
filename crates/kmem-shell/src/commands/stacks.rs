//! Tasks that go where nothing is mapped, to see them ended.

use alloc::format;
use alloc::string::String;
use core::hint::black_box;

use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::{DirectMap, StackOwner};

use super::mistakes::print_report;
use super::{Command, exactly, print};
use crate::{Failure, OnPurpose, Shell, Sink, System};

pub(super) const fn overflow<S: System>() -> Command<S> {
    Command {
        name: "overflow",
        usage: "overflow stack|area|freed",
        about: "have a task touch what is not mapped, and see it ended: the machine goes on\n\
                stack  a function that calls itself until its kernel stack is used up; as many pages as\n\
                       the machine's have\n\
                area   the byte behind an area of vmalloc\n\
                freed  a byte of one that was given back",
        example: "overflow stack",
        run,
    }
}

fn run<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [what] = exactly(&overflow::<S>(), arguments)?;
    if !["stack", "area", "freed"].contains(&what.as_str()) {
        return Err(Failure::Usage(format!("usage: {}", overflow::<S>().usage)));
    }
    let system = shell.system;
    let mm = system.mm();
    let failed = |error| format!("{error}");
    // A stack as the machine's are, with a page below it in any case: without one nothing stops it.
    let setup = StackSetup::new(mm.stack_info().setup.order(), StackBacking::Mapped);
    let stack = mm.alloc_stack_of(setup, StackOwner::new(1, "overflow")).map_err(failed)?;
    let reports = system.misuses();
    let _on_purpose = OnPurpose::new(system);
    let ended = if what == "stack" {
        system.run_on_stack(&stack, &|| {
            black_box(deeper(0));
        })
    } else {
        let page = 1 << <S::Platform as DirectMap>::PAGE_SHIFT;
        // It goes with the task, however that ends.
        let area = stack.vmalloc(2 * page).map_err(failed)?;
        let offset = if what == "area" { 2 * page } else { page };
        if what == "freed" {
            // SAFETY: it is this task's; the touch that follows is what is wanted.
            unsafe { stack.free(area.as_ptr()) };
            mm.vm_unmap_aliases();
        }
        system.run_on_stack(&stack, &|| {
            // SAFETY: none: nothing is mapped there, and the fault is what is wanted.
            unsafe { area.as_ptr().wrapping_add(offset).write_volatile(0x2a) };
        })
    };
    let found = system.misuses() - reports;
    if ended || found != 1 {
        return Err(Failure::Failed(format!(
            "a task touched what is not mapped: ended {}, reported {found}",
            if ended { "by itself" } else { "by force" }
        )));
    }
    let report = system.last_misuse().unwrap_or_default();
    print_report(system, out, &report)?;
    print(out, format_args!("the task was ended\n"))
}

#[expect(unconditional_recursion, reason = "it is what is wanted")]
fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 16]);
    room[15] + deeper(depth + 1)
}

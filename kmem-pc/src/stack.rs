//! The machine's own stacks, which are kernel stacks of its heap's manager: mapped, with nothing below each.
//!
//! Those of interrupts are made once and stay; a CPU keeps two of tasks' at hand.

use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::StackOwner;
use kmem::vmalloc::AreaKind;
use kmem::{AllocError, AreaInfo, KernelStack, Order, Touch, VirtAddr};

use crate::MM;
use crate::heap::HEAP;
use crate::interrupt;
use crate::paging::PAGE;
use crate::platform::Pc;

/// A stack of the machine's own.
pub type Stack = KernelStack<'static, Pc>;

/// A task's stack: 256 KiB, since acceptance cases keep long lists on theirs.
pub const TASKS: StackSetup = StackSetup::new(order(6), StackBacking::Mapped);

/// That of handlers of one kind.
const HANDLERS: StackSetup =
    StackSetup::new(order((interrupt::STACK / PAGE as usize).ilog2()), StackBacking::Mapped);

const fn order(order: u32) -> Order {
    match Order::new(order) {
        Some(order) => order,
        None => Order::ZERO,
    }
}

/// A stack for a task, or for a CPU's idle loop.
///
/// # Errors
///
/// There is no memory for it.
pub fn of_task(number: u32, name: &str) -> Result<Stack, AllocError> {
    HEAP.alloc_stack(StackOwner::new(number, name))
}

/// A stack for a CPU's handlers of one kind. It stays.
///
/// # Errors
///
/// There is no memory for it.
pub fn of_handlers(cpu: u32) -> Result<Stack, AllocError> {
    HEAP.alloc_stack_of(HANDLERS, StackOwner::new(cpu, "handlers"))
}

/// What an address for mappings is, of either manager. Any context.
pub fn touched(address: usize) -> Option<Touch> {
    let address = VirtAddr::new(address);
    MM.explain_touch(address).or_else(|| HEAP.explain_touch(address))
}

/// The stack that an address is in, if it is in one.
pub fn holding(address: usize) -> Option<AreaInfo> {
    match touched(address) {
        Some(Touch::Used(info, _)) if info.kind == AreaKind::Stack => Some(info),
        _ => None,
    }
}

/// Whether an address is below a stack.
pub fn is_below_one(address: usize) -> bool {
    matches!(touched(address), Some(Touch::StackOverflow(..)))
}

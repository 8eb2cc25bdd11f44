//! The machine's own stacks, which are kernel stacks of its heap's manager: mapped, with nothing below each.
//!
//! Those of handlers are made once and stay; a CPU keeps two of tasks' at hand. The one on which interrupts are
//! handled is what the other manager, the kernel's, has for that.

use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::StackOwner;
use kmem::vmalloc::AreaKind;
use kmem::{AllocError, AreaInfo, CpuId, KernelStack, Order, Touch, VirtAddr};

use crate::MM;
use crate::heap::HEAP;
use crate::interrupt::{self, STACKS};
use crate::paging::PAGE;
use crate::platform::Pc;

/// A stack of the machine's own.
pub type Stack = KernelStack<'static, Pc>;

/// A task's stack: 256 KiB, since acceptance cases keep long lists on theirs.
pub const TASKS: StackSetup = StackSetup::new(order(6), StackBacking::Mapped);

/// How large a stack of handlers is.
pub const OF_HANDLERS: Order = order((interrupt::STACK / PAGE as usize).ilog2());

/// That of handlers of one kind.
const HANDLERS: StackSetup = StackSetup::new(OF_HANDLERS, StackBacking::Mapped);

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

/// The stacks of a CPU's handlers.
pub struct Handlers {
    /// The first address behind the one of interrupts.
    interrupts: VirtAddr,
    /// Those of faults and NMIs, the second and on.
    others: [Stack; STACKS - 1],
}

impl Handlers {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new(cpu: CpuId) -> Result<Handlers, AllocError> {
        let mut others = [const { None }; STACKS - 1];
        for stack in &mut others {
            let owner = StackOwner::new(cpu.get(), "handlers");
            *stack = Some(HEAP.alloc_stack_of(HANDLERS, owner)?);
        }
        // All are there.
        let others = others.map(|stack| stack.unwrap_or_else(|| unreachable!()));
        Ok(Handlers { interrupts: MM.interrupt_stack(cpu)?.end, others })
    }

    /// The first addresses behind them, in their order.
    pub fn tops(&self) -> [usize; STACKS] {
        core::array::from_fn(|index| match index.checked_sub(1) {
            None => self.interrupts.get(),
            Some(index) => self.others[index].top().get(),
        })
    }
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

//! What kernel stacks are like on a machine.

use crate::Order;

/// Where the pages of a stack come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackBacking {
    /// One block of pages, seen in the direct map: memory of somebody else lies below it (A266, A267).
    Pages,
    /// Pages wherever they are, mapped side by side, and below and above them a page that nothing is mapped
    /// at. The platform must be able to map pages.
    Mapped,
}

/// What kernel stacks are like: how large, of what, and whether it is measured how much of one is used.
///
/// The kernels of the texts have two pages (A261), or one where they were built so (A262); today's have
/// four. A machine whose tasks run code that was written for a process wants more.
///
/// ```
/// use kmem::boot::{StackBacking, StackSetup};
/// use kmem::{Order, Setup};
/// const OLD: StackSetup = StackSetup::new(Order::new(1).unwrap(), StackBacking::Pages);
/// assert_eq!(OLD, StackSetup::CLASSIC);
/// const SETUP: Setup = Setup::new().stacks(StackSetup::MODERN.measured(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSetup {
    pub(crate) order: Order,
    pub(crate) backing: StackBacking,
    pub(crate) measured: bool,
}

/// The order of the largest stacks.
pub(crate) const LARGEST_STACK: u32 = 6;

impl StackSetup {
    /// Four pages, mapped: 16 KiB with pages of 4 KiB, as x86-64 has today (A261).
    pub const MODERN: StackSetup = StackSetup::new(Order::from_raw(2), StackBacking::Mapped);

    /// Two pages in a row: 8 KiB with pages of 4 KiB, 16 KiB with pages of 8 KiB (A261).
    pub const CLASSIC: StackSetup = StackSetup::new(Order::from_raw(1), StackBacking::Pages);

    /// A single page (A262). Interrupt handlers need stacks of their own then (A263).
    pub const SMALL: StackSetup = StackSetup::new(Order::ZERO, StackBacking::Pages);

    /// Stacks of `2^order` pages, which are not measured. Orders above 6 are refused where they are used.
    pub const fn new(order: Order, backing: StackBacking) -> StackSetup {
        StackSetup { order, backing, measured: false }
    }

    /// Whether stacks are painted before they are used, so that the most that was used can be told
    /// ([`KernelStack::most_used`](crate::KernelStack::most_used)). It costs a write of each word that was
    /// used before.
    pub const fn measured(mut self, yes: bool) -> StackSetup {
        self.measured = yes;
        self
    }

    /// The base-two logarithm of the number of pages.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Where the pages come from.
    pub const fn backing(&self) -> StackBacking {
        self.backing
    }

    /// Whether stacks are painted.
    pub const fn is_measured(&self) -> bool {
        self.measured
    }
}

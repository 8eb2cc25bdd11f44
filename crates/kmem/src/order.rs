//! The size of a block: the base-two logarithm of its number of pages (A055).

use core::fmt;

/// The order of a block: it has `2^order` pages (A055, A056, A059).
///
/// # Invariants
///
/// At most [`Order::LIMIT`], so that tables indexed by it may have a fixed size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Order(u8);

impl Order {
    /// A single page.
    pub const ZERO: Order = Order(0);

    /// The largest order any machine may be configured to have: 32,768 pages, 128 MiB at 4 KiB.
    /// What a given machine has is a setting, 10 by default (A058).
    pub const LIMIT: Order = Order(15);

    /// How many orders there can be; the length of a table indexed by order.
    pub const COUNT: usize = Self::LIMIT.0 as usize + 1;

    /// The order with this value, or `None` above [`Order::LIMIT`].
    #[inline]
    pub const fn new(order: u32) -> Option<Order> {
        if order <= Self::LIMIT.0 as u32 { Some(Order(order as u8)) } else { None }
    }

    /// The order with a value that is known to be at most [`Order::LIMIT`].
    #[inline]
    pub(crate) const fn from_raw(order: u8) -> Order {
        debug_assert!(order <= Self::LIMIT.0);
        Order(order)
    }

    /// The order as a number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The order as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// How many pages a block of this order has: `2^order`.
    #[inline]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}", self.0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The smallest order whose block holds `size` bytes (A057): `get_order(4097, 12)` is 1.
///
/// `size` 0 gives 0: there is no smaller block. The texts ask for a power of two; any size does.
/// The result may be larger than a machine's largest order: then the allocation fails.
///
/// ```
/// # use kmem::get_order;
/// assert_eq!([1, 4096, 4097, 8192].map(|size| get_order(size, 12)), [0, 0, 1, 1]);
/// ```
#[inline]
pub const fn get_order(size: usize, page_shift: u32) -> u32 {
    if size <= 1 {
        return 0;
    }
    let pages_less_one = (size - 1) >> page_shift;
    usize::BITS - pages_less_one.leading_zeros()
}

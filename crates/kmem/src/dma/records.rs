//! What a device has been given, found by the address that it was told.
//!
//! ```text
//!   heads   [ 0 ][ 1 ][ 2 ] ... [ 63 ]         by a hash of the address
//!             |         |
//!            node ─> node                      the latest first
//! ```
//!
//! One address may be there more than once: a buffer can be mapped by two users at a time, to be read by
//! the device.

use core::panic::Location;
use core::ptr::NonNull;

use super::Direction;
use crate::PhysAddr;

/// How many chains there are. Rings of network devices have some hundred buffers each: a few to a chain.
const CHAINS: usize = 64;

/// What a device has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The address that it was told.
    pub(crate) address: u64,
    /// How many bytes.
    pub(crate) size: usize,
    pub(crate) what: What,
    /// Who gave it.
    pub(crate) caller: &'static Location<'static>,
}

/// As what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Both use it at any time.
    Coherent,
    /// One of both has it at a time.
    Stream {
        direction: Direction,
        /// The memory that a slot stands in for, and the slot.
        bounced: Option<(PhysAddr, usize)>,
    },
}

impl Record {
    /// What reports call it.
    pub(crate) fn name(&self) -> &'static str {
        match self.what {
            What::Coherent => "coherent",
            What::Stream { direction, .. } => direction.name(),
        }
    }
}

/// What a record is kept in.
pub(crate) struct Node {
    record: Record,
    next: Option<Place>,
}

/// The memory for a record.
pub(crate) type Place = NonNull<Node>;

/// What there is at an address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// What was looked for.
    This(T),
    /// Something else.
    Other(Record),
    /// Nothing.
    Nothing,
}

/// All that a device has been given.
///
/// # Invariants
///
/// The chains lead to `count` nodes, each in one of them: that of its record's address. They are this
/// value's alone.
pub(crate) struct Records {
    heads: [Option<Place>; CHAINS],
    count: usize,
}

// SAFETY: the nodes are this value's alone.
unsafe impl Send for Records {}

impl Records {
    pub(crate) const fn new() -> Records {
        Records { heads: [None; CHAINS], count: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds a record.
    ///
    /// # Safety
    ///
    /// `place` is memory for it until [`Records::remove`] answers it, and nobody else uses it.
    pub(crate) unsafe fn insert(&mut self, record: Record, place: Place) {
        let head = &mut self.heads[chain_of(record.address)];
        // SAFETY: the caller's promise.
        unsafe { place.write(Node { record, next: *head }) };
        *head = Some(place);
        self.count += 1;
    }

    /// The latest record of an address that is wanted, or one that is not.
    pub(crate) fn find(&self, address: u64, is_wanted: impl Fn(&Record) -> bool) -> Found<Record> {
        let (mut at, mut other) = (self.heads[chain_of(address)], Found::Nothing);
        while let Some(node) = at {
            // SAFETY: the invariant.
            let Node { record, next } = unsafe { node.as_ref() };
            if record.address == address {
                if is_wanted(record) {
                    return Found::This(*record);
                }
                other = Found::Other(*record);
            }
            at = *next;
        }
        other
    }

    /// Takes such a record out; answers it and the memory that it was kept in.
    pub(crate) fn remove(
        &mut self,
        address: u64,
        is_wanted: impl Fn(&Record) -> bool,
    ) -> Found<(Record, Place)> {
        let mut link = &mut self.heads[chain_of(address)];
        let mut other = Found::Nothing;
        while let Some(mut node) = *link {
            // SAFETY: the invariant; nobody else looks while this is borrowed mutably.
            let Node { record, next } = unsafe { node.as_mut() };
            if record.address == address {
                if is_wanted(record) {
                    *link = *next;
                    self.count -= 1;
                    return Found::This((*record, node));
                }
                other = Found::Other(*record);
            }
            link = next;
        }
        other
    }

    /// One of them.
    pub(crate) fn any(&self) -> Option<Record> {
        // SAFETY: the invariant.
        self.heads.iter().flatten().next().map(|node| unsafe { node.as_ref() }.record)
    }
}

/// The chain of an address.
fn chain_of(address: u64) -> usize {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the address, of which the low
    // ones are the same for most.
    let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (u64::BITS - CHAINS.ilog2())) as usize
}

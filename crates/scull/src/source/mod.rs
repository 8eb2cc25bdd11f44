//! Where quanta come from: the one thing in which the kinds of modules differ.

mod scull;
mod scullc;
mod scullp;
mod scullv;

use core::ptr::NonNull;

use kmem::{AllocError, Mm, Page, Platform, Reclaim};

use crate::{Parameters, ScullError};

pub use scull::Kmalloc;
pub use scullc::SlabCache;
pub use scullp::Pages;
pub use scullv::Areas;

/// What is said of a kind of module before one is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The module's name; with a number behind it, a device's.
    pub name: &'static str,
    /// The parameter that says how large a quantum is: `quantum`, in bytes, or `order`.
    pub size: &'static str,
    /// What `/proc` calls it: the texts' modules have a word each.
    pub label: &'static str,
    /// Whether that parameter may be changed while the module is loaded.
    pub resizable: bool,
    /// The parameters where nobody says anything.
    pub defaults: Parameters,
}

impl Kind {
    /// Whether a parameter may be changed while the module is loaded. The number of quanta in a set
    /// may in all kinds: a device takes it over when it is empty.
    pub fn may_change(&self, parameter: &str) -> bool {
        parameter == "qset" || parameter == self.size && self.resizable
    }
}

/// Where a module has its quanta from, all of one size.
///
/// # Safety
///
/// What [`Source::allocate`] hands out has [`Source::bytes`] bytes, a number that does not change,
/// and is used by nothing else until [`Source::free`].
pub unsafe trait Source: Copy + Send + Sync + 'static {
    /// The kind of module that it makes.
    const KIND: Kind;

    /// Gets ready to hand out quanta of a size: bytes, or an order, as [`Kind::size`] says.
    ///
    /// Of a [resizable](Kind::resizable) kind several may be there at a time.
    ///
    /// # Errors
    ///
    /// There are no such quanta, or there is no memory.
    fn new<P: Platform, R: Reclaim>(mm: &Mm<P, R>, size: u64) -> Result<Self, ScullError>;

    /// The size that it was made with.
    fn size(&self) -> u64;

    /// The bytes of a quantum.
    fn bytes(&self) -> usize;

    /// Allocates a quantum. Its bytes are what the last user left. May sleep.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn allocate<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>) -> Result<NonNull<u8>, AllocError>;

    /// Whether its quanta are pages that a user may have in their address space (A312).
    fn is_mappable(&self) -> bool {
        false
    }

    /// The page that a byte of a quantum is in, of a source that is [mappable](Source::is_mappable).
    fn page<P: Platform, R: Reclaim>(
        &self,
        mm: &Mm<P, R>,
        quantum: NonNull<u8>,
        offset: usize,
    ) -> Option<Page> {
        let _ = (mm, quantum, offset);
        None
    }

    /// Gives a quantum back.
    ///
    /// # Safety
    ///
    /// It was allocated here with this manager, and nothing uses it any more.
    unsafe fn free<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>, quantum: NonNull<u8>);

    /// Ends it, where there is something to end.
    ///
    /// # Safety
    ///
    /// All quanta are given back, and no copy of this is used any more.
    unsafe fn close<P: Platform, R: Reclaim>(self, _mm: &Mm<P, R>) {}
}

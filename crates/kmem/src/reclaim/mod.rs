//! What the allocator asks of reclaim when memory is low.
//!
//! The page allocator calls reclaim, and reclaim frees and allocates pages: the true cycle of every
//! kernel. It is cut here by traits that this folder names: [`Reclaim`] is what the slow path calls,
//! [`PageSource`] what a reclaimer is given to free into, and [`Shrinker`] what keeps memory that it
//! can do without, such as the slab layer's caches. `mm/` supplies the last two and calls the first,
//! in one file.
//!
//! # Rules for a reclaimer
//!
//! * [`Reclaim::reclaim`] runs in the context of the allocating task, with no lock of the manager
//!   held. It may sleep. It is never called from atomic context.
//! * It frees through the [`PageSource`] it is given, or through anything that ends there.
//! * It does no I/O without `__GFP_IO` in the request's flags, and calls no filesystem without
//!   `__GFP_FS` (A141).
//! * It may allocate only with `__GFP_MEMALLOC`; the slow path does not call it for such requests,
//!   so the recursion ends.
//!
//! Before it calls the reclaimer the slow path has the slab layer give back what no object is in
//! (A168, A216): that costs nobody anything.
//!
//! Linux: `try_to_free_pages`, `wakeup_kswapd` and `struct shrinker`.

use crate::page::Page;
use crate::{Gfp, Order};

/// Where a reclaimer frees to, and what it can ask.
pub trait PageSource {
    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nothing uses it any more.
    unsafe fn free_pages(&self, page: Page, order: u32);

    /// How many pages are free, per-CPU lists included.
    fn free_page_count(&self) -> u64;

    /// The slab layer's caches.
    fn caches(&self) -> &dyn Shrinker;
}

/// What keeps memory that it can do without.
pub trait Shrinker {
    /// About how many pages [`Shrinker::shrink`] would give back now. Any context but NMI.
    fn count(&self) -> u64;

    /// Gives about so many pages back, or as many as there are, and answers how many. It does not
    /// allocate and does not sleep. Any context but NMI.
    fn shrink(&self, pages: u64) -> u64;
}

/// What an allocation that found no memory asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimRequest {
    /// The flags of the allocation.
    pub gfp: Gfp,
    /// Its order.
    pub order: Order,
    /// How many times reclaim has been called for it before.
    pub attempt: u32,
}

/// Frees memory when there is too little.
pub trait Reclaim: Sync {
    /// Frees memory for a request and answers how many pages. May sleep, and allocate with
    /// [`Gfp::MEMALLOC`] alone: any other request that needs memory would come back here.
    fn reclaim(&self, pages: &dyn PageSource, request: &ReclaimRequest) -> u64;

    /// Gets reclaim going in the background. Any context; does not sleep, and does not allocate: it is
    /// called from inside an allocation.
    fn wake_background(&self, request: &ReclaimRequest);
}

/// Frees nothing: for a kernel that has nothing to give back. Its allocations fail when memory is
/// out (A302).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReclaim;

impl Reclaim for NoReclaim {
    #[inline]
    fn reclaim(&self, _: &dyn PageSource, _: &ReclaimRequest) -> u64 {
        0
    }

    #[inline]
    fn wake_background(&self, _: &ReclaimRequest) {}
}

//! A reclaimer that frees what a case hands it, when the case says.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kmem::{Gfp, Page, PageSource, Reclaim, ReclaimRequest};

/// How many blocks it holds at most.
const BLOCKS: usize = 64;
/// How many requests it remembers.
const REQUESTS: usize = 32;

/// A reclaimer that frees what a case hands it.
///
/// Until [`FreeOnDemand::supply`] it has nothing, like a kernel without caches or swap. From the
/// call that [`FreeOnDemand::answer_from`] names on, each call frees one block. It counts and
/// remembers what it is asked.
pub struct FreeOnDemand {
    locked: AtomicBool,
    state: UnsafeCell<State>,
    // Wakes come in any context, interrupt handlers included, which must not wait for the lock.
    wakes: AtomicU64,
    last_wake: AtomicU32,
}

struct State {
    blocks: [Option<(Page, u32)>; BLOCKS],
    count: usize,
    calls: u64,
    answer_from: u64,
    requests: [Option<ReclaimRequest>; REQUESTS],
}

// SAFETY: the state is reached by `with` alone, which lets in one at a time.
unsafe impl Sync for FreeOnDemand {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for FreeOnDemand {}

impl FreeOnDemand {
    /// A reclaimer that has nothing.
    pub const fn new() -> FreeOnDemand {
        FreeOnDemand {
            locked: AtomicBool::new(false),
            state: UnsafeCell::new(State {
                blocks: [None; BLOCKS],
                count: 0,
                calls: 0,
                answer_from: 0,
                requests: [None; REQUESTS],
            }),
            wakes: AtomicU64::new(0),
            last_wake: AtomicU32::new(0),
        }
    }

    /// Tasks call this, one at a time on most machines; they never sleep inside.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Acquire pairs with the Release below: the state is seen as the last one left it.
        while self.locked.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        // SAFETY: `locked` was false and is true: nobody else is here.
        let result = work(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// Hands it a block to free. `false` where it is full.
    ///
    /// # Safety
    ///
    /// The block is in use with this order, is the caller's, and nothing uses it afterwards.
    #[must_use]
    pub unsafe fn supply(&self, page: Page, order: u32) -> bool {
        self.with(|state| {
            let Some(place) = state.blocks.get_mut(state.count) else { return false };
            *place = Some((page, order));
            state.count += 1;
            true
        })
    }

    /// Takes a block back that it has not freed.
    pub fn withdraw(&self) -> Option<(Page, u32)> {
        self.with(State::pop)
    }

    /// Forgets what it was asked, and frees something from the call with this number on, counted
    /// from 0.
    pub fn answer_from(&self, call: u64) {
        self.with(|state| {
            state.calls = 0;
            state.answer_from = call;
            state.requests = [None; REQUESTS];
        });
        self.wakes.store(0, Ordering::Relaxed);
        self.last_wake.store(0, Ordering::Relaxed);
    }

    /// How often it was called since [`FreeOnDemand::answer_from`].
    pub fn calls(&self) -> u64 {
        self.with(|state| state.calls)
    }

    /// What it was asked at a call. The first few are remembered.
    pub fn request(&self, call: usize) -> Option<ReclaimRequest> {
        self.with(|state| state.requests.get(call).copied().flatten())
    }

    /// How often background reclaim was woken since [`FreeOnDemand::answer_from`].
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// The flags that background reclaim was woken with last.
    pub fn last_wake(&self) -> u32 {
        self.last_wake.load(Ordering::Relaxed)
    }
}

impl State {
    fn pop(&mut self) -> Option<(Page, u32)> {
        self.count = self.count.checked_sub(1)?;
        self.blocks[self.count].take()
    }
}

impl Default for FreeOnDemand {
    fn default() -> Self {
        Self::new()
    }
}

impl Reclaim for FreeOnDemand {
    fn reclaim(&self, pages: &dyn PageSource, request: &ReclaimRequest) -> u64 {
        let block = self.with(|state| {
            let call = state.calls;
            state.calls += 1;
            if let Some(place) = state.requests.get_mut(call as usize) {
                *place = Some(*request);
            }
            if call >= state.answer_from { state.pop() } else { None }
        });
        match block {
            Some((page, order)) => {
                // SAFETY: by the promise of whoever supplied it.
                unsafe { pages.free_pages(page, order) };
                1 << order
            }
            None => 0,
        }
    }

    fn wake_background(&self, request: &ReclaimRequest) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.last_wake.store(Gfp::bits(request.gfp), Ordering::Relaxed);
    }
}

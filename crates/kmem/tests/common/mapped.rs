//! A platform with page tables that are kept in a book, and a direct map that does not reach all RAM.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use kmem::platform::{
    Caching, Context, Cpus, DirectMap, Hooks, Level, Misuse, PageMap, PageMapError, TemporaryMap,
    Unflushed,
};
use kmem::{CpuId, Pfn, PhysAddr, VirtAddr};

use super::{CPU, Rig};

/// Where pages are mapped: addresses that nobody touches.
pub const WINDOW: Range<usize> = 0x7000_0000..0x7000_0000 + (64 << 12);

/// A [`Rig`] whose direct map ends at 8 MiB, with page tables that are kept in a book.
pub struct MapRig {
    pub rig: Rig,
    pub book: Mutex<Book>,
    pub has_tables: bool,
    /// How many more calls of `PageMap::map` succeed.
    pub left: AtomicU64,
    /// Whether a flush makes room for as many as ever.
    pub refill: AtomicBool,
    pub flushes: AtomicU64,
    /// What another CPU does while this one writes an entry.
    pub meanwhile: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// The same while this one has all CPUs forget something.
    pub in_flush: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

#[derive(Default)]
pub struct Book {
    pub mapped: BTreeMap<usize, u64>,
    /// Unmapped, and perhaps still in some CPU's buffer.
    pub stale: BTreeSet<usize>,
}

impl MapRig {
    pub fn new(has_tables: bool) -> MapRig {
        MapRig {
            rig: Rig::with_direct(16 << 20, 8 << 20),
            book: Mutex::default(),
            has_tables,
            left: AtomicU64::new(u64::MAX),
            refill: AtomicBool::new(false),
            flushes: AtomicU64::new(0),
            meanwhile: Mutex::new(None),
            in_flush: Mutex::new(None),
        }
    }

    /// The frame that the page tables have at an address.
    pub fn frame_at(&self, address: VirtAddr) -> Option<u64> {
        self.book.lock().unwrap().mapped.get(&address.get()).copied()
    }
}

// SAFETY: as the rig's.
unsafe impl Cpus for MapRig {
    fn pin(&self) {
        self.rig.pin();
    }
    fn unpin(&self) {
        self.rig.unpin();
    }
    fn current(&self) -> CpuId {
        self.rig.current()
    }
    fn relax(&self) {
        self.rig.relax();
    }
}

// SAFETY: as the rig's.
unsafe impl Context for MapRig {
    type Saved = bool;
    fn mask(&self) -> bool {
        self.rig.mask()
    }
    fn restore(&self, saved: bool) {
        self.rig.restore(saved);
    }
    fn in_atomic(&self) -> bool {
        self.rig.in_atomic()
    }
    fn in_nmi(&self) -> bool {
        self.rig.in_nmi()
    }
}

// SAFETY: as the rig's.
unsafe impl DirectMap for MapRig {
    fn base(&self) -> VirtAddr {
        self.rig.base()
    }
    fn limit(&self) -> PhysAddr {
        self.rig.limit()
    }
    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        self.rig.temporary_map()
    }
    fn page_map(&self) -> Option<&dyn PageMap> {
        if self.has_tables { Some(self) } else { None }
    }
}

// SAFETY: nothing is mapped for real, and the tests touch none of it.
unsafe impl PageMap for MapRig {
    fn range(&self) -> Range<VirtAddr> {
        VirtAddr::new(WINDOW.start)..VirtAddr::new(WINDOW.end)
    }

    unsafe fn map(
        &self,
        address: VirtAddr,
        first: Pfn,
        count: usize,
        _: Caching,
    ) -> Result<(), PageMapError> {
        assert!(!CPU.with(|cpu| cpu.in_atomic()), "a table is written with a lock held");
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(mut meanwhile) = meanwhile {
            meanwhile();
        }
        let more = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        more.map_err(|_| PageMapError::NoTables)?;
        let mut book = self.book.lock().unwrap();
        for page in 0..count {
            let at = address.get() + (page << 12);
            assert!(WINDOW.contains(&at) && !book.stale.contains(&at), "{at:#x} is not flushed");
            let before = book.mapped.insert(at, first.number() + page as u64);
            assert_eq!(before, None, "{at:#x} is mapped");
        }
        Ok(())
    }

    unsafe fn unmap(&self, address: VirtAddr, count: usize) -> Unflushed {
        let mut book = self.book.lock().unwrap();
        // Areas that lie side by side are unmapped with the pages between them.
        let gone = (0..count).map(|page| address.get() + (page << 12));
        let gone: Vec<_> = gone.filter(|at| book.mapped.remove(at).is_some()).collect();
        assert!(gone.first() == Some(&address.get()), "{address} is not mapped");
        book.stale.extend(gone);
        Unflushed::new(address..VirtAddr::new(address.get() + (count << 12)))
    }

    fn flush(&self, pages: Unflushed) {
        assert!(!CPU.with(|cpu| cpu.in_atomic()), "a flush with a lock held");
        self.flushes.fetch_add(1, SeqCst);
        let in_flush = self.in_flush.lock().unwrap().take();
        if let Some(mut in_flush) = in_flush {
            in_flush();
        }
        if self.refill.load(SeqCst) {
            self.left.store(u64::MAX, SeqCst);
        }
        let range = pages.pages().start.get()..pages.pages().end.get();
        self.book.lock().unwrap().stale.retain(|at| !range.contains(at));
    }
}

impl Hooks for MapRig {
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self.rig.log(level, message);
    }
    fn misuse(&self, report: &Misuse<'_>) {
        self.rig.misuse(report);
    }
}

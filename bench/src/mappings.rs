//! The rows of mappings: memory that is contiguous as addresses only, what each CPU has its own of, high
//! memory, and booting large machines.
//!
//! Two columns: kmem over page tables that are left out, which is its own part, and hosted, with the host's
//! system calls.

use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use kmem::platform::desk::Desk;
use kmem::platform::{
    Caching, Context, Cpus, DirectMap, Hooks, Level, Misuse, PageMap, PageMapError, TemporaryMap,
    Unflushed,
};
use kmem::{
    CpuId, GFP_KERNEL, Gfp, MemoryMap, Mm, NodeId, Page, Pfn, PhysAddr, Platform, Reclaim, Setup,
    VirtAddr,
};
use kmem_host::{Description, Machine};
use rustix::mm::{MapFlags, ProtFlags};

use crate::measure::{Plan, nanoseconds};
use crate::rows::{Counts, Row};
use crate::subjects::{Ram, description};

/// What a row of mappings does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// An area of so many pages is allocated and freed, again and again.
    Area {
        /// Its pages.
        pages: usize,
    },
    /// [`AREAS`] of them are allocated, then freed: none is used again as it is.
    Areas {
        /// Pages of each.
        pages: usize,
    },
    /// Eight bytes for each CPU are allocated and freed.
    PerCpu,
    /// A page of the direct map is mapped by `kmap` and unmapped.
    KmapLow,
    /// A page of high memory, which stays mapped in between.
    KmapHigh,
    /// The same with `kmap_local_page`, which maps it each time.
    KmapLocal,
    /// A machine with so much RAM boots.
    Boot {
        /// In GiB.
        gib: u64,
    },
}

const fn area(name: &'static str, pages: usize, goal: f64, linux: f64) -> Row<Work> {
    let (work, counts) = (Work::Area { pages }, Counts::Least);
    Row { name, work, unit: "ns", goal, linux: Some(linux), counts }
}

const fn time(name: &'static str, work: Work, goal: f64, linux: Option<f64>) -> Row<Work> {
    Row { name, work, unit: "ns", goal, linux, counts: Counts::Least }
}

const fn boot(name: &'static str, gib: u64) -> Row<Work> {
    let (work, counts) = (Work::Boot { gib }, Counts::Least);
    Row { name, work, unit: "ns/page", goal: 5.0, linux: Some(27.0), counts }
}

/// All rows of mappings. Linux's figures of areas are without its page tables too. Its 64-bit machines have
/// no high memory: the goals of kmap are what a spin lock and a hash, or two stores, should cost.
pub const ROWS: [Row<Work>; 11] = [
    area("vmalloc 1 page", 1, 100.0, 413.0),
    area("vmalloc 4 pages", 4, 150.0, 586.0),
    area("vmalloc 16 pages", 16, 350.0, 1336.0),
    area("vmalloc 256 pages", 256, 4000.0, 16326.0),
    time("vmalloc 4 pages fifo", Work::Areas { pages: 4 }, 150.0, Some(586.0)),
    time("percpu 8 bytes", Work::PerCpu, 40.0, Some(165.0)),
    time("kmap low page", Work::KmapLow, 5.0, None),
    time("kmap high page", Work::KmapHigh, 40.0, None),
    time("kmap_local high page", Work::KmapLocal, 15.0, None),
    boot("boot 1 GiB", 1),
    boot("boot 16 GiB", 16),
];

/// The subjects, in the order of the table's columns.
pub const NAMES: [&str; 2] = ["tables left out", "host"];

/// Areas that the row of many holds at once.
const AREAS: usize = 1000;

/// RAM of the machines on which areas are made.
const RAM: u64 = 512 << 20;

/// Where it is high memory from.
const LOW: u64 = 384 << 20;

/// A desk with addresses for mappings that lead nowhere: page tables that cost nothing.
struct Untabled<'r>(Desk<'r>);

/// Addresses that nobody has: below them a process of the host has its own.
const NOWHERE: Range<usize> = 0xffff_9000_0000_0000..0xffff_a000_0000_0000;

// SAFETY: the desk's.
unsafe impl Cpus for Untabled<'_> {
    #[inline]
    fn pin(&self) {
        self.0.pin();
    }

    #[inline]
    fn unpin(&self) {
        self.0.unpin();
    }

    #[inline]
    fn current(&self) -> CpuId {
        self.0.current()
    }
}

// SAFETY: the desk's.
unsafe impl Context for Untabled<'_> {
    type Saved = bool;

    #[inline]
    fn mask(&self) -> bool {
        self.0.mask()
    }

    #[inline]
    fn restore(&self, saved: bool) {
        self.0.restore(saved);
    }

    #[inline]
    fn in_atomic(&self) -> bool {
        self.0.in_atomic()
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        self.0.in_nmi()
    }
}

// SAFETY: the desk's.
unsafe impl DirectMap for Untabled<'_> {
    #[inline]
    fn base(&self) -> VirtAddr {
        self.0.base()
    }

    #[inline]
    fn limit(&self) -> PhysAddr {
        PhysAddr::new(LOW)
    }

    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        Some(self)
    }

    fn page_map(&self) -> Option<&dyn PageMap> {
        Some(self)
    }
}

impl Hooks for Untabled<'_> {
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self.0.log(level, message);
    }

    fn misuse(&self, report: &Misuse<'_>) {
        self.0.misuse(report);
    }
}

// SAFETY: nothing is read or written at these addresses.
unsafe impl PageMap for Untabled<'_> {
    fn range(&self) -> Range<VirtAddr> {
        VirtAddr::new(NOWHERE.start)..VirtAddr::new(NOWHERE.end)
    }

    unsafe fn map(
        &self,
        address: VirtAddr,
        first: Pfn,
        count: usize,
        _: Caching,
    ) -> Result<(), PageMapError> {
        black_box((address, first, count));
        Ok(())
    }

    unsafe fn unmap(&self, address: VirtAddr, count: usize) -> Unflushed {
        Unflushed::new(address..VirtAddr::new(address.get() + (count << 12)))
    }

    fn flush(&self, pages: Unflushed) {
        drop(black_box(pages));
    }
}

// SAFETY: all RAM is the desk's, in one piece: a frame is where its physical address says.
unsafe impl TemporaryMap for Untabled<'_> {
    fn map(&self, frame: Pfn, _: usize) -> VirtAddr {
        self.0.pin();
        VirtAddr::new(self.0.base().get() + frame.start(12).get() as usize)
    }

    unsafe fn unmap(&self, _: VirtAddr, _: usize) {
        self.0.unpin();
    }
}

/// All that is measured, booted.
pub struct MappingSubjects<'r> {
    untabled: Mm<Untabled<'r>>,
    host: Arc<Machine>,
}

impl<'r> MappingSubjects<'r> {
    /// Boots them.
    pub fn boot(ram: &'r mut Ram) -> Result<Self, Box<dyn Error>> {
        let untabled = Mm::new(Untabled(crate::subjects::desk(ram)));
        let setup = Setup::new().cpus(2);
        // SAFETY: the RAM is the desk's, which is this manager's alone.
        unsafe { untabled.boot(&MemoryMap::new().ram(0..RAM, NodeId::ZERO), &setup) }?;
        let host = Description { direct_map_limit: Some(LOW), ..description(RAM) };
        Ok(MappingSubjects { untabled, host: Machine::boot(&host)? })
    }

    /// Memory for the desk.
    pub fn ram() -> Ram {
        Ram::new(RAM)
    }

    /// One round of a row: the values of each subject.
    pub fn measure(&self, row: &Row<Work>, plan: &Plan) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
        match row.work {
            Work::Boot { gib } => boots(gib << 30, plan),
            work => Ok([
                times(&self.untabled, work, plan),
                self.host.run_on(CpuId::BOOT, || times(self.host.mm(), work, plan)),
            ]),
        }
    }

    /// Whether both are in order.
    pub fn check(&self) -> Result<(), String> {
        let host = self.host.shutdown();
        if !host.is_clean() || host.misuse_count != 0 {
            return Err(format!("the hosted machine was not left in order: {host}"));
        }
        self.untabled.vm_unmap_aliases();
        self.untabled.verify().map_err(|found| format!("areas left pages in disorder: {found}"))
    }
}

/// Nanoseconds for what is got and given back.
fn times<P: Platform, R: Reclaim>(mm: &Mm<P, R>, work: Work, plan: &Plan) -> Vec<f64> {
    match work {
        Work::Area { pages } => areas(mm, pages, plan),
        Work::Areas { pages } => many_areas(mm, pages, plan),
        Work::PerCpu => per_cpu(mm, plan),
        Work::KmapLow | Work::KmapHigh => with_page(mm, work != Work::KmapLow, |page| {
            plan.short(|| {
                let at = black_box(mm.kmap(black_box(page))).expect("a slot is free");
                black_box(at);
                // SAFETY: just mapped.
                unsafe { mm.kunmap(page) };
            })
        }),
        Work::KmapLocal => with_page(mm, true, |page| {
            plan.short(|| {
                let at = black_box(mm.kmap_local_page(black_box(page))).expect("a slot is free");
                // SAFETY: just mapped.
                unsafe { mm.kunmap_local(at) };
            })
        }),
        Work::Boot { .. } => vec![],
    }
}

/// Measures with a page, of high memory or not.
fn with_page<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    is_high: bool,
    measure: impl FnOnce(Page) -> Vec<f64>,
) -> Vec<f64> {
    let gfp = if is_high { GFP_KERNEL | Gfp::HIGHMEM } else { GFP_KERNEL };
    let page = mm.alloc_page(gfp).expect("a page fits");
    assert_eq!(mm.page_to_phys(page).get() >= LOW, is_high, "there is memory of both kinds");
    let values = measure(page);
    // SAFETY: just allocated.
    unsafe { mm.__free_page(page) };
    values
}

/// Nanoseconds for eight bytes of each CPU and their free, beside others that stay.
fn per_cpu<P: Platform, R: Reclaim>(mm: &Mm<P, R>, plan: &Plan) -> Vec<f64> {
    let one = || mm.alloc_percpu::<u64>().expect("eight bytes fit");
    let stays = one();
    let values = plan.short(|| {
        let object = black_box(one());
        // SAFETY: just allocated.
        unsafe { mm.free_percpu(object.as_ptr()) };
    });
    // SAFETY: as above.
    unsafe { mm.free_percpu(stays.as_ptr()) };
    values
}

/// Nanoseconds for an area and its free, unmapping included: it is done for many at once.
fn areas<P: Platform, R: Reclaim>(mm: &Mm<P, R>, pages: usize, plan: &Plan) -> Vec<f64> {
    let bytes = black_box(pages << 12);
    plan.short(|| {
        let memory = black_box(mm.vmalloc(bytes)).expect("an area fits");
        // SAFETY: just allocated.
        unsafe { mm.vfree(memory.as_ptr()) };
    })
}

/// Nanoseconds for an area and its free, many at once, the last unmapping included.
fn many_areas<P: Platform, R: Reclaim>(mm: &Mm<P, R>, pages: usize, plan: &Plan) -> Vec<f64> {
    let bytes = black_box(pages << 12);
    let mut areas = Vec::with_capacity(AREAS);
    plan.repeat(|| {
        nanoseconds(|| {
            for _ in 0..AREAS {
                areas.push(mm.vmalloc(bytes).expect("all areas fit"));
            }
            for memory in areas.drain(..) {
                // SAFETY: just allocated.
                unsafe { mm.vfree(memory.as_ptr()) };
            }
            mm.vm_unmap_aliases();
        }) / AREAS as f64
    })
}

/// Nanoseconds a page for booting, as in the row of smaller machines.
fn boots(ram: u64, plan: &Plan) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
    let pages = (ram >> 12) as f64;
    let mut failed: Option<Box<dyn Error>> = None;
    let mut memory = Sparse::new(ram as usize)?;
    let on_desk = plan.repeat_slow(|| {
        // SAFETY: this thread alone uses it.
        let desk = unsafe { Desk::new(memory.bytes()) };
        let mut booted = None;
        let time = nanoseconds(|| booted = Some(crate::subjects::boot_desk(desk, ram - SLACK)));
        if let Some(Err(error)) = booted {
            failed = Some(error.into());
        }
        time / pages
    });
    let description = description(ram);
    let host = plan.repeat_slow(|| {
        let mut booted = None;
        let time = nanoseconds(|| booted = Some(Machine::<12>::boot(&description)));
        if let Some(Err(error)) = booted {
            failed = Some(error.into());
        }
        time / pages
    });
    failed.map_or(Ok([on_desk, host]), Err)
}

/// What a desk leaves of its memory at most.
const SLACK: u64 = 64 << 10;

/// Memory of which the host supplies what is written: booting writes tables only.
struct Sparse(*mut u8, usize);

impl Sparse {
    fn new(bytes: usize) -> Result<Sparse, rustix::io::Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, wherever there is room.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, flags)? };
        Ok(Sparse(start.cast(), bytes))
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this value's, zeroed at first, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), self.1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_measured_and_leaves_all_in_order() {
        let mut ram = MappingSubjects::ram();
        let subjects = MappingSubjects::boot(&mut ram).unwrap();
        for row in &ROWS {
            let figures = subjects.measure(row, &Plan::TEST).unwrap();
            assert!(figures.iter().flatten().all(|value| *value > 0.0), "{}", row.name);
            assert!(figures.iter().all(|values| !values.is_empty()), "{}", row.name);
        }
        subjects.check().unwrap();
    }
}

//! Who is measured with pages: two machines with kmem, and two peers with as many pages.

use std::error::Error;
use std::sync::Arc;

use kmem::platform::desk::Desk;
use kmem::{CpuId, MemoryMap, Mm, NodeId, PhysAddr, Setup};
use kmem_host::description::Node;
use kmem_host::{Description, Machine};

use crate::measure::{Plan, nanoseconds};
use crate::peers::{Bitmap, Buddy, Kmem, PageAllocator};
use crate::rows::{self, Row, Work};

/// The machine's pages are of 4 KiB.
const PAGE: u64 = 4096;
/// RAM of every subject, but for heaps of objects. The desk's is written once and so costs the host as much.
pub const RAM: u64 = 1536 << 20;
/// RAM of the machines that are booted to see what booting costs.
const BOOT_RAM: u64 = 512 << 20;
/// ZONE_DMA ends here; the rest is ZONE_NORMAL.
const DMA_LIMIT: u64 = 16 << 20;
/// A machine of two CPUs, of which one works: per-CPU lists have the size that they have there.
const CPUS: u32 = 2;
/// Of the memory that the desk gets, it leaves what lies before the first multiple of 64 KiB.
const DESK_SLACK: usize = 64 << 10;

/// The subjects, in the order of the table's columns.
pub const NAMES: [&str; 4] = ["host", "desk", "buddy_system", "bitmap"];

/// Memory for a desk.
pub struct Ram(Vec<u8>);

impl Ram {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        // Not zeros: those the host would hand out page by page, when they are first touched.
        Ram(vec![0xa5; bytes as usize + DESK_SLACK])
    }

    /// For a desk that is measured.
    pub fn for_desk() -> Self {
        Ram::new(RAM)
    }
}

/// All that is measured, booted.
pub struct Subjects<'r> {
    host: Arc<Machine>,
    desk: Mm<Desk<'r>>,
    buddy: Buddy,
    bitmap: Bitmap,
    seed: u64,
}

impl<'r> Subjects<'r> {
    /// Boots them. `seed` stands for the random order of shuffled rows.
    pub fn boot(ram: &'r mut Ram, seed: u64) -> Result<Self, Box<dyn Error>> {
        let frames = (RAM / PAGE) as usize;
        Ok(Subjects {
            host: Machine::boot(&description(RAM))?,
            desk: boot_desk(desk(ram), RAM)?,
            buddy: Buddy::new(frames),
            bitmap: Bitmap::new(frames),
            seed,
        })
    }

    /// One round of a row: the values of each subject, none where it has nothing like it.
    pub fn measure(
        &mut self,
        row: &Row<Work>,
        plan: &Plan,
    ) -> Result<[Vec<f64>; 4], Box<dyn Error>> {
        let host = Arc::clone(&self.host);
        let on_host = |work: &dyn Fn() -> Vec<f64>| host.run_on(CpuId::BOOT, work);
        let (seed, mm) = (self.seed, host.mm());
        Ok(match row.work {
            Work::Pair { .. } | Work::Bulk { .. } => [
                on_host(&|| blocks(&mut Kmem(mm), row.work, seed, plan)),
                blocks(&mut Kmem(&self.desk), row.work, seed, plan),
                blocks(&mut self.buddy, row.work, seed, plan),
                blocks(&mut self.bitmap, row.work, seed, plan),
            ],
            Work::Zeroed => [
                on_host(&|| rows::zeroed(mm, plan)),
                rows::zeroed(&self.desk, plan),
                vec![],
                vec![],
            ],
            Work::Metadata => {
                let pages = (RAM / PAGE) as f64;
                [
                    vec![mm.metadata_bytes() as f64 / pages],
                    vec![self.desk.metadata_bytes() as f64 / pages],
                    vec![Buddy::metadata_a_page((RAM / PAGE) as usize)],
                    vec![Bitmap::metadata_a_page()],
                ]
            }
            Work::Boot => boots(plan)?,
        })
    }

    /// Whether both machines are in order: a figure of an allocator that lost a page is worth
    /// nothing.
    pub fn check(&self) -> Result<(), String> {
        check(&self.host, &self.desk)
    }
}

/// Whether a hosted machine and a desk are in order.
pub fn check(host: &Machine, desk: &Mm<Desk<'_>>) -> Result<(), String> {
    let host = host.shutdown();
    if !host.is_clean() || host.misuse_count != 0 {
        return Err(format!("the hosted machine was not left in order: {host}"));
    }
    desk.drain_local_pages();
    desk.verify().map_err(|found| format!("the desk was not left in order: {found}"))?;
    match desk.platform().misuses() {
        0 => Ok(()),
        misuses => Err(format!("the desk reported {misuses} wrong calls")),
    }
}

/// A pair or a bulk of blocks.
fn blocks<A: PageAllocator>(allocator: &mut A, work: Work, seed: u64, plan: &Plan) -> Vec<f64> {
    match work {
        Work::Pair { order } => rows::pair(allocator, order, plan),
        Work::Bulk { order, count, shuffled } => {
            rows::many(allocator, order, count, shuffled.then_some(seed), plan)
        }
        Work::Zeroed | Work::Metadata | Work::Boot => vec![],
    }
}

/// Nanoseconds a page for booting. The hosted machine's is the whole of `Machine::boot`: its memory
/// is fresh, so the host's page faults are in it. The desk's is `Mm::boot` alone, over memory that
/// has been written before.
fn boots(plan: &Plan) -> Result<[Vec<f64>; 4], Box<dyn Error>> {
    let pages = (BOOT_RAM / PAGE) as f64;
    let description = description(BOOT_RAM);
    let mut failed: Option<Box<dyn Error>> = None;
    let host = plan.repeat_slow(|| {
        let mut booted = None;
        let time = nanoseconds(|| booted = Some(Machine::<12>::boot(&description)));
        if let Some(Err(error)) = booted {
            failed = Some(error.into());
        }
        time / pages
    });
    let mut ram = Ram::new(BOOT_RAM);
    let on_desk = plan.repeat_slow(|| {
        let desk = desk(&mut ram);
        let mut booted = None;
        let time = nanoseconds(|| booted = Some(boot_desk(desk, BOOT_RAM)));
        if let Some(Err(error)) = booted {
            failed = Some(error.into());
        }
        time / pages
    });
    let frames = (BOOT_RAM / PAGE) as usize;
    let buddy = plan.repeat_slow(|| nanoseconds(|| Buddy::new(frames)) / pages);
    let bitmap = plan.repeat_slow(|| nanoseconds(|| Bitmap::new(frames)) / pages);
    failed.map_or(Ok([host, on_desk, buddy, bitmap]), Err)
}

/// A machine with so much RAM.
pub fn description(ram: u64) -> Description {
    let all = 0..ram;
    Description {
        name: "bench".into(),
        cpus: CPUS,
        dma_limit: Some(DMA_LIMIT),
        nodes: vec![Node { ram: vec![all], ..Node::default() }],
        ..Description::default()
    }
}

/// A desk over memory.
pub fn desk(ram: &mut Ram) -> Desk<'_> {
    // SAFETY: this program's one thread alone uses it.
    unsafe { Desk::new(&mut ram.0) }
}

/// kmem on a desk with so much RAM.
pub fn boot_desk(desk: Desk<'_>, ram: u64) -> Result<Mm<Desk<'_>>, kmem::BootError> {
    let mm = Mm::new(desk);
    let setup = Setup::new().cpus(CPUS).dma_limit(PhysAddr::new(DMA_LIMIT));
    // SAFETY: the RAM is the desk's, which is this manager's alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..ram, NodeId::ZERO), &setup) }?;
    Ok(mm)
}

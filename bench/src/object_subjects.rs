//! Who is measured with objects: two machines with kmem, and four peers.

use std::error::Error;
use std::sync::Arc;

use kmem::platform::desk::Desk;
use kmem::{CacheFlags, CacheId, CpuId, Mm, Platform, Reclaim};
use kmem_host::Machine;

use crate::heaps::{self, BuddyHeap, Dedicated, Kmalloc, Talc};
#[cfg(feature = "c-peers")]
use crate::heaps::{Mimalloc, Snmalloc};
use crate::measure::{HostCpus, Plan};
use crate::objects::{self, CACHED, Work};
use crate::rows::Row;
use crate::subjects::{self, RAM, Ram};
use crate::{held, threads};

/// The subjects, in the order of the table's columns.
pub const NAMES: [&str; 6] = ["host", "desk", "mimalloc", "snmalloc", "talc", "buddy_system"];
/// Those of them that this build has not.
pub const LEFT_OUT: &[&str] =
    if cfg!(feature = "c-peers") { &[] } else { &["mimalloc", "snmalloc"] };
/// What builds all of them. The profile's debug information would make snmalloc's build script build
/// it without optimisation.
pub const WITH_ALL: &str = "cargo run --release -p bench --features c-peers \
     --config profile.release.package.snmalloc-sys.debug=false";

/// Values of each subject, none where it has nothing like it.
type Values = [Vec<f64>; 6];

/// All that is measured, booted. The machines are others than those of the rows of pages, which would
/// find fewer.
pub struct ObjectSubjects<'r> {
    host: Arc<Machine>,
    host_cache: CacheId,
    desk: Mm<Desk<'r>>,
    desk_cache: CacheId,
    /// Its free pages before anything was allocated.
    desk_free: u64,
    #[cfg(feature = "c-peers")]
    mimalloc: Mimalloc,
    #[cfg(feature = "c-peers")]
    snmalloc: Snmalloc,
    talc: Talc,
    buddy: BuddyHeap,
    cpus: HostCpus,
    seed: u64,
}

impl<'r> ObjectSubjects<'r> {
    /// Boots them. `seed` stands for random orders and sizes.
    pub fn boot(ram: &'r mut Ram, cpus: HostCpus, seed: u64) -> Result<Self, Box<dyn Error>> {
        let host: Arc<Machine> = Machine::boot(&subjects::description(RAM))?;
        let host_cache = host.run_on(CpuId::BOOT, || create(host.mm()))?;
        let desk = subjects::boot_desk(subjects::desk(ram), RAM)?;
        let desk_free = desk.free_page_count();
        let desk_cache = create(&desk)?;
        Ok(ObjectSubjects {
            host,
            host_cache,
            desk,
            desk_cache,
            desk_free,
            #[cfg(feature = "c-peers")]
            mimalloc: heaps::mimalloc(),
            #[cfg(feature = "c-peers")]
            snmalloc: heaps::snmalloc(),
            talc: heaps::talc()?,
            buddy: heaps::buddy()?,
            cpus,
            seed,
        })
    }

    /// One round of a row.
    pub fn measure(&self, row: &Row<Work>, plan: &Plan) -> Result<Values, Box<dyn Error>> {
        Ok(match row.work {
            Work::CachePair | Work::CacheMany | Work::CacheBulk => [
                self.on_host(|| in_cache(self.host.mm(), self.host_cache, row.work, plan)),
                in_cache(&self.desk, self.desk_cache, row.work, plan),
                vec![],
                vec![],
                vec![],
                vec![],
            ],
            Work::MixedByTwo | Work::Remote { .. } => self.by_two(row.work, plan),
            Work::Held { .. } | Work::HeldEach { .. } => self.held(row)?,
            Work::Pair { .. } | Work::Many { .. } | Work::Mixed => self.by_one(row.work, plan),
        })
    }

    fn by_one(&self, work: Work, plan: &Plan) -> Values {
        let seed = self.seed;
        [
            self.on_host(|| objects::measure(&Kmalloc(self.host.mm()), work, seed, plan)),
            objects::measure(&Kmalloc(&self.desk), work, seed, plan),
            #[cfg(feature = "c-peers")]
            objects::measure(&self.mimalloc, work, seed, plan),
            #[cfg(not(feature = "c-peers"))]
            vec![],
            #[cfg(feature = "c-peers")]
            objects::measure(&self.snmalloc, work, seed, plan),
            #[cfg(not(feature = "c-peers"))]
            vec![],
            objects::measure(&self.talc, work, seed, plan),
            objects::measure(&self.buddy, work, seed, plan),
        ]
    }

    /// A desk has one CPU.
    fn by_two(&self, work: Work, plan: &Plan) -> Values {
        self.on_host(|| {
            heaps::settle(self.host.mm());
            vec![]
        });
        let on_cpu = |cpu, work: &mut dyn FnMut()| self.host.run_on(cpu, work);
        let (seed, cpus) = (self.seed, self.cpus);
        let anywhere = threads::ANYWHERE;
        [
            threads::measure(&Kmalloc(self.host.mm()), &on_cpu, work, seed, cpus, plan),
            vec![],
            #[cfg(feature = "c-peers")]
            threads::measure(&self.mimalloc, anywhere, work, seed, cpus, plan),
            #[cfg(not(feature = "c-peers"))]
            vec![],
            #[cfg(feature = "c-peers")]
            threads::measure(&self.snmalloc, anywhere, work, seed, cpus, plan),
            #[cfg(not(feature = "c-peers"))]
            vec![],
            threads::measure(&self.talc, anywhere, work, seed, cpus, plan),
            threads::measure(&self.buddy, anywhere, work, seed, cpus, plan),
        ]
    }

    fn held(&self, row: &Row<Work>) -> Result<Values, Box<dyn Error>> {
        let mut values = Values::default();
        values[0] = self.on_host(|| vec![held::of_kmem(self.host.mm(), row.work, self.seed)]);
        values[1] = vec![held::of_kmem(&self.desk, row.work, self.seed)];
        for (values, name) in values.iter_mut().zip(NAMES).skip(2) {
            if !LEFT_OUT.contains(&name) {
                values.push(held::of_peer(name, row, self.seed)?);
            }
        }
        Ok(values)
    }

    fn on_host(&self, work: impl Fn() -> Vec<f64>) -> Vec<f64> {
        self.host.run_on(CpuId::BOOT, work)
    }

    /// Whether both machines are in order: a figure of an allocator that lost an object is worth
    /// nothing.
    pub fn check(&self) -> Result<(), Box<dyn Error>> {
        // Refused where an object is out. SAFETY: nobody else knows the caches.
        self.host.run_on(CpuId::BOOT, || unsafe {
            self.host.mm().kmem_cache_destroy(self.host_cache)
        })?;
        // SAFETY: as above.
        unsafe { self.desk.kmem_cache_destroy(self.desk_cache) }?;
        self.host.run_on(CpuId::BOOT, || heaps::settle(self.host.mm()));
        subjects::check(&self.host, &self.desk)?;
        // What the CPU has of each cache is in slabs too. SAFETY: the desk's one CPU does no more.
        unsafe { self.desk.cpu_offline(CpuId::BOOT) }?;
        heaps::settle(&self.desk);
        match self.desk_free.abs_diff(self.desk.free_page_count()) {
            0 => Ok(()),
            pages => Err(format!("the desk lost {pages} pages").into()),
        }
    }
}

fn create<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Result<CacheId, kmem::CacheError> {
    mm.kmem_cache_create("bench", CACHED, 0, CacheFlags::NONE, None, None)
}

fn in_cache<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    cache: CacheId,
    work: Work,
    plan: &Plan,
) -> Vec<f64> {
    match work {
        Work::CacheBulk => objects::bulk(mm, cache, plan),
        // The seed is that of shuffled rows, of which a cache of its own has none.
        _ => objects::measure(&Dedicated(mm, cache), work, 0, plan),
    }
}

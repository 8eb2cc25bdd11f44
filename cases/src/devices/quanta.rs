//! Where each device's quanta come from.

use kmem::{CacheFlags, CacheInfo, GFP_KERNEL};
use scull::{Errno, Kmalloc, Mode, Pages, Parameters, Scull, Scullc, Scullp, SlabCache, Source};

use super::load;
use crate::failure::{at_most, check, equal, some};
use crate::{Failure, Machine, Snapshot};

/// The pages that all slabs have.
pub(super) fn slab_pages<M: Machine>(machine: &M) -> u64 {
    machine.mm().caches().map(|cache| cache.slabs.slabs() << cache.order.get()).sum()
}

/// The cache of kmalloc's that serves a size, or the cache scullc.
fn cache<M: Machine>(machine: &M, wanted: impl Fn(&CacheInfo) -> bool) -> Option<CacheInfo> {
    machine.mm().caches().find(wanted)
}

pub(super) fn scull<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let given = mm.kmalloc_size_roundup(4000);
    at_most(given as u64, 4096, "4000 bytes and what an allocator adds are 4 KB at most")?;
    let in_use = || {
        let plain =
            |cache: &CacheInfo| cache.size == given && cache.name.as_str().starts_with("kmalloc");
        some(cache(machine, plain), "kmalloc has a cache for them").map(|cache| cache.active)
    };
    let defaults = Kmalloc::KIND.defaults;
    equal(defaults.size, 4000, "scull's quantum")?;
    let scull = Scull::load(mm, defaults)?;
    let before = in_use()?;
    let mut file = scull.open(0, Mode::Write)?;
    for quantum in 0..20 {
        for _ in 0..40 {
            file.write_all(&[3; 100])?;
            equal(in_use()? - before, quantum + 1, "4000 bytes take one quantum from kmalloc")?;
        }
    }
    drop(scull.open(0, Mode::Write)?);
    equal(in_use()?, before, "and kmalloc has them back when the device is trimmed")
}

pub(super) fn change<M: Machine>(machine: &M) -> Result<(), Failure> {
    let scull = load::<M, Kmalloc>(machine, 4000, 1000)?;
    scull.open(0, Mode::Write)?.write_all(&[9; 5000])?;
    scull.set_size(700)?;
    scull.set_qset(3)?;
    equal(scull.open(0, Mode::ReadWrite)?.write(&[9; 5000])? as u64, 4000, "as it was")?;
    let mut file = scull.open(0, Mode::Write)?;
    for _ in 0..10 {
        equal(file.write(&[8; 5000])? as u64, 700, "trimmed, the device has the new quantum")?;
    }
    let mut buffer = [0; 5000];
    let mut file = scull.open(0, Mode::Read)?;
    for _ in 0..10 {
        equal(file.read(&mut buffer)? as u64, 700, "and reads by it")?;
        check(buffer[..700].iter().all(|byte| *byte == 8), "what was written")?;
    }
    let refused = scull.set_size(0).map_err(|error| error.errno());
    check(refused == Err(Errno::Einval), "a quantum has a byte at least")
}

pub(super) fn scullc<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let found = || cache(machine, |cache| cache.name.as_str() == "scullc");
    check(found().is_none(), "the cache is not there yet")?;
    let scullc = Scullc::load(mm, SlabCache::KIND.defaults)?;
    let made = some(found(), "a cache named scullc")?;
    equal(made.size as u64, 4000, "of objects as large as quanta")?;
    check(made.flags == CacheFlags::HWCACHE_ALIGN, "with the flag SLAB_HWCACHE_ALIGN alone")?;
    let in_use = || some(found(), "the cache is there").map(|cache| cache.active);
    for device in 0..4 {
        for quantum in 1..=5 {
            scullc.open(device, Mode::ReadWrite)?.write_all(&[1])?;
            let mut file = scullc.open(device, Mode::ReadWrite)?;
            file.seek(4000 * quantum - 1);
            file.write_all(&[2])?;
            equal(in_use()?, device * 5 + quantum, "a quantum is an object, of all devices")?;
        }
    }
    drop(scullc.open(3, Mode::Write)?);
    equal(in_use()?, 15, "trimming gives a device's quanta back")?;
    drop(scullc);
    check(found().is_none(), "unloading gives all back and destroys the cache")
}

pub(super) fn load_time<M: Machine>(machine: &M) -> Result<(), Failure> {
    for quantum in [500, 4000] {
        let scullc = load::<M, SlabCache>(machine, quantum, 10)?;
        let refused = scullc.set_size(600).map_err(|error| error.errno());
        check(refused == Err(Errno::Eacces), "it cannot be changed at run time")?;
        equal(scullc.parameters().size, quantum, "and was not")?;
        let written = scullc.open(0, Mode::Write)?.write(&[1; 5000])?;
        equal(written as u64, quantum, "a quantum is as large as was said at load time")?;
    }
    Ok(())
}

pub(super) fn no_cache<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let load = || Scullc::load(mm, SlabCache::KIND.defaults).map(drop);
    let made = mm.kmem_cache_create("scullc", 8, 0, CacheFlags::NONE, None, None);
    let taken = some(made.ok(), "a cache can be made")?;
    let before = Snapshot::take(machine);
    let refused = load().map_err(|error| error.errno());
    // SAFETY: nobody uses it.
    let destroyed = unsafe { mm.kmem_cache_destroy(taken) };
    check(refused == Err(Errno::Enomem), "without its cache the module is not loaded: ENOMEM")?;
    equal(Errno::Enomem.number() as u64, 12, "which is 12")?;
    check(destroyed.is_ok(), "the other cache was not touched")?;
    before.same(&Snapshot::take(machine))?;
    Ok(load()?)
}

pub(super) fn scullp<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    equal(Pages::KIND.defaults.size, 0, "the default order")?;
    // What a first byte costs, by order: the quantum. List and set are objects of kmalloc's.
    let mut costs = [0; 4];
    for (order, cost) in (0..).zip(&mut costs) {
        // The pages that the quanta get were written to before.
        for order in [order, order, 0, 0, 0, 0] {
            mm.pages(GFP_KERNEL, order)?.bytes_mut().fill(0xa5);
        }
        let scullp = Scullp::load(mm, Parameters { size: order.into(), ..Pages::KIND.defaults })?;
        let free = mm.free_page_count() + slab_pages(machine);
        let quantum = machine.facts().page_bytes() << order;
        let mut file = scullp.open(0, Mode::ReadWrite)?;
        file.seek(quantum - 1);
        file.write_all(&[1])?;
        *cost = free - mm.free_page_count() - slab_pages(machine);

        // All that lies before it is of the same quantum, and reads as zeroes.
        let mut buffer = [0xff; 512];
        file.seek(0);
        let mut read = 0;
        while read + 1 < quantum {
            let most = buffer.len().min((quantum - 1 - read) as usize);
            let count = file.read(&mut buffer[..most])?;
            check(count > 0, "the device has bytes to its end")?;
            check(buffer[..count].iter().all(|byte| *byte == 0), "a quantum is cleared")?;
            read += count as u64;
        }
        let free = mm.free_page_count();
        file.seek(quantum);
        file.write_all(&[2])?;
        equal(free - mm.free_page_count(), 1 << order, "one quantum more is 2^order pages more")?;
        drop(file);
        // Trimming frees each with its order: another one would be reported.
        drop(scullp.open(0, Mode::Write)?);
        equal(scullp.size(0)?, 0, "a device that is trimmed is empty")?;
    }
    for (order, cost) in costs.into_iter().enumerate() {
        equal(cost, 1 << order, "a quantum has 2^order pages")?;
    }
    before.same(&Snapshot::take(machine))
}

//! 4 MB copied from one device to another: how much work it is, and how much memory it takes.
//!
//! The texts timed it. What is counted here is what the time went to.

use kmem::CacheInfo;
use scull::{Kmalloc, Mode, Pages, SlabCache, Source};

use super::load;
use super::quanta::slab_pages;
use crate::failure::{at_most, check, equal};
use crate::{Failure, Machine, Snapshot};

const BYTES: u64 = 4 << 20;

/// What two devices with [`BYTES`] each take.
struct Taken {
    /// All pages, those of sets and items included.
    pages: u64,
    /// Those of them that are in slabs.
    slab_pages: u64,
    /// The objects that are as large as quanta.
    objects: u64,
}

fn copy<M: Machine, S: Source>(machine: &M, size: u64) -> Result<Taken, Failure> {
    let mm = machine.mm();
    let module = load::<M, S>(machine, size, S::KIND.defaults.qset)?;
    let given = mm.kmalloc_size_roundup(size as usize);
    let serves = |cache: &CacheInfo| match S::KIND.name {
        "scullc" => cache.name.as_str() == "scullc",
        _ => cache.size == given && cache.name.as_str().starts_with("kmalloc"),
    };
    let look = || {
        let free = Snapshot::take(machine).free();
        let objects: u64 = mm.caches().filter(serves).map(|cache| cache.active).sum();
        (free, slab_pages(machine), objects)
    };
    let before = look();
    let mut buffer = [0; 4096];
    let mut file = module.open(0, Mode::Write)?;
    for at in 0..BYTES / 4096 {
        buffer.fill(at as u8);
        file.write_all(&buffer)?;
    }
    let (mut from, mut to) = (module.open(0, Mode::Read)?, module.open(1, Mode::Write)?);
    let mut copied = 0;
    while copied < BYTES {
        let count = from.read(&mut buffer)?;
        check(count > 0, "the device has all that was written to it")?;
        for (at, byte) in (copied..).zip(&buffer[..count]) {
            equal((*byte).into(), at / 4096 % 256, "which is what was written")?;
        }
        to.write_all(&buffer[..count])?;
        copied += count as u64;
    }
    equal(module.size(1)?, BYTES, "the copy is whole")?;
    let after = look();
    Ok(Taken {
        pages: before.0 - after.0,
        slab_pages: after.1 - before.1,
        objects: after.2 - before.2,
    })
}

pub(super) fn scullc_against_scull<M: Machine>(machine: &M) -> Result<(), Failure> {
    // A size between those of kmalloc's. 4000 bytes were chosen to fit them.
    let scull = copy::<M, Kmalloc>(machine, 2600)?;
    let scullc = copy::<M, SlabCache>(machine, 2600)?;
    equal(scull.objects, 2 * BYTES.div_ceil(2600), "a quantum is an object of kmalloc's")?;
    equal(scullc.objects, scull.objects, "as many are objects of the cache")?;
    at_most(scullc.pages, scull.pages * 96 / 100, "in fewer pages by 4 % at least")
}

pub(super) fn scullp_against_scull<M: Machine>(machine: &M) -> Result<(), Failure> {
    let page = machine.facts().page_bytes();
    let scull = copy::<M, Kmalloc>(machine, Kmalloc::KIND.defaults.size)?;
    let scullp = copy::<M, Pages>(machine, 0)?;
    equal(scullp.pages - scullp.slab_pages, 2 * BYTES / page, "scullp's pages are all full")?;
    equal(scull.pages, scull.slab_pages, "scull's quanta are in slabs")?;
    equal(scull.objects, 2 * BYTES.div_ceil(4000), "there are more of them than of pages")?;
    at_most(2 * BYTES / page, scull.objects - 1, "so that scullp makes fewer calls")?;
    at_most(scullp.pages, scull.pages - 1, "and holds fewer pages for the same bytes")
}

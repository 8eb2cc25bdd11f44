//! What CPUs keep of kmalloc.

use kmem::{CacheFlags, CpuId, GFP_KERNEL, Gfp};

use crate::failure::check;
use crate::{Failure, Machine};

/// Has every CPU use every size of kmalloc once. The magazines that it gets for that stay with it, so
/// that afterwards the free lists are as before if, and only if, all that is used is given back. A case
/// that takes CPUs out of service calls it again: they come back without magazines.
///
/// # Errors
///
/// A CPU is not online.
pub fn warm_up<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let work = || {
        for cache in mm.caches() {
            let dma = cache.flags.contains(CacheFlags::CACHE_DMA);
            let gfp = if dma { GFP_KERNEL | Gfp::DMA } else { GFP_KERNEL };
            // Without memory a CPU goes without a magazine, which is no failure.
            if let Ok(memory) = mm.kmalloc(cache.size, gfp | Gfp::NOWARN) {
                // SAFETY: it was just allocated, and nothing uses it.
                unsafe { mm.kfree(memory.as_ptr()) };
            }
        }
    };
    for cpu in (0..machine.facts().cpus).filter_map(CpuId::new) {
        check(mm.is_online(cpu), "a machine has all its CPUs online when a case begins")?;
        machine.run_on(cpu, &work);
    }
    Ok(())
}

//! Memory that runs out, and quotas.

use kmem::{GFP_KERNEL, Gfp};
use scull::{Errno, Kmalloc, Mode, Module, Pages, Parameters, ScullError, SlabCache, Source};

use super::quantum_bytes;
use crate::failure::{at_least, at_most, check, equal};
use crate::hold::{Block, Hoard};
use crate::pressure::{left_for, press};
use crate::{Failure, Machine};

/// An ordinary request that fails without a message.
const ORDINARY: Gfp = GFP_KERNEL.union(Gfp::NOWARN);

/// More pages than a module needs in all to be loaded and to hold one quantum.
const ENOUGH: u64 = 40;

/// Blocks of one page that a case may set free on a machine whose memory is all taken otherwise.
struct Spare<'m, M: Machine> {
    machine: &'m M,
    blocks: Hoard<'m, M>,
    _pressed: Hoard<'m, M>,
}

impl<'m, M: Machine> Spare<'m, M> {
    fn new(machine: &'m M, pages: u64) -> Result<Self, Failure> {
        let mut blocks = Hoard::new(machine);
        for _ in 0..pages {
            blocks.push(Block::new(machine, GFP_KERNEL, 0)?);
        }
        // What CPUs keep on their lists is within reach of ordinary requests only when drained.
        machine.mm().drain_all_pages();
        let pressed = press(machine, Gfp::NONE);
        equal(left_for(machine, ORDINARY), 0, "ordinary requests have nothing left")?;
        Ok(Spare { machine, blocks, _pressed: pressed })
    }

    fn set_free(&mut self, pages: u64) {
        for _ in 0..pages {
            self.blocks.pop();
        }
        self.machine.mm().drain_all_pages();
    }

    /// Takes what was set free back: it must all be there, and not more.
    fn take_back(&mut self, pages: u64) -> Result<(), Failure> {
        let mm = self.machine.mm();
        while mm.shrink_caches() > 0 {}
        mm.drain_all_pages();
        equal(self.blocks.fill(ORDINARY, 0), pages, "what was free before is free again")
    }
}

pub(super) fn at_any_point<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mut spare = Spare::new(machine, ENOUGH)?;
    at_any_point_of::<M, Kmalloc>(machine, &mut spare, 4000)?;
    at_any_point_of::<M, SlabCache>(machine, &mut spare, 4000)?;
    at_any_point_of::<M, Pages>(machine, &mut spare, 0)
}

/// With no page to be had, with one, with two, and so on until all goes well.
fn at_any_point_of<M: Machine, S: Source>(
    machine: &M,
    spare: &mut Spare<'_, M>,
    size: u64,
) -> Result<(), Failure> {
    // Small sets: single pages are enough for everything. A large table: no slab has room for it.
    let parameters = Parameters { size, qset: 40, devices: 40, ..S::KIND.defaults };
    // In the second item.
    let far = 50 * quantum_bytes::<M, S>(machine, size);
    let (mut unloaded, mut unwritten) = (0, 0);
    for pages in 0..ENOUGH {
        spare.set_free(pages);
        match Module::<S, _, _>::load(machine.mm(), parameters) {
            Ok(module) => {
                let mut file = module.open(0, Mode::Write)?;
                file.seek(far);
                match file.write(b"far") {
                    Ok(_) => {
                        drop(file);
                        drop(module);
                        spare.take_back(pages)?;
                        at_least(unloaded, 1, "there was no memory for the module")?;
                        return at_least(unwritten, 1, "and then for the module, but not to write");
                    }
                    Err(error) => {
                        let no_memory = matches!(error, ScullError::NoMemory(_));
                        check(no_memory, "a write without memory is ENOMEM")?;
                        equal(module.size(0)?, 0, "the device is as it was")?;
                        equal(module.held(0)?, 0, "and holds what it held")?;
                        equal(file.position(), far, "and so is the file")?;
                        unwritten += 1;
                    }
                }
            }
            Err(error) => {
                check(error.errno() == Errno::Enomem, "a load without memory is ENOMEM")?;
                unloaded += 1;
            }
        }
        spare.take_back(pages)?;
    }
    Err(Failure::new("with enough memory all goes well"))
}

pub(super) fn quota<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mut spare = Spare::new(machine, 256)?;
    quota_of::<M, Kmalloc>(machine, &mut spare)?;
    quota_of::<M, SlabCache>(machine, &mut spare)?;
    quota_of::<M, Pages>(machine, &mut spare)
}

fn quota_of<M: Machine, S: Source>(machine: &M, spare: &mut Spare<'_, M>) -> Result<(), Failure> {
    let page = machine.facts().page_bytes();
    let fill = |quota| -> Result<(Module<'_, S, _, _>, Option<Errno>), Failure> {
        let parameters = Parameters { quota, qset: 50, ..S::KIND.defaults };
        let module = Module::load(machine.mm(), parameters)?;
        let mut file = module.open(0, Mode::Write)?;
        // A write goes to the end of a quantum, so this ends with each of them.
        let error = loop {
            if let Err(error) = file.write(&[0x77; 4096]) {
                break error.errno();
            }
        };
        drop(file);
        Ok((module, Some(error)))
    };
    spare.set_free(256);
    let (module, error) = fill(0)?;
    check(
        error == Some(Errno::Enomem),
        "without a quota the device goes on until there is ENOMEM",
    )?;
    at_least(module.size(0)?, 150 * page, "with what the machine had")?;
    at_most(left_for(machine, ORDINARY), 8, "and nobody else gets memory any more")?;
    drop(module);
    spare.take_back(256)?;

    spare.set_free(256);
    let quota = 64 * page;
    let (module, error) = fill(quota)?;
    check(error == Some(Errno::Enospc), "with a quota the device is refused more: ENOSPC")?;
    at_most(module.held(0)?, quota, "it holds what it may")?;
    let quantum = quantum_bytes::<M, S>(machine, S::KIND.defaults.size);
    at_least(module.held(0)? + 2 * quantum, quota, "nearly all of it")?;
    at_least(left_for(machine, ORDINARY), 128, "and others get memory")?;
    drop(module);
    spare.take_back(256)
}

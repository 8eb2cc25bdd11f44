//! Shows and runs commands, and counts what held.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use kmem::{CacheFlags, GFP_KERNEL, Gfp};
use kmem_shell::{FreeLists, Shell, System};

use super::Machine;
use crate::console::{COMMAND, GOOD, REMARK, folded, printable, width};
use crate::exit::Exit;

/// Shows and runs commands, and counts what held.
pub struct Guide<'m> {
    pub machine: &'m Machine,
    shell: Shell<'m, Machine>,
    held: u32,
}

impl<'m> Guide<'m> {
    pub fn new(machine: &'m Machine) -> Self {
        Guide { machine, shell: Shell::new(machine), held: 0 }
    }

    /// Gives back what the tour still holds, and answers how many checks held.
    pub fn finish(self) -> Result<u32, Exit> {
        let Guide { machine, shell, held } = self;
        machine.run(|| shell.finish()).map_err(|error| Exit::Lost(error.to_string()))?;
        Ok(held)
    }

    pub fn remark(&self, text: impl fmt::Display) -> Result<(), Exit> {
        let text = folded(&text.to_string(), 0, width());
        say(format_args!("\n{REMARK}{text}{REMARK:#}"))
    }

    pub fn command(&mut self, line: &str) -> Result<(), Exit> {
        say(format_args!("{COMMAND}kmem> {}{COMMAND:#}", printable(line)))?;
        let result = self.machine.run(|| self.shell.run(line));
        self.machine.settle();
        result.map_err(|error| self.machine.exit_of(error))
    }

    pub fn check(&mut self, what: &str, held: bool) -> Result<(), Exit> {
        if held { self.held(what) } else { Err(Exit::Failed(format!("this did not hold: {what}"))) }
    }

    /// Tells what held: a command that has just gone well would have failed otherwise.
    pub fn held(&mut self, what: &str) -> Result<(), Exit> {
        self.held += 1;
        let what = folded(what, "held: ".len(), width());
        say(format_args!("{GOOD}held:{GOOD:#} {what}"))
    }

    /// The free lists, with all caches shrunk and all CPUs' lists drained.
    pub fn lists(&self) -> FreeLists {
        self.machine.run(|| FreeLists::take(self.machine.mm()))
    }

    /// Has caches and CPUs give back the pages that nobody uses, which would be missing in the table.
    pub fn give_back(&mut self) -> Result<(), Exit> {
        self.command("cache shrink all")?;
        self.command("drain")
    }

    /// Shows the free lists, after [`Guide::give_back`].
    pub fn show_lists(&mut self) -> Result<FreeLists, Exit> {
        // The commands shrink once; what comes of that may let another slab go.
        let lists = self.lists();
        self.command("cat /proc/buddyinfo")?;
        Ok(lists)
    }

    /// The pages that all slabs have.
    pub fn slab_pages(&self) -> u64 {
        let caches = self.machine.mm().caches();
        caches.map(|cache| cache.slabs.slabs() << cache.order.get()).sum()
    }

    /// Has every CPU use every size of kmalloc once. What a CPU keeps for that stays with it, and would
    /// be missing at the end.
    pub fn warm_up(&self) -> Result<(), Exit> {
        let work = |system: &Machine, _| {
            let mm = system.mm();
            for cache in mm.caches() {
                let dma = cache.flags.contains(CacheFlags::CACHE_DMA);
                let gfp = if dma { GFP_KERNEL | Gfp::DMA } else { GFP_KERNEL };
                if let Ok(memory) = mm.kmalloc(cache.size, gfp) {
                    // SAFETY: it was just allocated, and nothing uses it.
                    unsafe { mm.kfree(memory.as_ptr()) };
                }
            }
        };
        let warmed = self.machine.run(|| self.machine.on_each_cpu(Arc::new(work)));
        warmed.map_err(Exit::Failed)
    }
}

pub fn say(text: fmt::Arguments<'_>) -> Result<(), Exit> {
    writeln!(anstream::stdout(), "{text}").map_err(Exit::not_printed)
}

//! Memory by other addresses: areas, a user's, high memory.

use kmem_host::Description;
use kmem_shell::Shell;

use super::guide::{Guide, say};
use crate::console::{COMMAND, printable};
use crate::exit::Exit;
use crate::hosted::{self, Hosted, Visit};

/// scullv, its areas, and a user that sees them.
pub fn areas<const SHIFT: u32>(guide: &mut Guide<'_, SHIFT>, file: &str) -> Result<(), Exit> {
    guide.remark(
        "scullv has its pieces from vmalloc: 16 pages in a row each, whose frames may lie anywhere. Behind \
         each\nlies a page that nothing is mapped at.",
    )?;
    guide.command("insmod scullv")?;
    guide.command(&format!("cp {file} /dev/scullv0"))?;
    guide.command(&format!("cmp {file} /dev/scullv0"))?;
    guide.held("what is in scullv is what went in")?;
    guide.command("head -3 /proc/vmallocinfo")?;
    guide
        .remark("A user maps the device's memory: the same frames, page by page, and no copies.")?;
    guide.command("mmap /dev/scullv0")?;
    guide.held("the user sees what the device holds")?;
    guide.command("rmmod scullv")
}

/// High memory, on a machine that has some.
pub fn high_memory<const SHIFT: u32>(guide: &mut Guide<'_, SHIFT>) -> Result<(), Exit> {
    const MACHINE: &str = "lkd-i386";
    guide.remark(
        "Another machine: a 32-bit PC with 2 GiB, of which the kernel sees 896 MB at all times. A page of the \
         rest\nhas no address until it is mapped.",
    )?;
    say(format_args!("{COMMAND}$ kmem boot --machine {MACHINE} -c kmap{COMMAND:#}"))?;
    let description = Description::preset(MACHINE)
        .map_err(|error| Exit::Failed(format!("the preset cannot be read: {error}")))?;
    hosted::boot(&description, Commands("kmap"))?;
    guide.held("what was written by one address was read by another")
}

/// Commands that a machine is booted for.
struct Commands(&'static str);

impl Visit for Commands {
    fn visit<const SHIFT: u32>(self, machine: &Hosted<SHIFT>) -> Result<(), Exit> {
        say(format_args!("{COMMAND}kmem> {}{COMMAND:#}", printable(self.0)))?;
        let mut shell = Shell::new(machine);
        let done = machine.run(|| shell.run(self.0));
        let finished = machine.run(|| shell.finish());
        machine.settle();
        done.and(finished).map_err(|error| machine.exit_of(error))
    }
}

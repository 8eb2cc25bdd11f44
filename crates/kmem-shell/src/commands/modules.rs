//! Loading and unloading modules.

use alloc::string::String;

use super::{Command, exactly, print, usage};
use crate::{Failure, Shell, Sink, System};

pub(super) const fn insmod<S: System>() -> Command<S> {
    Command {
        name: "insmod",
        usage: "insmod MODULE [PARAMETER=VALUE]...",
        about: "load a module: scull, scullc, scullp or scullv\n\
                scull keeps what is written to /dev/scull0 in memory from kmalloc, scullc in\n\
                objects of a slab cache, scullp in pages, scullv in areas of vmalloc.\n\
                devices=4     how many devices there are\n\
                quantum=4000  bytes of each piece of memory; scull and scullc have it\n\
                order=0       scullp has it instead: 2^order pages; scullv too: order=4\n\
                qset=500      how many pieces a list item has; scull: 1000\n\
                quota=0       how many bytes a device may hold; 0: any number\n\
                /sys/module/scull/parameters shows them; what is written to quantum and qset\n\
                there holds for a device from when it is emptied. /proc/scullmem calls quantum `q`,\n\
                as the book does.\n\
                Small pieces are slow: each is an allocation and a pointer, and every read or write\n\
                of one walks the list from its start. With quantum=1 a file of a megabyte takes about a\n\
                second, and one of ten megabytes a minute; a larger qset makes the list shorter.",
        example: "insmod scullp order=2",
        run: run_insmod,
    }
}

fn run_insmod<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let (name, settings) = arguments.split_first().ok_or_else(|| usage(&insmod::<S>()))?;
    shell.tree.modules.load(shell.system, name, settings)
}

pub(super) const fn rmmod<S: System>() -> Command<S> {
    Command {
        name: "rmmod",
        usage: "rmmod MODULE",
        about: "unload a module; the memory of its devices goes back\n\
                On a machine that keeps owners (slab_debug=U) what the last module leaves behind is\n\
                shown by who allocated it.",
        example: "rmmod scullp",
        run: run_rmmod,
    }
}

fn run_rmmod<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [name] = exactly(&rmmod::<S>(), arguments)?;
    shell.tree.modules.unload(shell.system, name)
}

pub(super) const fn lsmod<S: System>() -> Command<S> {
    Command {
        name: "lsmod",
        usage: "lsmod",
        about: "list the loaded modules",
        example: "lsmod",
        run: run_lsmod,
    }
}

fn run_lsmod<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [] = exactly(&lsmod::<S>(), arguments)?;
    let mut text = String::new();
    // A string takes all that is written to it.
    let _ = shell.tree.modules.write_table(&mut text);
    print(out, format_args!("{text}"))
}

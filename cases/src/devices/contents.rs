//! What is written is there, and `/proc` says where.

use core::fmt::Write;

use kmem::GFP_KERNEL;
use scull::{Kmalloc, Mode, Pages, Scullp, SlabCache, Source};

use super::load;
use crate::failure::{check, equal, some};
use crate::text::{Lines, Text};
use crate::{Failure, Machine, Snapshot};

pub(super) fn cleared<M: Machine>(machine: &M) -> Result<(), Failure> {
    for size in [4000, 300] {
        cleared_of::<M, Kmalloc>(machine, size)?;
        cleared_of::<M, SlabCache>(machine, size)?;
    }
    cleared_of::<M, Pages>(machine, 1)
}

fn cleared_of<M: Machine, S: Source>(machine: &M, size: u64) -> Result<(), Failure> {
    const QUANTA: u64 = 10;
    let mm = machine.mm();
    let module = load::<M, S>(machine, size, 20)?;
    let quantum = super::quantum_bytes::<M, S>(machine, size);
    for _ in 0..2 {
        // The pages that the quanta get were written to before; the second time, the quanta.
        for _ in 0..2 * QUANTA {
            mm.pages(GFP_KERNEL, 0)?.bytes_mut().fill(0xa5);
        }
        let mut file = module.open(0, Mode::Write)?;
        for number in 1..=QUANTA {
            file.seek(number * quantum - 1);
            file.write_all(&[1])?;
        }
        let mut file = module.open(0, Mode::ReadWrite)?;
        let (mut at, mut buffer) = (0u64, [0xff; 777]);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            for byte in &buffer[..count] {
                at += 1;
                equal((*byte).into(), at.is_multiple_of(quantum).into(), "a quantum is cleared")?;
            }
        }
        equal(at, QUANTA * quantum, "all of them were looked at")?;
        file.seek(0);
        for _ in 0..QUANTA * quantum / 100 {
            file.write_all(&[0xa5; 100])?;
        }
    }
    Ok(())
}

pub(super) fn persistence<M: Machine>(machine: &M) -> Result<(), Failure> {
    persistence_of::<M, Kmalloc>(machine)?;
    persistence_of::<M, SlabCache>(machine)?;
    persistence_of::<M, Pages>(machine)
}

fn persistence_of<M: Machine, S: Source>(machine: &M) -> Result<(), Failure> {
    let before = Snapshot::take(machine);
    let module = load::<M, S>(machine, S::KIND.defaults.size, S::KIND.defaults.qset)?;
    let pattern = |at: u64| (at % 253) as u8 ^ 0x3c;
    const SIZE: u64 = 100_000;
    let mut file = module.open(1, Mode::Write)?;
    for at in 0..SIZE {
        file.write_all(&[pattern(at)])?;
    }
    drop(file);
    for _ in 0..2 {
        let mut file = module.open(1, Mode::Read)?;
        let (mut at, mut buffer) = (0, [0; 777]);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            for byte in &buffer[..count] {
                equal(
                    (*byte).into(),
                    pattern(at).into(),
                    "a byte that was written is still there",
                )?;
                at += 1;
            }
        }
        equal(at, SIZE, "all of them, after the file was closed")?;
    }
    equal(module.size(0)?, 0, "and only in the device that they were written to")?;
    drop(module.open(1, Mode::Write)?);
    equal(module.size(1)?, 0, "opening for writing trims the device")?;
    let mut byte = [0];
    equal(module.open(1, Mode::Read)?.read(&mut byte)? as u64, 0, "nothing is left to read")?;
    module.open(2, Mode::Write)?.write_all(&[1; 10_000])?;
    drop(module);
    before.same(&Snapshot::take(machine))
}

pub(super) fn memory_file<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SIZE: u64 = 1 << 20;
    const QUANTA: u64 = SIZE >> 12;
    let mm = machine.mm();
    let scullp = Scullp::load(mm, Pages::KIND.defaults)?;
    let mut file = scullp.open(0, Mode::Write)?;
    for _ in 0..SIZE / 4096 {
        file.write_all(&[7; 4096])?;
    }
    drop(file);
    const DIGITS: usize = size_of::<usize>() * 2;
    let address = |text: &str| -> Result<usize, Failure> {
        equal(text.len() as u64, DIGITS as u64, "an address has all its digits")?;
        let value = some(usize::from_str_radix(text, 16).ok(), "in hexadecimal")?;
        let page = mm.virt_to_page(kmem::VirtAddr::new(value));
        check(page.is_some_and(|page| mm.page_count(page) > 0), "of memory that is in use")?;
        Ok(value)
    };
    // Each device begins with an empty line; the first has one item, the others none.
    let last = 2 + 1 + QUANTA - 1;
    let mut lines = Lines::new(|number, line| match number {
        0 => check(line.is_empty(), "a line between devices"),
        1 => check(line == "Device 0: qset 500, order 0, sz 1048576", "the device's line"),
        2 => {
            let rest = some(line.strip_prefix("  item at "), "the item's line")?;
            let (item, set) = some(rest.split_once(", qset at "), "with its set")?;
            check(address(item)? != address(set)?, "which are two places")
        }
        number if number <= last => {
            let (index, quantum) = some(line.split_once(':'), "a quantum's line")?;
            let mut wanted = Text::new();
            write!(wanted, "{:>8}", number - 3)?;
            check(index == wanted.as_str(), "its index, in eight columns")?;
            equal(address(quantum)? as u64 % 4096, 0, "its address: a page")
        }
        number => {
            let device = (number - last).div_ceil(2);
            let mut wanted = Text::new();
            if (number - last).is_multiple_of(2) {
                write!(wanted, "Device {device}: qset 500, order 0, sz 0")?;
            }
            check(line == wanted.as_str(), "the empty devices' lines")
        }
    });
    scullp.write_mem(&mut lines)?;
    equal(lines.finish()?, last + 1 + 2 * 3, "there are no other lines")
}

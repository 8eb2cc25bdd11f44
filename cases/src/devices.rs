//! G16: scullp, the sample device whose quanta are pages.

use core::fmt::Write;

use kmem::GFP_KERNEL;
use scull::{Mode, Parameters, Scullp};

use crate::failure::{check, equal, some};
use crate::pages::anywhere;
use crate::text::{Lines, Text};
use crate::{Case, Facts, Failure, Machine, Snapshot};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "scullp's quanta are 2^order pages, cleared, and freed with their order",
                &["A310"],
                anywhere,
                quanta,
            ),
            Case::new(
                "/proc/scullpmem has the text's shape, and its sizes for a file of 1 MB",
                &["A315"],
                small_pages,
                memory_file,
            ),
            Case::new(
                "what was written stays until the device is trimmed or unloaded",
                &["A317"],
                anywhere,
                persistence,
            ),
        ]
    }
}

fn small_pages(facts: &Facts) -> Result<(), &'static str> {
    if facts.page_shift == 12 { Ok(()) } else { Err("pages of 4 KiB, as in the text") }
}

impl From<scull::ScullError> for Failure {
    #[track_caller]
    fn from(_: scull::ScullError) -> Self {
        Failure::new("a call of the driver succeeds")
    }
}

fn quanta<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    equal(Parameters::DEFAULT.order.into(), 0, "the default order")?;
    // What a first byte costs, by order: the quantum and, each time the same, list and set.
    let mut costs = [0; 4];
    for (order, cost) in (0..).zip(&mut costs) {
        // The pages that the quanta get were written to before.
        for order in [order, order, 0, 0, 0, 0] {
            mm.pages(GFP_KERNEL, order)?.bytes_mut().fill(0xa5);
        }
        let scullp = Scullp::load(mm, Parameters { order, ..Parameters::DEFAULT })?;
        let free = mm.free_page_count();
        let quantum = machine.facts().page_bytes() << order;
        let mut file = scullp.open(0, Mode::ReadWrite)?;
        file.seek(quantum - 1);
        file.write_all(&[1])?;
        *cost = free - mm.free_page_count();

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
        equal(cost - costs[0], (1 << order) - 1, "only the quantum grows with the order")?;
    }
    before.same(&Snapshot::take(machine))
}

fn memory_file<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SIZE: u64 = 1 << 20;
    const QUANTA: u64 = SIZE >> 12;
    let mm = machine.mm();
    let scullp = Scullp::load(mm, Parameters::DEFAULT)?;
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

fn persistence<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    let scullp = Scullp::load(mm, Parameters::DEFAULT)?;
    let pattern = |at: u64| (at % 253) as u8 ^ 0x3c;
    const SIZE: u64 = 100_000;
    let mut file = scullp.open(1, Mode::Write)?;
    for at in 0..SIZE {
        file.write_all(&[pattern(at)])?;
    }
    drop(file);
    for _ in 0..2 {
        let mut file = scullp.open(1, Mode::Read)?;
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
    equal(scullp.size(0)?, 0, "and only in the device that they were written to")?;
    drop(scullp.open(1, Mode::Write)?);
    equal(scullp.size(1)?, 0, "opening for writing trims the device")?;
    let mut byte = [0];
    equal(scullp.open(1, Mode::Read)?.read(&mut byte)? as u64, 0, "nothing is left to read")?;
    scullp.open(2, Mode::Write)?.write_all(&[1; 10_000])?;
    drop(scullp);
    before.same(&Snapshot::take(machine))
}

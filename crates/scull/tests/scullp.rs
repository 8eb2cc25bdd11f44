//! scullp on a machine inside this process.

use std::sync::Arc;

use kmem::{CpuId, GFP_KERNEL, Gfp, Mm, NoReclaim, Page};
use kmem_host::{Description, Host, Machine};
use scull::{Errno, Mode, Parameters, ScullError, Scullp};

const PAGE: usize = 4096;

type TestMm = Mm<Host<12>, NoReclaim>;

/// Runs `work` as a task on a new machine, and fails if any page was lost.
fn on_tiny(work: impl FnOnce(&TestMm)) {
    let machine = boot();
    machine.run_on(CpuId::BOOT, || {
        let mm = machine.mm();
        let before = free_lists(mm);
        work(mm);
        assert_eq!(free_lists(mm), before);
        mm.verify().unwrap();
    });
    assert_eq!(machine.misuses(), [""; 0]);
}

fn boot() -> Arc<Machine<12, NoReclaim>> {
    Machine::boot(&Description::preset("tiny").unwrap()).unwrap()
}

/// How many free blocks each zone has of each order.
fn free_lists(mm: &TestMm) -> Vec<Vec<u64>> {
    mm.drain_all_pages();
    let orders = 0..=mm.largest_order().get();
    mm.zones()
        .iter()
        .map(|zone| {
            let orders = orders.clone().filter_map(kmem::Order::new);
            orders.map(|order| mm.free_blocks(zone, order)).collect()
        })
        .collect()
}

fn load(mm: &TestMm, order: u32) -> Scullp<'_, Host<12>, NoReclaim> {
    Scullp::load(mm, Parameters { order, ..Parameters::DEFAULT }).unwrap()
}

/// Bytes that no page repeats.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn read_all(module: &Scullp<'_, Host<12>, NoReclaim>, device: u32) -> Vec<u8> {
    let mut file = module.open(device, Mode::Read).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Takes pages until there are none left for `GFP_KERNEL`.
fn take_all(mm: &TestMm) -> Vec<Page> {
    std::iter::from_fn(|| mm.alloc_page(GFP_KERNEL | Gfp::NOWARN).ok()).collect()
}

fn give_back(mm: &TestMm, pages: impl IntoIterator<Item = Page>) {
    for page in pages {
        // SAFETY: the pages came from `take_all`, and nothing uses them.
        unsafe { mm.__free_page(page) };
    }
}

/// A317
#[test]
fn what_is_written_is_read_until_the_module_is_unloaded() {
    on_tiny(|mm| {
        for order in 0..4 {
            let module = load(mm, order);
            let contents: Vec<_> = (0..4).map(|device| pattern(700_001, device)).collect();
            for (device, content) in (0..).zip(&contents) {
                module.open(device, Mode::Write).unwrap().write_all(content).unwrap();
            }
            for (device, content) in (0..).zip(&contents) {
                assert_eq!(module.size(device).unwrap(), 700_001);
                assert!(read_all(&module, device) == *content, "order {order}, device {device}");
            }
        }
    });
}

#[test]
fn a_call_goes_to_the_end_of_a_quantum() {
    on_tiny(|mm| {
        for order in [0, 2] {
            let quantum = PAGE << order;
            let module = load(mm, order);
            let data = vec![1; 3 * quantum];
            let mut file = module.open(0, Mode::ReadWrite).unwrap();
            assert_eq!(file.write(&data).unwrap(), quantum);
            file.seek(quantum as u64 + 10);
            assert_eq!(file.write(&data).unwrap(), quantum - 10);
            assert_eq!(file.write(&data[..7]).unwrap(), 7);
            assert_eq!(module.size(0).unwrap(), 2 * quantum as u64 + 7);
            let mut out = vec![0; 3 * quantum];
            file.seek(5);
            assert_eq!(file.read(&mut out).unwrap(), quantum - 5);
            file.seek(2 * quantum as u64);
            assert_eq!(file.read(&mut out).unwrap(), 7);
            assert_eq!(file.read(&mut out).unwrap(), 0);
            assert_eq!(file.write(&[]).unwrap(), 0);
        }
    });
}

/// A317: opening for writing alone trims; opening for both does not.
#[test]
fn opening_for_writing_trims() {
    on_tiny(|mm| {
        let module = load(mm, 0);
        let loaded = free_lists(mm);
        module.open(1, Mode::Write).unwrap().write_all(&pattern(50_000, 1)).unwrap();
        drop(module.open(1, Mode::ReadWrite).unwrap());
        drop(module.open(1, Mode::Read).unwrap());
        assert_eq!(module.size(1).unwrap(), 50_000);
        assert_ne!(free_lists(mm), loaded);
        drop(module.open(1, Mode::Write).unwrap());
        assert_eq!(module.size(1).unwrap(), 0);
        assert_eq!(free_lists(mm), loaded);
    });
}

/// A310: each quantum takes 2^order pages, and gives them back with the same order.
#[test]
fn quanta_are_blocks_of_the_order() {
    on_tiny(|mm| {
        for order in 0..6 {
            let module = load(mm, order);
            let loaded = mm.free_page_count();
            let mut file = module.open(0, Mode::Write).unwrap();
            file.write_all(&vec![1; (PAGE << order) * 10]).unwrap();
            // Ten quanta, a quantum set and an item, each of which is a page.
            assert_eq!(loaded - mm.free_page_count(), (10 << order) + 2, "order {order}");
        }
    });
}

/// A310
#[test]
fn quanta_are_cleared() {
    on_tiny(|mm| {
        let pages = take_all(mm);
        for page in &pages {
            let address = mm.page_address(*page).unwrap();
            // SAFETY: the page is this test's.
            unsafe { address.as_ptr::<u8>().write_bytes(0xff, PAGE) };
        }
        give_back(mm, pages);
        let module = load(mm, 1);
        let mut file = module.open(0, Mode::ReadWrite).unwrap();
        for quantum in 0..100 {
            file.seek(quantum * 2 * PAGE as u64 + 8191);
            file.write(&[7]).unwrap();
        }
        let bytes = read_all(&module, 0);
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(*byte, if index % 8192 == 8191 { 7 } else { 0 }, "byte {index}");
        }
    });
}

#[test]
fn holes_read_as_zeroes() {
    on_tiny(|mm| {
        let module = load(mm, 0);
        let far = 1_234 * PAGE as u64 + 100;
        let mut file = module.open(0, Mode::Write).unwrap();
        file.seek(far);
        file.write(b"end").unwrap();
        let bytes = read_all(&module, 0);
        assert_eq!(bytes.len() as u64, far + 3);
        assert!(bytes[..far as usize].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[far as usize..], b"end");
    });
}

/// A315: the text's sample, byte for byte but for the addresses.
#[test]
fn scullpmem_has_the_texts_shape() {
    on_tiny(|mm| {
        let module = load(mm, 0);
        module.open(0, Mode::Write).unwrap().write_all(&pattern(1 << 20, 1)).unwrap();
        // Two items: of the first only the place is shown.
        module.open(2, Mode::Write).unwrap().write_all(&pattern(501 * PAGE, 2)).unwrap();
        let mut text = String::new();
        module.write_mem(&mut text).unwrap();

        let mut shape = String::new();
        let mut addresses = std::collections::BTreeSet::new();
        let mut digits = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_hexdigit() {
                digits.push(c);
                continue;
            }
            if digits.len() == 16 {
                addresses.insert(usize::from_str_radix(&digits, 16).unwrap());
                digits = "ADDRESS".into();
            }
            shape += &std::mem::take(&mut digits);
            shape.push(c);
        }
        let mut expected = String::from(
            "\nDevice 0: qset 500, order 0, sz 1048576\n  item at ADDRESS, qset at ADDRESS\n",
        );
        for index in 0..256 {
            expected += &format!("{index:>8}:ADDRESS\n");
        }
        expected += "\nDevice 1: qset 500, order 0, sz 0\n";
        expected += "\nDevice 2: qset 500, order 0, sz 2052096\n";
        expected += "  item at ADDRESS, qset at ADDRESS\n  item at ADDRESS, qset at ADDRESS\n";
        expected += "       0:ADDRESS\n";
        expected += "\nDevice 3: qset 500, order 0, sz 0\n\0";
        assert_eq!(shape, expected);
        // Each is a page of its own, in use.
        assert_eq!(addresses.len(), 256 + 2 + 4 + 1);
        for address in addresses {
            let page = mm.virt_to_page(kmem::VirtAddr::new(address)).unwrap();
            assert_eq!((address % PAGE, mm.page_count(page)), (0, 1));
        }
    });
}

/// A143, A319: whatever number of pages is left, a write that does not get all it needs changes
/// nothing and loses nothing.
#[test]
fn running_out_at_any_point_leaves_the_device_as_it_was() {
    on_tiny(|mm| {
        for (order, qset, position) in [(0, 500, 0), (0, 3, 10 * PAGE as u64), (1, 2, 30_000)] {
            let mut failures = 0;
            for left in 0.. {
                let module = Scullp::load(mm, Parameters { devices: 1, order, qset }).unwrap();
                let mut file = module.open(0, Mode::Write).unwrap();
                file.write(b"kept").unwrap();
                let mut pages = take_all(mm);
                // The pages that come back lie side by side where they can, for order 1.
                pages.sort();
                give_back(mm, pages.drain(..left.min(pages.len())));
                mm.drain_all_pages();
                let free = mm.free_page_count();
                // In another item than the first.
                file.seek(position + ((u64::from(qset) * PAGE as u64) << order));
                let result = file.write(b"added");
                let size = module.size(0).unwrap();
                let done = match result {
                    Ok(count) => {
                        assert_eq!(count, 5);
                        true
                    }
                    Err(error) => {
                        assert!(matches!(error, ScullError::NoMemory(_)), "{error}");
                        assert_eq!(error.errno(), Errno::Enomem);
                        assert_eq!(mm.free_page_count(), free, "{left} pages left");
                        assert_eq!(size, 4);
                        failures += 1;
                        false
                    }
                };
                assert_eq!(&read_all(&module, 0)[..4], b"kept");
                give_back(mm, pages);
                if done {
                    break;
                }
                // With memory there again, the same write goes through.
                file.write_all(b"added").unwrap();
                assert_eq!(read_all(&module, 0).split_off(size as usize).last(), Some(&b'd'));
            }
            // A quantum, a set and an item at least were each missing once.
            assert!(failures >= 3, "{failures}");
        }
    });
}

/// A319: a device takes all there is, says so, and works on.
#[test]
fn a_full_machine_is_an_error_and_trimming_helps() {
    on_tiny(|mm| {
        let module = load(mm, 3);
        let data = pattern(PAGE << 3, 9);
        let mut file = module.open(0, Mode::Write).unwrap();
        let mut quanta = 0;
        let error = loop {
            match file.write(&data) {
                Ok(count) => quanta += u64::from(count == data.len()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.errno().name(), "ENOMEM");
        assert_eq!(module.size(0).unwrap(), quanta * data.len() as u64);
        assert!(read_all(&module, 0).chunks(data.len()).all(|quantum| quantum == data));
        drop(module.open(0, Mode::Write).unwrap());
        module.open(1, Mode::Write).unwrap().write_all(&data).unwrap();
        assert!(read_all(&module, 1) == data);
    });
}

/// A319 says one user at a time; more than one must not corrupt anything.
#[test]
fn tasks_on_several_cpus_share_a_device() {
    const TASKS: usize = 4;
    const ROUNDS: usize = 300;
    let machine = boot();
    machine.run_on(CpuId::BOOT, || {
        let before = free_lists(machine.mm());
        let module = load(machine.mm(), 0);
        // Each task has every fourth record; a page has records of all.
        let work = |task: usize| {
            let mut file = module.open(0, Mode::ReadWrite).unwrap();
            for round in 0..ROUNDS {
                let record = round * TASKS + task;
                file.seek(record as u64 * 100);
                file.write_all(&[record as u8; 100]).unwrap();
                if round % 64 == 0 {
                    module.write_mem(&mut String::new()).unwrap();
                }
            }
        };
        // The tasks need this CPU too.
        machine.without_cpu(|| {
            std::thread::scope(|scope| {
                for task in 0..TASKS {
                    let cpu = CpuId::new(task as u32 % 2).unwrap();
                    let machine = &machine;
                    scope.spawn(move || machine.run_on(cpu, || work(task)));
                }
            });
        });
        let bytes = read_all(&module, 0);
        assert_eq!(bytes.len(), TASKS * ROUNDS * 100);
        for (record, bytes) in bytes.chunks(100).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == record as u8), "record {record}");
        }
        assert_eq!(module.open_files(), 0);
        drop(module);
        assert_eq!(free_lists(machine.mm()), before);
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    on_tiny(|mm| {
        let defaults = Parameters::DEFAULT;
        for (parameters, name) in [
            (Parameters { devices: 0, ..defaults }, "devices=0"),
            (Parameters { devices: 1 << 20, ..defaults }, "devices=1048576"),
            (Parameters { order: 11, ..defaults }, "order=11"),
            (Parameters { qset: 0, ..defaults }, "qset=0"),
        ] {
            let error = Scullp::load(mm, parameters).err().unwrap();
            assert_eq!(error.errno(), Errno::Einval);
            assert!(error.to_string().contains(name), "{error}");
        }
        let module = load(mm, 0);
        assert_eq!(module.open(4, Mode::Read).err().unwrap().errno(), Errno::Enodev);
        let mut file = module.open(0, Mode::Read).unwrap();
        assert_eq!(file.write(b"x").unwrap_err().errno(), Errno::Ebadf);
        let mut file = module.open(0, Mode::Write).unwrap();
        assert_eq!(file.read(&mut [0]).unwrap_err().errno(), Errno::Ebadf);
        file.seek(u64::MAX);
        assert_eq!(file.write(b"x").unwrap_err().errno(), Errno::Efbig);
    });
}

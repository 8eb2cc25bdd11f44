//! What modules of every kind do, on a machine inside this process.

mod common;

use common::*;
use kmem::{CpuId, GFP_KERNEL};
use scull::{
    Areas, Errno, Kmalloc, Mode, Module, Pages, Parameters, ScullError, SlabCache, Source,
};

/// The sizes that each kind is tried with: the text's, and others.
fn sizes<S: Source>() -> &'static [u64] {
    match S::KIND.name {
        "scullp" => &[0, 1, 3],
        "scullv" => &[0, 2, 4],
        _ => &[4000, 1, 100, 2600, 4096, 5000, 20_000],
    }
}

/// The bytes of a quantum.
fn bytes<S: Source>(size: u64) -> u64 {
    if S::KIND.size == "order" { (PAGE as u64) << size } else { size }
}

/// A303, A304, A310, A313
#[test]
fn defaults_are_the_texts() {
    let of = |devices, size, qset| Parameters { devices, size, qset, quota: 0 };
    assert_eq!(Kmalloc::KIND.defaults, of(4, 4000, 1000));
    assert_eq!(SlabCache::KIND.defaults, of(4, 4000, 500));
    assert_eq!(Pages::KIND.defaults, of(4, 0, 500));
    assert_eq!(Areas::KIND.defaults, of(4, 4, 500));
    let names = [Kmalloc::KIND.name, SlabCache::KIND.name, Pages::KIND.name, Areas::KIND.name];
    assert_eq!(names, ["scull", "scullc", "scullp", "scullv"]);
}

/// A303, A304, A307, A310, A317
#[test]
fn what_is_written_is_read_until_the_module_is_unloaded() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            for size in sizes::<S>() {
                // A list of single bytes is long, and walked at each call.
                let length = if *size == 1 { 5_001 } else { 700_001 };
                let module = load::<S>(mm, *size);
                let contents: Vec<_> = (0..4).map(|device| pattern(length, device)).collect();
                for (device, content) in (0..).zip(&contents) {
                    module.open(device, Mode::Write).unwrap().write_all(content).unwrap();
                }
                for (device, content) in (0..).zip(&contents) {
                    assert_eq!(module.size(device).unwrap(), length as u64);
                    assert!(read_all(&module, device) == *content, "{size}, device {device}");
                }
            }
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

#[test]
fn a_call_goes_to_the_end_of_a_quantum() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            for size in sizes::<S>().iter().filter(|size| bytes::<S>(**size) > 20) {
                let quantum = bytes::<S>(*size) as usize;
                let module = load::<S>(mm, *size);
                let data = vec![1; 3 * quantum];
                let mut file = module.open(0, Mode::ReadWrite).unwrap();
                assert_eq!(file.write(&data).unwrap(), quantum);
                file.seek(quantum as u64 + 10);
                assert_eq!(file.write(&data).unwrap(), quantum - 10);
                assert_eq!(file.write(&data[..7]).unwrap(), 7);
                assert_eq!(file.position(), 2 * quantum as u64 + 7);
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
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

/// A307, A317: opening for writing alone trims; opening for both does not.
#[test]
fn opening_for_writing_trims() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            let module = load::<S>(mm, S::KIND.defaults.size);
            // The cache's own share of each CPU is there from now on.
            module.open(1, Mode::Write).unwrap().write_all(b"x").unwrap();
            drop(module.open(1, Mode::Write).unwrap());
            let loaded = settled(mm);
            module.open(1, Mode::Write).unwrap().write_all(&pattern(50_000, 1)).unwrap();
            drop(module.open(1, Mode::ReadWrite).unwrap());
            drop(module.open(1, Mode::Read).unwrap());
            assert_eq!(module.size(1).unwrap(), 50_000);
            assert_ne!(settled(mm), loaded);
            drop(module.open(1, Mode::Write).unwrap());
            assert_eq!((module.size(1).unwrap(), module.held(1).unwrap()), (0, 0));
            assert_eq!(settled(mm), loaded);
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

/// A306, A310
#[test]
fn quanta_are_cleared() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            for size in sizes::<S>().iter().filter(|size| bytes::<S>(**size) > 20) {
                soil(mm);
                let quantum = bytes::<S>(*size);
                let module = load::<S>(mm, *size);
                // The second time they come from what was just given back, written all over.
                for _ in 0..2 {
                    let mut file = module.open(0, Mode::Write).unwrap();
                    for number in 0..100 {
                        file.seek((number + 1) * quantum - 1);
                        file.write(&[7]).unwrap();
                    }
                    for (index, byte) in (0..).zip(read_all(&module, 0)) {
                        let wanted = if index % quantum == quantum - 1 { 7 } else { 0 };
                        assert_eq!(byte, wanted, "{size}, byte {index}");
                    }
                    file.seek(0);
                    file.write_all(&vec![0xff; 100 * quantum as usize]).unwrap();
                }
            }
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

#[test]
fn holes_read_as_zeroes() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            let module = load::<S>(mm, S::KIND.defaults.size);
            // In the third set.
            let far = 2_345 * 4096 + 100;
            let mut file = module.open(0, Mode::Write).unwrap();
            file.seek(far);
            file.write(b"end").unwrap();
            let bytes = read_all(&module, 0);
            assert_eq!(bytes.len() as u64, far + 3);
            assert!(bytes[..far as usize].iter().all(|byte| *byte == 0));
            assert_eq!(&bytes[far as usize..], b"end");
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

/// A315: the texts' lines, byte for byte but for the addresses.
#[test]
fn the_file_in_proc_has_the_texts_shape() {
    fn of<S: Source>(line: &str) {
        on_tiny(|mm| {
            let qset = S::KIND.defaults.qset as usize;
            let quantum = bytes::<S>(S::KIND.defaults.size) as usize;
            let module = load::<S>(mm, S::KIND.defaults.size);
            module.open(0, Mode::Write).unwrap().write_all(&pattern(256 * quantum, 1)).unwrap();
            // Two items: of the first only the place is shown.
            let second = pattern((qset + 1) * quantum, 2);
            module.open(2, Mode::Write).unwrap().write_all(&second).unwrap();
            let mut text = String::new();
            module.write_mem(&mut text).unwrap();

            let (shape, addresses) = without_addresses(&text);
            let device =
                |number: u32, size: usize| format!("\nDevice {number}: {line}, sz {size}\n");
            let item = "  item at ADDRESS, qset at ADDRESS\n";
            let mut expected = device(0, 256 * quantum) + item;
            for index in 0..256 {
                expected += &format!("{index:>8}:ADDRESS\n");
            }
            expected += &device(1, 0);
            expected += &device(2, second.len());
            expected += item;
            expected += item;
            expected += "       0:ADDRESS\n";
            expected += &device(3, 0);
            assert_eq!(shape, expected);
            // Each is memory of its own, in use.
            assert_eq!(addresses.len(), 256 + 2 + 4 + 1);
            for address in addresses {
                let page = mm.virt_to_page(kmem::VirtAddr::new(address)).unwrap();
                assert_eq!(mm.page_count(mm.compound_head(page)), 1, "{address:#x}");
            }
        });
    }
    of::<Kmalloc>("qset 1000, q 4000");
    of::<SlabCache>("qset 500, quantum 4000");
    of::<Pages>("qset 500, order 0");
}

/// A text with `ADDRESS` for each address, and the addresses.
fn without_addresses(text: &str) -> (String, std::collections::BTreeSet<usize>) {
    const DIGITS: usize = size_of::<usize>() * 2;
    let (mut shape, mut addresses) = (String::new(), std::collections::BTreeSet::new());
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_hexdigit() {
            digits.push(c);
            continue;
        }
        if digits.len() == DIGITS {
            addresses.insert(usize::from_str_radix(&digits, 16).unwrap());
            digits = "ADDRESS".into();
        }
        shape += &std::mem::take(&mut digits);
        shape.push(c);
    }
    (shape, addresses)
}

/// A143, A306, A319: whatever number of pages is left, a module that does not get all it needs is
/// not loaded, and a write changes nothing and loses nothing.
#[test]
fn running_out_at_any_point_leaves_the_device_as_it_was() {
    fn of<S: Source>(cases: &[(u64, u64, u64)]) {
        on_tiny(|mm| {
            for (size, qset, position) in cases {
                let parameters = Parameters { devices: 1, size: *size, qset: *qset, quota: 0 };
                let far = position + qset * bytes::<S>(*size);
                let (mut unloaded, mut failures) = (0, 0);
                for left in 0.. {
                    let mut pages = take_all(mm);
                    // The pages that come back lie side by side where they can, for larger blocks.
                    pages.sort();
                    give_back(mm, pages.drain(..left.min(pages.len())));
                    mm.drain_all_pages();
                    let before = settled(mm);
                    let done = match Module::<S, _, _>::load(mm, parameters) {
                        Ok(module) => {
                            let mut file = module.open(0, Mode::Write).unwrap();
                            file.seek(far);
                            match file.write(b"added") {
                                Ok(count) => {
                                    assert!((1..=5).contains(&count));
                                    let read = read_all(&module, 0);
                                    assert_eq!(read[far as usize..], b"added"[..count]);
                                    true
                                }
                                Err(error) => {
                                    assert!(matches!(error, ScullError::NoMemory(_)), "{error}");
                                    assert_eq!(error.errno(), Errno::Enomem);
                                    let empty = (module.size(0).unwrap(), module.held(0).unwrap());
                                    assert_eq!((empty, file.position()), ((0, 0), far));
                                    failures += 1;
                                    // With memory there again, the same write goes through.
                                    give_back(mm, pages.drain(..));
                                    file.write_all(b"added").unwrap();
                                    assert_eq!(read_all(&module, 0).last(), Some(&b'd'));
                                    drop(module.open(0, Mode::Write).unwrap());
                                    pages = take_all(mm);
                                    pages.sort();
                                    give_back(mm, pages.drain(..left.min(pages.len())));
                                    false
                                }
                            }
                        }
                        Err(error) => {
                            assert_eq!(error.errno(), Errno::Enomem, "{error}");
                            unloaded += 1;
                            false
                        }
                    };
                    let after = settled(mm);
                    assert_eq!(after.1, before.1, "{left} pages left");
                    give_back(mm, pages);
                    if done {
                        break;
                    }
                }
                // The table; and a quantum, a set and an item were each missing once.
                assert!(unloaded >= 1, "{unloaded}");
                assert!(failures >= 3, "{failures}");
            }
        });
    }
    of::<Kmalloc>(&[
        (4000, 1000, 0),
        (4000, 1000, 10 * 4000),
        (2600, 600, 0),
        (9000, 2000, 30_000),
    ]);
    of::<SlabCache>(&[
        (4000, 500, 0),
        (4000, 600, 10 * 4000),
        (2600, 700, 0),
        (9000, 2000, 30_000),
    ]);
    of::<Pages>(&[(0, 500, 0), (0, 500, 10 * 4096), (1, 1000, 30_000)]);
}

/// A165, A319: a device without a quota takes all there is, says so, and works on.
#[test]
fn a_full_machine_is_an_error_and_trimming_helps() {
    fn of<S: Source>() {
        on_tiny(|mm| {
            // A list of small quanta takes long to walk.
            for size in sizes::<S>().iter().filter(|size| bytes::<S>(**size) > 1000) {
                let module = load::<S>(mm, *size);
                let data = pattern(bytes::<S>(*size) as usize, 9);
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
            }
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

/// A165: what a device holds never exceeds its quota, whatever it is made of; the refusal changes
/// nothing, and others have the rest of the machine.
#[test]
fn a_quota_stops_a_device_before_the_machine_is_full() {
    fn of<S: Source>() {
        const QUOTA: u64 = 1 << 20;
        on_tiny(|mm| {
            let defaults = S::KIND.defaults;
            let parameters = Parameters { quota: QUOTA, qset: 10, ..defaults };
            let module = Module::<S, _, _>::load(mm, parameters).unwrap();
            let quantum = bytes::<S>(defaults.size);
            let data = pattern(quantum as usize, 5);
            let free = mm.free_page_count();
            let mut file = module.open(0, Mode::Write).unwrap();
            let error = loop {
                if let Err(error) = file.write(&data) {
                    break error;
                }
            };
            assert_eq!((error.errno(), error.errno().number()), (Errno::Enospc, 28));
            let (size, held) = (module.size(0).unwrap(), module.held(0).unwrap());
            assert!(held <= QUOTA && held > QUOTA - 2 * quantum, "{held}");
            // Ten quanta have a set of ten pointers and an item.
            let sets = (size / quantum).div_ceil(10);
            assert_eq!(held, size + sets * (10 * 8 + 32));
            assert_eq!(file.position(), size);
            let taken = free - mm.free_page_count();
            assert!(taken < (2 * QUOTA) / PAGE as u64, "{taken} pages");
            // Far away it is items that would be too many; nothing is allocated to find out.
            file.seek(1 << 50);
            assert_eq!(file.write(b"x").unwrap_err().errno(), Errno::Enospc);
            assert_eq!(module.held(0).unwrap(), held);
            // What it holds may be written again; another device has a quota of its own.
            file.seek(0);
            file.write_all(&data).unwrap();
            module.open(1, Mode::Write).unwrap().write_all(&data).unwrap();
            mm.pages(GFP_KERNEL, 10).unwrap();
            module.open(0, Mode::Write).unwrap().write_all(&data).unwrap();
            assert_eq!(module.held(0).unwrap(), quantum + 10 * 8 + 32);
        });
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

/// A319 says one user at a time; more than one must not corrupt anything.
#[test]
fn tasks_on_several_cpus_share_a_device() {
    fn of<S: Source>() {
        const TASKS: usize = 4;
        const ROUNDS: usize = 300;
        let machine = boot();
        machine.run_on(CpuId::BOOT, || {
            warm(&machine);
            let before = settled(machine.mm());
            let module = load::<S>(machine.mm(), S::KIND.defaults.size);
            // Each task has every fourth record; a quantum has records of all.
            let work = |task: usize| {
                let mut file = module.open(0, Mode::ReadWrite).unwrap();
                for round in 0..ROUNDS {
                    let record = round * TASKS + task;
                    file.seek(record as u64 * 100);
                    file.write_all(&[record as u8; 100]).unwrap();
                    if round % 64 == 0 {
                        module.write_mem(&mut String::new()).unwrap();
                        module.set_qset(100 + task as u64).unwrap();
                    }
                }
            };
            // The tasks need this CPU too.
            machine.without_cpu(|| {
                std::thread::scope(|scope| {
                    for task in 0..TASKS {
                        let cpu = CpuId::new(task as u32 % 2).unwrap();
                        let (machine, work) = (&machine, &work);
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
            assert_eq!(settled(machine.mm()), before);
        });
        assert_eq!(machine.misuses(), [""; 0]);
    }
    of::<Kmalloc>();
    of::<SlabCache>();
    of::<Pages>();
    of::<Areas>();
}

#[test]
fn what_makes_no_sense_is_refused() {
    fn of<S: Source>(size: &str, smallest: &str, sizes: [u64; 2]) {
        on_tiny(|mm| {
            let defaults = S::KIND.defaults;
            for (parameters, name) in [
                (Parameters { devices: 0, ..defaults }, "devices=0"),
                (Parameters { devices: 1 << 20, ..defaults }, "devices=1048576"),
                (Parameters { qset: 0, ..defaults }, "qset=0"),
                (Parameters { qset: u64::MAX, ..defaults }, "qset=18446744073709551615"),
                (Parameters { size: sizes[0], ..defaults }, smallest),
                (Parameters { size: sizes[1], ..defaults }, size),
                (Parameters { size: u64::MAX, ..defaults }, "=18446744073709551615"),
            ] {
                let error = Module::<S, _, _>::load(mm, parameters).err().unwrap();
                assert_eq!(error.errno(), Errno::Einval);
                assert!(error.to_string().contains(name), "{error}");
            }
            let module = load::<S>(mm, defaults.size);
            assert_eq!(module.open(4, Mode::Read).err().unwrap().errno(), Errno::Enodev);
            assert_eq!(module.open(1 << 32, Mode::Read).err().unwrap().errno(), Errno::Enodev);
            assert_eq!(module.set_qset(0).unwrap_err().errno(), Errno::Einval);
            let mut file = module.open(0, Mode::Read).unwrap();
            assert_eq!(file.write(b"x").unwrap_err().errno(), Errno::Ebadf);
            let mut file = module.open(0, Mode::Write).unwrap();
            assert_eq!(file.read(&mut [0]).unwrap_err().errno(), Errno::Ebadf);
            file.seek(u64::MAX);
            assert_eq!(file.write(b"x").unwrap_err().errno(), Errno::Efbig);
        });
    }
    of::<Kmalloc>("quantum=4194305", "quantum=0", [0, (4 << 20) + 1]);
    of::<SlabCache>("quantum=4194305", "quantum=0", [0, (4 << 20) + 1]);
    of::<Pages>("order=11", "order=12", [12, 11]);
}

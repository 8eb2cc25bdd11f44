//! Devices that are made longer and shorter, appended to, and controlled by number.

mod common;

use common::*;
use kmem::CpuId;
use kmem::platform::UserMap;
use scull::{Areas, Driver, Kmalloc, Mode, Module, Pages, Parameters, SlabCache, Source, ioctl};

/// Random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Reads all of a device by the interface that has no files.
fn contents(driver: &dyn Driver, device: u64) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 3000]);
    loop {
        match driver.read(device, all.len() as u64, &mut buffer).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The bytes that a device needs for what was written: quanta, sets and items by number.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    quanta: std::collections::BTreeSet<u64>,
    sets: std::collections::BTreeSet<u64>,
    items: u64,
}

impl Model {
    fn write(&mut self, position: u64, data: &[u8], quantum: u64, qset: u64) {
        let end = position as usize + data.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[position as usize..end].copy_from_slice(data);
        for number in position / quantum..(end as u64).div_ceil(quantum) {
            self.quanta.insert(number);
            self.sets.insert(number / qset);
            self.items = self.items.max(number / qset + 1);
        }
    }

    fn truncate(&mut self, size: u64, quantum: u64, qset: u64) {
        if size < self.bytes.len() as u64 {
            let kept = size.div_ceil(quantum);
            self.quanta.retain(|number| *number < kept);
            self.items = self.items.min(kept.div_ceil(qset));
            self.sets.retain(|number| *number < self.items);
        }
        self.bytes.resize(size as usize, 0);
    }

    fn held(&self, quantum: u64, qset: u64) -> u64 {
        // An item has a link, and its set as an address and a length.
        self.quanta.len() as u64 * quantum + self.sets.len() as u64 * qset * 8 + self.items * 32
    }
}

/// A device does what an array of bytes does, and holds what those bytes need and no more.
#[test]
fn a_device_that_grows_and_shrinks_is_like_an_array() {
    fn of<S: Source>(size: u64, quantum: u64, seed: u64) {
        println!("{} seed {seed}", S::KIND.name);
        on_tiny(|mm| {
            let qset = 3;
            let parameters = Parameters { size, qset, devices: 1, ..S::KIND.defaults };
            let module = Module::<S, _, _>::load(mm, parameters).unwrap();
            let driver: &dyn Driver = &module;
            let (mut random, mut model) = (Random(seed), Model::default());
            // Reaches into the fourth item.
            let span = quantum * qset * 3 + quantum;
            for round in 0..1_500u64 {
                let data = pattern(1 + random.below(2 * quantum) as usize, round);
                match random.below(4) {
                    0 => {
                        let at = random.below(span);
                        let done = driver.write(0, at, &data).unwrap();
                        assert!(done > 0);
                        model.write(at, &data[..done], quantum, qset);
                    }
                    1 if (model.bytes.len() as u64) < span => {
                        let end = model.bytes.len() as u64;
                        let done = driver.append(0, &data).unwrap();
                        assert!(done > 0);
                        model.write(end, &data[..done], quantum, qset);
                    }
                    kind => {
                        // Ends of quanta and sets as often as any other.
                        let unit = [1, quantum, quantum * qset][random.below(3) as usize];
                        let longest = if kind == 2 { span } else { model.bytes.len() as u64 + 1 };
                        let at = random.below(longest) / unit * unit;
                        driver.truncate(0, at).unwrap();
                        model.truncate(at, quantum, qset);
                    }
                }
                assert_eq!(driver.size(0).unwrap(), model.bytes.len() as u64, "round {round}");
                assert_eq!(driver.held(0).unwrap(), model.held(quantum, qset), "round {round}");
                if round % 16 == 0 {
                    assert!(contents(driver, 0) == model.bytes, "round {round}");
                }
            }
        });
    }
    for seed in 1..4 {
        of::<Kmalloc>(100, 100, seed);
        of::<SlabCache>(256, 256, seed);
        of::<Pages>(0, 4096, seed);
        of::<Areas>(0, 4096, seed);
    }
}

/// What is cut off is given back to the machine, and not only to the device's account.
#[test]
fn what_is_cut_off_is_free_again() {
    on_tiny(|mm| {
        let parameters = Parameters { quota: 1 << 20, ..Pages::KIND.defaults };
        let module = Module::<Pages, _, _>::load(mm, parameters).unwrap();
        let mut file = module.open(0, Mode::Write).unwrap();
        file.write_all(&pattern(1_000_000, 1)).unwrap();
        let full = mm.free_page_count();
        module.truncate(0, 100_000).unwrap();
        assert_eq!(mm.free_page_count() - full, 1_000_000u64.div_ceil(4096) - 25);
        assert!(read_all(&module, 0) == pattern(1_000_000, 1)[..100_000]);
        // Within the quota again.
        file.seek(100_000);
        file.write_all(&pattern(900_000, 2)).unwrap();
        assert_eq!(module.truncate(4, 0).unwrap_err().errno().name(), "ENODEV");
    });
}

/// With 0 it is emptied as an open for writing does it: it has a new shape then.
#[test]
fn a_device_that_is_cut_to_nothing_takes_a_new_shape() {
    on_tiny(|mm| {
        let module = load::<Kmalloc>(mm, 100);
        module.open(0, Mode::Write).unwrap().write_all(&[1; 300]).unwrap();
        module.set_size(200).unwrap();
        module.truncate(0, 150).unwrap();
        assert_eq!(module.append(0, &[2; 500]).unwrap(), 50);
        module.truncate(0, 0).unwrap();
        assert_eq!(module.append(0, &[2; 500]).unwrap(), 200);
    });
}

/// A312: a user who has a device mapped keeps its pages.
#[test]
fn a_mapped_device_is_not_cut() {
    let machine = boot();
    machine.run_on(CpuId::BOOT, || {
        let module = load::<Pages>(machine.mm(), 0);
        module.open(0, Mode::Write).unwrap().write_all(&[1; 3 * PAGE]).unwrap();
        let user = machine.host();
        let mapped = module.mmap(0, user, user.range().start, 3, 0).unwrap();
        for size in [0, 100, 1 << 20] {
            assert_eq!(module.truncate(0, size).unwrap_err().errno().name(), "EBUSY");
        }
        assert_eq!(module.size(0).unwrap(), 3 * PAGE as u64);
        drop(mapped);
        module.truncate(0, 100).unwrap();
    });
    assert_eq!(machine.misuses(), [""; 0]);
}

/// Where the end is and the write are one step.
#[test]
fn what_several_tasks_append_is_all_there() {
    const TASKS: u64 = 4;
    const RECORDS: usize = 500;
    let machine = boot();
    machine.run_on(CpuId::BOOT, || {
        let module = load::<Kmalloc>(machine.mm(), 4000);
        machine.without_cpu(|| {
            std::thread::scope(|scope| {
                for task in 0..TASKS {
                    let cpu = CpuId::new(task as u32 % 2).unwrap();
                    let (machine, module) = (&machine, &module);
                    let append = move || {
                        for _ in 0..RECORDS {
                            // 4000 is a multiple of it: no record is torn at a quantum's end.
                            assert_eq!(module.append(1, &[task as u8; 8]).unwrap(), 8);
                        }
                    };
                    scope.spawn(move || machine.run_on(cpu, append));
                }
            });
        });
        let bytes = read_all(&module, 1);
        let mut records = [0; TASKS as usize];
        for record in bytes.chunks(8) {
            assert!(record.iter().all(|byte| *byte == record[0]));
            records[record[0] as usize] += 1;
        }
        assert_eq!(records, [RECORDS; TASKS as usize]);
    });
}

/// The numbers as the book's header makes them.
#[test]
fn controls_have_the_books_numbers() {
    assert_eq!(ioctl::RESET, 0x6b00);
    assert_eq!([ioctl::SET_QUANTUM, ioctl::SET_QSET], [0x4004_6b01, 0x4004_6b02]);
    assert_eq!([ioctl::GET_QUANTUM, ioctl::GET_QSET], [0x8004_6b05, 0x8004_6b06]);
    assert_eq!([ioctl::QUERY_QUANTUM, ioctl::QUERY_QSET], [0x6b07, 0x6b08]);
    assert_eq!([ioctl::EXCHANGE_QUANTUM, ioctl::EXCHANGE_QSET], [0xc004_6b09, 0xc004_6b0a]);
}

/// A305: of scullc the quantum stays; everywhere else both parameters are set and gotten.
#[test]
fn controls_set_and_get_parameters() {
    fn of<S: Source>(other: u64) {
        on_tiny(|mm| {
            let defaults = S::KIND.defaults;
            let module = load::<S>(mm, defaults.size);
            let call = |command, argument: &mut i32| ioctl::ioctl(&module, command, argument);
            let int = |value: u64| i32::try_from(value).unwrap();
            let mut argument = 7;
            assert_eq!(call(ioctl::SET_QSET, &mut argument), Ok(0));
            assert_eq!(call(ioctl::QUERY_QSET, &mut argument), Ok(7));
            argument = 8;
            assert_eq!(call(ioctl::EXCHANGE_QSET, &mut argument), Ok(0));
            assert_eq!(argument, 7);
            assert_eq!(call(ioctl::GET_QSET, &mut argument), Ok(0));
            assert_eq!((argument, module.parameters().qset), (8, 8));
            argument = int(other);
            let set = call(ioctl::EXCHANGE_QUANTUM, &mut argument);
            if S::KIND.resizable {
                assert_eq!((set, argument), (Ok(0), int(defaults.size)));
            } else {
                assert_eq!(set.unwrap_err().errno().name(), "EACCES");
                assert_eq!(argument, int(other));
            }
            let now = if S::KIND.resizable { other } else { defaults.size };
            assert_eq!(call(ioctl::QUERY_QUANTUM, &mut argument), Ok(int(now)));
            assert_eq!(call(ioctl::GET_QUANTUM, &mut argument), Ok(0));
            assert_eq!(argument, int(now));
            for wrong in [0, -1, i32::MIN, i32::MAX] {
                argument = wrong;
                for command in [ioctl::SET_QSET, ioctl::EXCHANGE_QSET] {
                    assert_eq!(call(command, &mut argument).unwrap_err().errno().name(), "EINVAL");
                    assert_eq!(argument, wrong);
                }
            }
            assert_eq!(call(ioctl::RESET, &mut argument), Ok(0));
            assert_eq!(module.parameters(), defaults);
            // By value, of another size, of another letter, of another direction.
            for command in [0x6b03, 0x6b04, 0x6b0b, 0x6b0c, 0x4008_6b01, 0x4004_6c01, 0x8004_6b01] {
                let error = call(command, &mut argument).unwrap_err();
                assert_eq!((error.errno().name(), error.errno().number()), ("ENOTTY", 25));
            }
            assert_eq!(module.parameters(), defaults);
        });
    }
    of::<Kmalloc>(123);
    of::<SlabCache>(123);
    of::<Pages>(2);
    of::<Areas>(1);
}

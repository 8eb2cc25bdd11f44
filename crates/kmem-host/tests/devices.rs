//! Registers of devices, and memory that devices use: beside models, with no memory left, on several CPUs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kmem::dma::{Direction, DmaAddr, DmaDevice, DmaError, DmaMask};
use kmem::io::{IoremapError, Registers};
use kmem::platform::DirectMap;
use kmem::{
    AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, Order, Page, PhysAddr, Touch, VirtAddr,
};
use kmem_host::{Description, EduCounters, Machine};

const PAGE: usize = 4096;
const DIRECTIONS: [Direction; 3] =
    [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional];

fn boot(preset: &str, settings: &[&str]) -> Arc<Machine> {
    let mut description = Description::preset(preset).unwrap();
    settings.iter().for_each(|setting| description.set(setting).unwrap());
    Machine::boot(&description).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a test as a task, and looks that the machine is in order afterwards.
fn on(preset: &str, test: impl FnOnce(&Machine)) {
    on_such(preset, &[], test);
}

fn on_such(preset: &str, settings: &[&str], test: impl FnOnce(&Machine)) {
    let machine = boot(preset, settings);
    machine.run_on(CpuId::BOOT, || test(&machine));
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 1) as usize
}

/// Pages at physical addresses of one's choice.
fn run_of(machine: &Machine, pages: u64, within: std::ops::Range<u64>) -> Page {
    let within = PhysAddr::new(within.start)..PhysAddr::new(within.end);
    machine.mm().alloc_contig_pages(pages, Order::ZERO, within, GFP_KERNEL).unwrap()
}

fn free_run(machine: &Machine, first: Page, pages: u64) {
    // SAFETY: the tests' own.
    unsafe { machine.mm().free_contig_pages(first, pages) };
}

/// Memory as a device sees it: by the address that it was told, whatever that is of.
#[allow(clippy::mut_from_ref)]
fn device_memory(machine: &Machine, told: DmaAddr, size: usize) -> &mut [u8] {
    let address = machine.host().phys_to_virt(PhysAddr::new(told.get())).unwrap();
    // SAFETY: the tests look only at what they have mapped.
    unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), size) }
}

#[test]
// A240, A241, A242
fn what_is_written_by_one_mapping_of_a_device_is_read_by_another() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let start = machine.host().device_window().start;
        let at = |offset: u64| PhysAddr::new(start.get() + offset);
        // SAFETY: the window is the model's, and what is written tells it of no memory.
        let iomem = |start, size| unsafe { mm.iomem(start, size) };
        let (one, two) =
            (iomem(at(PAGE as u64), 3 * PAGE).unwrap(), iomem(at(0x1ff0), 0x20).unwrap());
        one.writel(0xdead_beef, 0x1008).unwrap();
        assert_eq!(two.readl(0x18), Ok(0xdead_beef));
        two.memcpy_toio(0, b"0123456789abcdef01234567").unwrap();
        assert_eq!(one.readl(0x1000), Ok(u32::from_le_bytes(*b"0123")));
        let mut out = [0; 8];
        one.memcpy_fromio(&mut out, 0xff0).unwrap();
        assert_eq!(&out, b"01234567");
        let address = VirtAddr::from_ptr(two.start().as_ptr());
        let Some(Touch::Used(area, 0xff0)) = mm.explain_touch(address) else {
            panic!("{:?}", mm.explain_touch(address));
        };
        assert_eq!((area.physical, area.pages), (at(PAGE as u64), 2));
        assert!(area.caller.file().ends_with("tests/devices.rs"));
        drop(two);
        assert!(matches!(mm.explain_touch(address), Some(Touch::NoArea(_))));
        let frame_buffer = mm.ioremap_wc(at(0), PAGE).unwrap();
        // SAFETY: mapped above, and nothing uses it.
        unsafe { mm.iounmap(frame_buffer) };
    });
}

#[test]
// A240
fn a_mapping_that_is_dropped_where_it_must_not_sleep_is_reported_and_stays() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let window = machine.host().device_window();
        let registers = mm.ioremap(window.start, 8).unwrap();
        let off = machine.preempt_disable();
        // SAFETY: nothing uses it.
        unsafe { mm.iounmap(registers) };
        // SAFETY: it is refused.
        let refused = unsafe { mm.iomem(window.start, 8) }.map(drop);
        assert_eq!(refused, Err(IoremapError::Alloc(AllocError::Atomic)));
        drop(off);
        let misuses = machine.misuses();
        assert_eq!(misuses.len(), 2, "{misuses:#?}");
        assert!(misuses.iter().all(|line| line.contains("tests/devices.rs:")), "{misuses:#?}");
        assert_eq!(mm.vmalloc_info().areas, 1);
        // SAFETY: as above.
        unsafe { mm.iounmap(registers) };
        assert_eq!(mm.vmalloc_info().areas, 0);
    });
}

#[test]
// A240
fn ram_of_any_kind_is_refused_and_holes_are_not() {
    on("holes", |machine| {
        let mm = machine.mm();
        // Reserved, the kernel's, and RAM with a hole on either side.
        for start in [0xa_0000u64 - 0x1000, 2 << 20, 64 << 20, (84 << 20) - 0x1000] {
            let refused = mm.ioremap(PhysAddr::new(start), 3 * PAGE);
            let is_ram = matches!(refused, Err(IoremapError::Ram(_)));
            assert_eq!(is_ram, start != 0xa_0000 - 0x1000 || refused.is_err(), "{start:#x}");
            if let Ok(registers) = refused {
                // SAFETY: mapped above.
                unsafe { mm.iounmap(registers) };
            }
        }
        // From 180 to 200 MiB there is nothing.
        let registers = mm.ioremap(PhysAddr::new(185 << 20), PAGE).unwrap();
        // SAFETY: mapped above.
        unsafe { mm.iounmap(registers) };
    });
}

/// Takes all that is left: pages, and objects of all sizes.
struct Everything<'m> {
    machine: &'m Machine,
    objects: Vec<*mut u8>,
    pages: Vec<Page>,
}

impl<'m> Everything<'m> {
    /// All but so many pages.
    fn but(machine: &'m Machine, pages: usize) -> Self {
        let mm = machine.mm();
        let gfp = GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN;
        while mm.shrink_caches() > 0 {}
        mm.drain_all_pages();
        let mut taken: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(gfp).ok()).collect();
        let mut objects = Vec::new();
        for cache in mm.caches() {
            objects.extend(std::iter::from_fn(|| {
                mm.kmalloc(cache.size, gfp).ok().map(std::ptr::NonNull::as_ptr)
            }));
        }
        // The lowest, so that a mask reaches them.
        taken.sort_by_key(|page| std::cmp::Reverse(page.pfn()));
        for page in taken.drain(taken.len() - pages..) {
            // SAFETY: the test's own.
            unsafe { mm.__free_page(page) };
        }
        Everything { machine, objects, pages: taken }
    }
}

impl Drop for Everything<'_> {
    fn drop(&mut self) {
        for object in self.objects.drain(..) {
            // SAFETY: the test's own.
            unsafe { self.machine.mm().kfree(object) };
        }
        for page in self.pages.drain(..) {
            // SAFETY: the test's own.
            unsafe { self.machine.mm().__free_page(page) };
        }
    }
}

#[test]
// A228, A240
fn each_call_for_devices_fails_cleanly_at_every_page_that_it_cannot_have() {
    // Without a reserve the pages that are left are those that can be had.
    on_such("tiny", &["min_free_kbytes=0"], |machine| {
        let mm = machine.mm();
        let window = machine.host().device_window();
        let gfp = GFP_KERNEL | Gfp::NOWARN;
        let device = DmaDevice::new("all", DmaMask::ALL);
        // It reaches the first half of the RAM, in which slots are to be had.
        let limit = mm.platform().limit().get();
        let half = DmaDevice::new("half", DmaMask::bits(limit.ilog2() - 1)).slots(6);
        let buffer = run_of(machine, 1, half.mask().last() + 1..limit);
        let memory = mm.page_address(buffer).unwrap().as_ptr::<u8>();
        let (mut failed, mut done) = ([0; 4], [0; 4]);
        // What the CPU keeps for the sizes that are used is not taken in between.
        for cache in mm.caches() {
            let object = mm.kmalloc(cache.size, GFP_KERNEL).unwrap();
            // SAFETY: the test's own.
            unsafe { mm.kfree(object.as_ptr()) };
        }
        for pages in 0..12 {
            let held = Everything::but(machine, pages);
            mm.drain_all_pages();
            let free = || {
                while mm.shrink_caches() > 0 {}
                mm.drain_all_pages();
                mm.free_page_count()
            };
            let before = free();
            let mut count = |call: usize, result: bool| {
                if result {
                    done[call] += 1
                } else {
                    failed[call] += 1
                }
                assert_eq!(free(), before, "call {call} with {pages} pages");
                assert_eq!((mm.dma_given(&device), mm.dma_given(&half)), (0, 0));
            };
            match mm.ioremap(window.start, PAGE) {
                // SAFETY: mapped above.
                Ok(registers) => unsafe {
                    mm.iounmap(registers);
                    count(0, true);
                },
                Err(error) => {
                    assert!(matches!(error, IoremapError::Alloc(_)), "{error}");
                    count(0, false);
                }
            }
            match mm.dma_alloc_coherent(&device, 3 * PAGE, gfp) {
                // SAFETY: allocated above.
                Ok(given) => unsafe {
                    mm.dma_free_coherent(&device, 3 * PAGE, given);
                    count(1, true);
                },
                Err(error) => {
                    let is_expected =
                        matches!(error, DmaError::NoMemory { .. } | DmaError::Alloc(_));
                    assert!(is_expected, "{error}");
                    count(1, false);
                }
            }
            for (call, device) in [(2, &device), (3, &half)] {
                // SAFETY: the page is the test's.
                let told =
                    unsafe { mm.dma_map_single(device, memory, PAGE, Direction::Bidirectional) };
                if let Ok(told) = told {
                    // SAFETY: no device uses it.
                    unsafe { mm.dma_unmap_single(device, told, PAGE, Direction::Bidirectional) };
                }
                mm.dma_detach(device).unwrap();
                count(call, told.is_ok());
            }
            drop(held);
        }
        assert!(failed.iter().all(|count| *count > 0), "each failed: {failed:?}");
        assert!(done.iter().all(|count| *count > 0), "each was done in the end: {done:?}");
        free_run(machine, buffer, 1);
        assert_eq!(machine.misuse_count(), 0);
    });
}

/// What the test knows of a mapping.
struct Given {
    told: DmaAddr,
    buffer: usize,
    offset: usize,
    size: usize,
    direction: Direction,
    /// What the device has to find there.
    seen: Vec<u8>,
}

#[test]
// A228
fn buffers_and_slots_hold_what_a_model_says_over_random_mappings() {
    const MASK: u64 = 1 << 28;
    const PAGES: u64 = 4;
    const SIZE: usize = PAGES as usize * PAGE;
    on("default", |machine| {
        let mm = machine.mm();
        let limit = mm.platform().limit().get();
        for seed in [3, 0x1234_5678, 0xdead_beef_u64] {
            println!("seed {seed:#x}");
            let mut seed = seed;
            let device = DmaDevice::new("model", DmaMask::bits(28)).slots(8);
            // Below the mask, above it, and where it ends in between.
            let page = PAGE as u64;
            let across = run_of(machine, PAGES, MASK - 2 * page..MASK + 2 * page);
            let below = run_of(machine, PAGES, 0..MASK);
            let runs = [below, run_of(machine, PAGES, MASK..limit), across];
            let memory = runs.map(|run| mm.page_address(run).unwrap().as_ptr::<u8>());
            let bytes = |buffer: usize| {
                // SAFETY: the test's own, and looked at where nothing is under way.
                unsafe { std::slice::from_raw_parts_mut(memory[buffer], SIZE) }
            };
            let mut model: Vec<Vec<u8>> = (0..runs.len()).map(|_| vec![0; SIZE]).collect();
            for (buffer, expected) in model.iter_mut().enumerate() {
                expected.iter_mut().for_each(|byte| *byte = next(&mut seed) as u8);
                bytes(buffer).copy_from_slice(expected);
            }
            let (mut held, mut reports): (Vec<Given>, u64) = (Vec::new(), machine.misuse_count());
            let (mut bounced, mut full) = (0, 0);
            for _ in 0..4000 {
                match next(&mut seed) % 6 {
                    0 | 1 => {
                        let (buffer, offset) =
                            (next(&mut seed) % runs.len(), next(&mut seed) % SIZE);
                        let size = 1 + next(&mut seed) % (SIZE - offset).min(9000);
                        let overlaps = |given: &Given| {
                            given.buffer == buffer
                                && given.offset < offset + size
                                && offset < given.offset + given.size
                        };
                        if held.iter().any(overlaps) {
                            continue;
                        }
                        let direction = DIRECTIONS[next(&mut seed) % 3];
                        let at = memory[buffer].wrapping_add(offset);
                        // SAFETY: the buffer stays; nobody uses the bytes while they are mapped.
                        let told = unsafe { mm.dma_map_single(&device, at, size, direction) };
                        let told = match told {
                            Ok(told) => told,
                            Err(error) => {
                                assert_eq!(error, DmaError::NoSlots { size });
                                full += 1;
                                continue;
                            }
                        };
                        assert!(device.mask().reaches(told.get(), size as u64));
                        let phys = mm.page_to_phys(runs[buffer]).get() + offset as u64;
                        let reached = device.mask().reaches(phys, size as u64);
                        assert_eq!(told.get() == phys, reached);
                        bounced += u64::from(!reached);
                        let seen = model[buffer][offset..offset + size].to_vec();
                        held.push(Given { told, buffer, offset, size, direction, seen });
                    }
                    2 if !held.is_empty() => {
                        // The device reads, and writes some of it.
                        let which = next(&mut seed) % held.len();
                        let given = &mut held[which];
                        let there = device_memory(machine, given.told, given.size);
                        assert_eq!(there, given.seen);
                        if given.direction.is_from_device() {
                            let from = next(&mut seed) % given.size;
                            let value = next(&mut seed) as u8;
                            there[from..].fill(value);
                            given.seen[from..].fill(value);
                        }
                    }
                    3 if !held.is_empty() => {
                        // The CPU has part of it for a while.
                        let which = next(&mut seed) % held.len();
                        let Given { told, buffer, offset, size, direction, .. } = held[which];
                        let from = next(&mut seed) % size;
                        let part = (from, 1 + next(&mut seed) % (size - from));
                        // SAFETY: no device uses it meanwhile.
                        unsafe { mm.dma_sync_single_for_cpu(&device, told, part, direction) };
                        let whole = offset + part.0..offset + part.0 + part.1;
                        let seen = &mut held[which].seen[part.0..part.0 + part.1];
                        if direction.is_from_device() {
                            assert_eq!(bytes(buffer)[whole.clone()], *seen);
                        }
                        let value = next(&mut seed) as u8;
                        bytes(buffer)[whole].fill(value);
                        seen.fill(value);
                        // SAFETY: as above.
                        unsafe { mm.dma_sync_single_for_device(&device, told, part, direction) };
                    }
                    4 if !held.is_empty() => {
                        // A wrong call is reported, and nothing changes.
                        let given = &held[next(&mut seed) % held.len()];
                        let Given { told, size, direction, .. } = *given;
                        let other = DIRECTIONS[(direction as usize + 1) % 3];
                        // SAFETY: it is refused.
                        unsafe {
                            match next(&mut seed) % 3 {
                                0 => mm.dma_unmap_single(&device, told, size + 1, direction),
                                1 => mm.dma_unmap_page(&device, told, size, other),
                                _ => {
                                    mm.dma_sync_single_for_cpu(&device, told, (size, 1), direction)
                                }
                            }
                        }
                        reports += 1;
                        assert_eq!(machine.misuse_count(), reports);
                    }
                    _ if !held.is_empty() => {
                        let given = held.swap_remove(next(&mut seed) % held.len());
                        let Given { told, buffer, offset, size, direction, seen } = given;
                        // SAFETY: no device uses it.
                        unsafe { mm.dma_unmap_single(&device, told, size, direction) };
                        let now = &bytes(buffer)[offset..offset + size];
                        assert_eq!(now, seen, "{direction:?}");
                        model[buffer][offset..offset + size].copy_from_slice(&seen);
                    }
                    _ => {}
                }
                assert_eq!(mm.dma_given(&device), held.len());
            }
            assert!(bounced > 200 && full > 10, "{bounced} by slots, {full} without");
            for given in held {
                let Given { told, buffer, offset, size, direction, seen } = given;
                // SAFETY: no device uses it.
                unsafe { mm.dma_unmap_single(&device, told, size, direction) };
                model[buffer][offset..offset + size].copy_from_slice(&seen);
            }
            for (buffer, expected) in model.iter().enumerate() {
                assert!(bytes(buffer) == expected, "buffer {buffer}");
            }
            assert_eq!(mm.dma_slots_taken(&device).0, 0);
            mm.dma_detach(&device).unwrap();
            runs.into_iter().for_each(|run| free_run(machine, run, PAGES));
        }
    });
}

#[test]
// A228
fn no_slot_is_two_mappings_on_all_cpus_at_once() {
    let machine = boot("x86_64", &[]);
    static DEVICE: DmaDevice = DmaDevice::new("busy", DmaMask::bits(28)).slots(7);
    let full = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = machine
        .online_cpus()
        .map(|cpu| {
            let (inner, full) = (Arc::clone(&machine), Arc::clone(&full));
            machine.spawn(Some(cpu), "mapper", move || {
                let (machine, mm) = (&*inner, inner.mm());
                let limit = mm.platform().limit().get();
                let run = run_of(machine, 1, 1 << 28..limit);
                let memory = mm.page_address(run).unwrap().as_ptr::<u8>();
                let mut seed = u64::from(cpu.get()) + 77;
                for round in 0..3000u32 {
                    let size = 1 + next(&mut seed) % PAGE;
                    let (old, new) = (round as u8, cpu.get() as u8 ^ 0x80);
                    // SAFETY: the page is this task's.
                    unsafe { memory.write_bytes(old, PAGE) };
                    // SAFETY: as above.
                    let told = unsafe {
                        mm.dma_map_single(&DEVICE, memory, size, Direction::Bidirectional)
                    };
                    let Ok(told) = told else {
                        assert_eq!(told, Err(DmaError::NoSlots { size }));
                        full.fetch_add(1, Relaxed);
                        machine.yield_now();
                        continue;
                    };
                    let there = device_memory(machine, told, size);
                    assert!(there.iter().all(|byte| *byte == old), "somebody else wrote there");
                    there.fill(new);
                    assert!(there.iter().all(|byte| *byte == new), "somebody else writes there");
                    // SAFETY: no device uses it.
                    unsafe { mm.dma_unmap_single(&DEVICE, told, size, Direction::Bidirectional) };
                    // SAFETY: the page is this task's.
                    let found = unsafe { std::slice::from_raw_parts(memory, PAGE) };
                    assert!(found[..size].iter().all(|byte| *byte == new));
                    assert!(found[size..].iter().all(|byte| *byte == old));
                }
                free_run(machine, run, 1);
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join());
    machine.run_on(CpuId::BOOT, || {
        assert_eq!(machine.mm().dma_slots_taken(&DEVICE).0, 0);
        machine.mm().dma_detach(&DEVICE).unwrap();
    });
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}

#[test]
// A228
fn a_device_that_writes_where_it_was_to_read_does_not_reach_the_buffer() {
    on("default", |machine| {
        let mm = machine.mm();
        let device = DmaDevice::new("case", DmaMask::bits(28)).slots(2);
        let run = run_of(machine, 1, 1 << 28..mm.platform().limit().get());
        let memory = mm.page_address(run).unwrap().as_ptr::<u8>();
        // SAFETY: the page is the test's.
        let buffer = unsafe { std::slice::from_raw_parts_mut(memory, PAGE) };
        buffer.fill(0x33);
        // SAFETY: the device is the test.
        unsafe {
            let told = mm.dma_map_single(&device, memory, PAGE, Direction::ToDevice).unwrap();
            device_memory(machine, told, PAGE).fill(0x44);
            mm.dma_sync_single_for_cpu(&device, told, (0, PAGE), Direction::ToDevice);
            assert!(buffer.iter().all(|byte| *byte == 0x33));
            mm.dma_unmap_single(&device, told, PAGE, Direction::ToDevice);
        }
        assert!(buffer.iter().all(|byte| *byte == 0x33));
        mm.dma_detach(&device).unwrap();
        free_run(machine, run, 1);
    });
}

#[test]
// A228
fn the_kernels_own_data_is_for_devices_and_what_nobody_has_is_not() {
    on("holes", |machine| {
        let mm = machine.mm();
        let device = DmaDevice::new("case", DmaMask::ALL);
        let at =
            |phys: u64| mm.platform().phys_to_virt(PhysAddr::new(phys)).unwrap().as_ptr::<u8>();
        // The kernel's image, a hole, and a block of which the end is a hole.
        for (phys, size, is_fine) in
            [(3 << 20, 64, true), (185 << 20, 64, false), (3 << 20, 300 << 20, false)]
        {
            // SAFETY: nobody uses the kernel's image, and no device what is mapped.
            let told = unsafe { mm.dma_map_single(&device, at(phys), size, Direction::FromDevice) };
            assert_eq!(told.is_ok(), is_fine, "{phys:#x}: {told:?}");
            if let Ok(told) = told {
                // SAFETY: as above.
                unsafe { mm.dma_unmap_single(&device, told, size, Direction::FromDevice) };
            }
        }
        assert_eq!(machine.misuse_count(), 2);
        // Null without bytes is nothing as well, and no wrong call.
        // SAFETY: it is refused.
        let none =
            unsafe { mm.dma_map_single(&device, std::ptr::null(), 0, Direction::FromDevice) };
        assert_eq!((none, machine.misuse_count()), (Err(DmaError::ZeroSize), 2));
    });
}

#[test]
fn a_device_that_is_left_with_memory_is_told_of() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let device = DmaDevice::new("case", DmaMask::ALL);
        // SAFETY: no device is told of it.
        let ring = unsafe { mm.dma_box(&device, 100, GFP_KERNEL) }.unwrap();
        let left = mm.dma_detach(&device).unwrap_err();
        assert_eq!(left.count, 1);
        assert!(left.caller.file().ends_with("tests/devices.rs"));
        let report = machine.misuses().pop().unwrap();
        for words in ["still has memory", "100 bytes at dma", "coherent, given at", "devices.rs:"] {
            assert!(report.contains(words), "{report}");
        }
        ring.writeb(1, 99).unwrap();
        assert!(ring.writeb(1, 100).is_err());
        drop(ring);
        mm.dma_detach(&device).unwrap();
    });
}

#[test]
fn the_model_counts_what_a_device_does_in_silence() {
    on("default", |machine| {
        let window = machine.host().device_window();
        // SAFETY: the window is the model's, and the device is told of memory that nobody uses.
        let registers = unsafe { machine.mm().iomem(window.start, 0x100) }.unwrap();
        let registers = machine.host().device(registers);
        assert_eq!(registers.read32(0), Ok(0x0100_00ed));
        registers.write32(5, 0).unwrap();
        assert_eq!(registers.read32(0), Ok(0x0100_00ed), "it is only read");
        for (offset, value) in [(0x80, 1 << 28), (0x88, 0x40000), (0x90, 16)] {
            registers.write64(value, offset).unwrap();
        }
        registers.write32(1, 0x98).unwrap();
        // While it is at work its registers stay.
        registers.write64(5, 0x90).unwrap();
        while registers.read32(0x98).unwrap() & 1 != 0 {}
        let counters = EduCounters { transfers: 1, clamped: 1, errors: 0 };
        assert_eq!(machine.host().device_counters(), counters);
    });
}

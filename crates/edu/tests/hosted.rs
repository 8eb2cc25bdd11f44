//! The driver beside a model of its device.

use edu::{BUFFER_SIZE, Edu, EduError, Way};
use kmem::dma::{Direction, DmaAddr};
use kmem::io::{IoError, Registers};
use kmem::platform::DirectMap;
use kmem::{CpuId, GFP_KERNEL, Order, PhysAddr};
use kmem_host::{Description, Machine};

/// Runs a test as a task with the device's registers, and looks that everything is in order afterwards.
fn with_device(preset: &str, test: impl FnOnce(&Machine, &dyn Registers)) {
    let machine = Machine::boot(&Description::preset(preset).unwrap()).unwrap();
    machine.run_on(CpuId::BOOT, || {
        let host = machine.host();
        let start = host.device_window().start;
        // SAFETY: the window is the model's, and its driver tells it of what it was given.
        let window = unsafe { machine.mm().iomem(start, edu::REGISTERS) }.unwrap();
        test(&machine, &host.device(window));
        let counters = host.device_counters();
        assert_eq!((counters.clamped, counters.errors), (0, 0));
    });
    assert!(machine.shutdown().is_clean());
}

#[test]
fn the_device_says_who_it_is_and_computes() {
    with_device("tiny", |_, registers| {
        let edu = Edu::new(registers).unwrap();
        assert_eq!(edu.version(), Ok(0x100));
        assert_eq!(edu.inverted(0xf0f0_1234), Ok(0x0f0f_edcb));
        for (of, result) in [(0, 1), (1, 1), (5, 120), (12, 479_001_600), (13, 1_932_053_504)] {
            assert_eq!(edu.factorial(of), Ok(result));
        }
    });
}

#[test]
// A228
fn bytes_go_through_the_device_from_wherever_to_wherever() {
    with_device("default", |machine, registers| {
        let mm = machine.mm();
        let edu = Edu::new(registers).unwrap();
        let all = mm.platform().limit();
        let beyond = PhysAddr::new(edu.dma().mask().last() + 1)..all;
        let below = PhysAddr::new(0)..beyond.start;
        for (from, into) in [(&below, &below), (&below, &beyond), (&beyond, &below)] {
            let runs = [from, into].map(|range| {
                mm.alloc_contig_pages(1, Order::ZERO, range.clone(), GFP_KERNEL).unwrap()
            });
            let [from, into] = runs.map(|run| {
                let memory = mm.page_address(run).unwrap().as_ptr::<u8>();
                // SAFETY: a page of the test's own.
                unsafe { std::slice::from_raw_parts_mut(memory, 4096) }
            });
            for (size, offset) in [(1, 0), (BUFFER_SIZE, 0), (1, BUFFER_SIZE - 1), (999, 77)] {
                from.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 + size) as u8);
                into.fill(0);
                // SAFETY: the model ends what it begins.
                unsafe {
                    edu.write(mm, &mut from[..size], offset).unwrap();
                    edu.read(mm, &mut into[..size], offset).unwrap();
                }
                assert_eq!(from[..size], into[..size]);
                assert!(into[size..].iter().all(|byte| *byte == 0));
            }
            for run in runs {
                // SAFETY: the test's own.
                unsafe { mm.free_contig_pages(run, 1) };
            }
        }
        mm.dma_detach(edu.dma()).unwrap();
    });
}

#[test]
// A228
fn what_the_device_would_do_wrongly_is_refused_before_it_is_told() {
    with_device("default", |machine, registers| {
        let mm = machine.mm();
        let edu = Edu::new(registers).unwrap();
        let transfer = |address, size, offset| {
            // SAFETY: the driver refuses it.
            unsafe { edu.transfer(Way::IntoMemory, DmaAddr::new(address), size, offset) }
        };
        for (size, offset) in
            [(0, 0), (BUFFER_SIZE + 1, 0), (1, BUFFER_SIZE), (2, usize::MAX), (usize::MAX, 1)]
        {
            assert_eq!(transfer(0x1000, size, offset), Err(EduError::Buffer { offset, size }));
        }
        for (address, size) in [(1 << 28, 1), ((1 << 28) - 1, 2), (u64::MAX, 1)] {
            let beyond = EduError::BeyondMask { address: DmaAddr::new(address), size };
            assert_eq!(transfer(address, size, 0), Err(beyond));
        }
        let area = mm.vmalloc(100).unwrap();
        // SAFETY: so many bytes of the test's own.
        let bytes = unsafe { std::slice::from_raw_parts_mut(area.as_ptr(), 100) };
        bytes.fill(0);
        // SAFETY: it is refused.
        assert!(matches!(unsafe { edu.write(mm, bytes, 0) }, Err(EduError::Dma(_))));
        // SAFETY: the test's own.
        unsafe { mm.vfree(area.as_ptr()) };
        assert_eq!(machine.host().device_counters().transfers, 0);
        let mapped = machine.misuses();
        assert!(mapped.len() == 1 && mapped[0].contains("no device can be told of"), "{mapped:?}");
    });
}

/// Registers of something else.
struct Constant(u32);

impl Registers for Constant {
    fn read32(&self, _: usize) -> Result<u32, IoError> {
        Ok(self.0)
    }

    fn write32(&self, _: u32, _: usize) -> Result<(), IoError> {
        Ok(())
    }

    fn write64(&self, _: u64, offset: usize) -> Result<(), IoError> {
        Err(IoError::Outside { offset, width: 8, size: 0 })
    }
}

#[test]
fn other_devices_and_dead_ones_are_told_apart() {
    let found = |value| Edu::new(&Constant(value)).map(drop);
    assert_eq!(found(u32::MAX), Err(EduError::NotEdu { found: u32::MAX }));
    assert_eq!(found(0x0100_00ed), Err(EduError::Dead));
    assert_eq!(Direction::ToDevice.name(), "to device");
}

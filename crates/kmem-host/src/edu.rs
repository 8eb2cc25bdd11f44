//! A device that reads and writes memory by itself: a model of QEMU's `edu`, which PCs have.
//!
//! Its registers lie at physical addresses behind the end of RAM, where they are mapped as any
//! device's are. A process has no way to notice that memory is touched, so whoever uses them does it
//! through [`EduRegisters`], which tells the model about each access after it was made, or before it
//! is.
//!
//! ```text
//!   driver ──> EduRegisters ──> a mapping of the window ──> memfd        the access itself
//!                    └────────> Edu ──> memfd, by physical address       what the device does
//! ```
//!
//! The rules are those of QEMU 7.2, the unpleasant ones too: an address of more than 28 bits is used
//! without the rest, so that it is somebody else's memory, and a transfer that touches the end of the
//! device's buffer is an error of the hardware. There QEMU ends; here it is counted, as is the other.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use kmem::PhysAddr;
use kmem::io::{IoError, Registers};

use crate::local;
use crate::memory::Memory;

/// The size of the window: what the device asks for on a PC.
pub(crate) const WINDOW: u64 = 1 << 20;

const ID: usize = 0x00;
const LIVENESS: usize = 0x04;
const FACTORIAL: usize = 0x08;
const STATUS: usize = 0x20;
const SOURCE: usize = 0x80;
const TARGET: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;

/// What the identification says: version 1.0 of the device.
const VERSION: u32 = 0x0100_00ed;
/// In the status: at work on a factorial.
const COMPUTING: u32 = 1;
/// In the command: go, and it is set until the transfer is done.
const RUN: u32 = 1;
/// In the command: to memory, and not from it.
const TO_MEMORY: u32 = 2;
/// Where the device has its buffer, in its own addresses.
const BUFFER: u64 = 0x40000;
const BUFFER_SIZE: usize = 4096;
/// The addresses that it has lines for.
const MASK: u64 = (1 << 28) - 1;

/// How many accesses see the device at work: a driver that does not wait is found out.
const SLOWNESS: u32 = 3;

/// What a device did, since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EduCounters {
    /// Transfers that were done.
    pub transfers: u64,
    /// Transfers with an address that the device has not lines enough for: somebody else's memory.
    pub clamped: u64,
    /// Transfers that were not done, since they do not lie in the device's buffer.
    pub errors: u64,
}

/// The device.
pub(crate) struct Edu {
    state: Mutex<State>,
}

struct State {
    registers: [u64; 4],
    command: u32,
    factorial: u32,
    liveness: u32,
    /// How many accesses until a factorial or a transfer is done; 0: none is under way.
    computing: u32,
    moving: u32,
    buffer: [u8; BUFFER_SIZE],
    counters: EduCounters,
}

impl Edu {
    pub(crate) fn new(memory: &Memory) -> Edu {
        let state = State {
            registers: [0; 4],
            command: 0,
            factorial: 0,
            liveness: 0,
            computing: 0,
            moving: 0,
            buffer: [0; BUFFER_SIZE],
            counters: EduCounters::default(),
        };
        state.show(memory);
        Edu { state: Mutex::new(state) }
    }

    /// Runs `work` with the state; with interrupts masked, since handlers may use the device.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let saved = local::mask();
        let done = work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        local::restore(saved);
        done
    }

    pub(crate) fn counters(&self) -> EduCounters {
        self.with(|state| state.counters)
    }

    /// A register is about to be read.
    fn before_read(&self, memory: &Memory) {
        self.with(|state| {
            state.pass(memory);
            state.show(memory);
        });
    }

    /// Bytes of the window were written.
    fn after_write(&self, memory: &Memory, offset: usize, width: usize) {
        let mut bytes = [0; 8];
        memory.read(memory.window().start + offset as u64, &mut bytes[..width]);
        let value = u64::from_le_bytes(bytes);
        self.with(|state| {
            state.pass(memory);
            state.write(offset, width, value);
            // Registers that are only read are what they were.
            state.show(memory);
        });
    }
}

impl State {
    fn write(&mut self, offset: usize, width: usize, value: u64) {
        match (offset, width) {
            (LIVENESS, 4) => self.liveness = !(value as u32),
            (FACTORIAL, 4) if self.computing == 0 => {
                self.factorial = value as u32;
                self.computing = SLOWNESS;
            }
            // While a transfer is under way nothing about it is changed.
            (SOURCE | TARGET | COUNT, 4 | 8) if self.moving == 0 => {
                self.registers[(offset - SOURCE) / 8] = value;
            }
            (COMMAND, 4 | 8) if self.moving == 0 => {
                self.command = value as u32;
                self.moving = if self.command & RUN != 0 { SLOWNESS } else { 0 };
            }
            _ => {}
        }
    }

    /// Time passes: one access.
    fn pass(&mut self, memory: &Memory) {
        if self.computing > 0 {
            self.computing -= 1;
            if self.computing == 0 {
                self.factorial = (1..=self.factorial).fold(1, u32::wrapping_mul);
            }
        }
        if self.moving > 0 {
            self.moving -= 1;
            if self.moving == 0 {
                self.transfer(memory);
                self.command &= !RUN;
            }
        }
    }

    fn transfer(&mut self, memory: &Memory) {
        let [source, target, count, _] = self.registers;
        let to_memory = self.command & TO_MEMORY != 0;
        let (own, other) = if to_memory { (source, target) } else { (target, source) };
        let Some(part) = part_of_buffer(own, count) else {
            self.counters.errors += 1;
            return;
        };
        self.counters.clamped += u64::from(other != other & MASK);
        let other = other & MASK;
        if to_memory {
            memory.write(other, &self.buffer[part]);
        } else {
            memory.read(other, &mut self.buffer[part]);
        }
        self.counters.transfers += 1;
    }

    /// Writes what reads find into the window.
    fn show(&self, memory: &Memory) {
        let start = memory.window().start;
        let status = if self.computing > 0 { COMPUTING } else { 0 };
        let words = [
            (ID, VERSION),
            (LIVENESS, self.liveness),
            (FACTORIAL, self.factorial),
            (STATUS, status),
            (COMMAND, self.command),
        ];
        for (offset, word) in words {
            memory.write(start + offset as u64, &word.to_le_bytes());
        }
        for (offset, word) in [SOURCE, TARGET, COUNT].iter().zip(self.registers) {
            memory.write(start + *offset as u64, &word.to_le_bytes());
        }
    }
}

/// Which bytes of the buffer these are. The end of a transfer, which is the address behind it, has to
/// lie in the buffer as well.
fn part_of_buffer(start: u64, count: u64) -> Option<Range<usize>> {
    let start = usize::try_from(start.checked_sub(BUFFER)?).ok()?;
    let end = start.checked_add(usize::try_from(count).ok()?)?;
    (end < BUFFER_SIZE).then_some(start..end)
}

/// The device's registers, wherever they are mapped, with the device behind them.
pub struct EduRegisters<'h, G> {
    window: G,
    edu: &'h Edu,
    memory: &'h Memory,
}

impl<'h, G: Registers> EduRegisters<'h, G> {
    pub(crate) fn new(window: G, edu: &'h Edu, memory: &'h Memory) -> Self {
        EduRegisters { window, edu, memory }
    }
}

impl<G: Registers> Registers for EduRegisters<'_, G> {
    fn read32(&self, offset: usize) -> Result<u32, IoError> {
        self.edu.before_read(self.memory);
        self.window.read32(offset)
    }

    fn write32(&self, value: u32, offset: usize) -> Result<(), IoError> {
        self.window.write32(value, offset)?;
        self.edu.after_write(self.memory, offset, 4);
        Ok(())
    }

    fn write64(&self, value: u64, offset: usize) -> Result<(), IoError> {
        self.window.write64(value, offset)?;
        self.edu.after_write(self.memory, offset, 8);
        Ok(())
    }
}

/// Where a machine has the registers.
pub(crate) fn window_of(memory: &Memory) -> Range<PhysAddr> {
    let window = memory.window();
    PhysAddr::new(window.start)..PhysAddr::new(window.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_may_not_touch_the_end_of_the_buffer() {
        assert_eq!(part_of_buffer(BUFFER, 4095), Some(0..4095));
        assert_eq!(part_of_buffer(BUFFER + 4000, 95), Some(4000..4095));
        for (start, count) in
            [(BUFFER, 4096), (BUFFER + 4000, 96), (BUFFER - 1, 1), (0, 1), (u64::MAX, 2)]
        {
            assert_eq!(part_of_buffer(start, count), None, "{count} at {start:#x}");
        }
    }

    /// The window as it is in the memfd.
    struct Plain<'m>(&'m Memory);

    impl Registers for Plain<'_> {
        fn read32(&self, offset: usize) -> Result<u32, IoError> {
            let mut bytes = [0; 4];
            self.0.read(self.0.window().start + offset as u64, &mut bytes);
            Ok(u32::from_le_bytes(bytes))
        }

        fn write32(&self, value: u32, offset: usize) -> Result<(), IoError> {
            self.0.write(self.0.window().start + offset as u64, &value.to_le_bytes());
            Ok(())
        }

        fn write64(&self, value: u64, offset: usize) -> Result<(), IoError> {
            self.0.write(self.0.window().start + offset as u64, &value.to_le_bytes());
            Ok(())
        }
    }

    #[test]
    fn addresses_of_more_than_28_bits_are_somebody_elses() {
        let memory = Memory::new(std::slice::from_ref(&(0..1 << 29)), 1 << 29).unwrap();
        let edu = Edu::new(&memory);
        let registers = EduRegisters::new(Plain(&memory), &edu, &memory);
        memory.write((1 << 28) + 0x5000, b"above");
        memory.write(0x5000, b"below");
        let run = |source: u64, target: u64, command: u32| {
            registers.write64(source, SOURCE).unwrap();
            registers.write64(target, TARGET).unwrap();
            registers.write64(5, COUNT).unwrap();
            registers.write32(command, COMMAND).unwrap();
            let mut looks = 0;
            while registers.read32(COMMAND).unwrap() & RUN != 0 {
                looks += 1;
            }
            assert!(looks > 0, "it takes its time");
        };
        run((1 << 28) + 0x5000, BUFFER, RUN);
        run(BUFFER, 0x6000, RUN | TO_MEMORY);
        let mut found = [0; 5];
        memory.read(0x6000, &mut found);
        assert_eq!(&found, b"below");
        run(0x5000, BUFFER - 8, RUN);
        assert_eq!(edu.counters(), EduCounters { transfers: 2, clamped: 1, errors: 1 });
    }
}

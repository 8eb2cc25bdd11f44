//! Devices on the PCI bus: finding one, and where its registers are.
//!
//! Two ports lead to the configuration of every device: an address is written to one, and the word there is
//! read or written by the other.

use core::ops::Range;

use crate::lock::Lock;
use crate::port;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

/// Words of a device's configuration, by their offset in bytes.
const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const FIRST_BAR: u8 = 0x10;

/// In the command: the device answers at its memory addresses, and may use memory by itself.
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;

/// Held while one port says what the other means.
static PORTS: Lock<()> = Lock::new(());

/// A device of the first bus, which is the only one of QEMU's PC.
#[derive(Clone, Copy)]
pub struct Device {
    number: u8,
}

impl Device {
    /// The first device with this vendor and this kind.
    pub fn find(vendor: u16, kind: u16) -> Option<Device> {
        let wanted = u32::from(kind) << 16 | u32::from(vendor);
        // A slot without a device answers with ones.
        (0..32).map(|number| Device { number }).find(|device| device.read(ID) == wanted)
    }

    /// The physical addresses of the device's first registers, and has it answer there and use memory by
    /// itself. `None` where they are ports, or the firmware has given it no addresses.
    pub fn begin(self) -> Option<Range<u64>> {
        let found = self.read(FIRST_BAR);
        // Below are what kind of addresses they are: 0 for memory of 32 bits.
        let start = found & !0xf;
        if found & 0x7 != 0 || start == 0 {
            return None;
        }
        let command = self.read(COMMAND) & 0xffff;
        // The bits that stay clear say the size. Meanwhile the device must not answer there.
        self.write(COMMAND, command & !(MEMORY | MASTER));
        self.write(FIRST_BAR, !0);
        let size = (!(self.read(FIRST_BAR) & !0xf)).wrapping_add(1);
        self.write(FIRST_BAR, found);
        self.write(COMMAND, command | MEMORY | MASTER);
        Some(start.into()..u64::from(start) + u64::from(size))
    }

    fn read(self, register: u8) -> u32 {
        let _alone = PORTS.lock();
        self.select(register);
        // SAFETY: the port of the word that was selected; to read it touches no memory.
        unsafe { port::read32(DATA) }
    }

    fn write(self, register: u8, value: u32) {
        let _alone = PORTS.lock();
        self.select(register);
        // SAFETY: what this file writes says where the device answers, which is no RAM, and that it may use
        // memory, which it does when it is told to.
        unsafe { port::write32(DATA, value) };
    }

    /// Says which word the other port is for. With the lock held.
    fn select(self, register: u8) {
        let address = 1 << 31 | u32::from(self.number) << 11 | u32::from(register);
        // SAFETY: it selects, and does nothing.
        unsafe { port::write32(ADDRESS, address) };
    }
}

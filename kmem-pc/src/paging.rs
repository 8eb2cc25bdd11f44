//! The kernel's page tables.
//!
//! ```text
//!   0xffff_8000_0000_0000   the direct map: all memory, in pages of 2 MiB
//!   0xffff_c000_0000_0000   registers of devices: not cached, in pages of 4 KiB
//!   0xffff_ffff_8000_0000   the image: code, constants and data apart, in pages of 4 KiB
//! ```
//!
//! The tables come from a pool in the image: they are needed before there is a manager to ask.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::direct;
use crate::start_info::Region;

/// Where the registers of devices are seen, above their physical addresses.
const DEVICES: usize = 0xffff_c000_0000_0000;

const PAGE: u64 = 4 << 10;
const LARGE: u64 = 2 << 20;

/// What an entry says of its page.
#[derive(Clone, Copy)]
struct Rights(u64);

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const IS_LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const CODE: Rights = Rights(PRESENT | GLOBAL);
const CONSTANTS: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE);
const DATA: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE | WRITE);
const DEVICE: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE | WRITE | UNCACHED);

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written by the boot CPU alone, before others are started.
unsafe impl Sync for Table {}

/// The tables that there are: the root's three branches, those of the image and of devices, and one for
/// each GiB of memory.
const TABLES: usize = 96;

static POOL: [Table; TABLES] = [const { Table(UnsafeCell::new([0; 512])) }; TABLES];
static TAKEN: AtomicUsize = AtomicUsize::new(1);

unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static data_start: u8;
    static image_end: u8;
}

/// The physical addresses that the image takes.
pub fn image() -> Range<u64> {
    (&raw const image_start).addr() as u64..(&raw const image_end).addr() as u64
}

/// Makes the kernel's tables and switches the running CPU to them: the direct map has all of `regions`
/// that is memory.
///
/// # Safety
///
/// By the boot CPU, once, before others are started.
pub unsafe fn begin(regions: impl Iterator<Item = Region> + Clone) {
    let memory = |chunk: &Range<u64>| {
        let mut regions = regions.clone().filter(Region::is_memory);
        regions.any(|region| region.start < chunk.end && chunk.start < region.end)
    };
    let end = regions.clone().filter(Region::is_memory).map(|region| region.end).max();
    for start in (0..end.unwrap_or(0)).step_by(LARGE as usize) {
        if memory(&(start..start + LARGE)) {
            map(direct::BASE + start as usize, start, LARGE, DATA);
        }
    }
    let text = (&raw const text_start).addr()..(&raw const text_end).addr();
    let data = (&raw const data_start).addr();
    let end = direct::IMAGE + image().end as usize;
    for (range, rights) in [(text.clone(), CODE), (text.end..data, CONSTANTS), (data..end, DATA)] {
        for address in range.step_by(PAGE as usize) {
            map(address, (address - direct::IMAGE) as u64, PAGE, rights);
        }
    }
    // SAFETY: the tables map the running code, its stack, and all that it will use.
    unsafe { asm!("mov cr3, {}", in(reg) root(), options(nostack)) };
}

/// The physical address of the root of the kernel's tables.
pub fn root() -> u64 {
    direct::of_image(&raw const POOL[0])
}

/// Makes a page of a device's registers seen; answers where.
///
/// # Safety
///
/// By the boot CPU, before others are started; there is a device.
pub unsafe fn map_device(physical: u64) -> usize {
    let address = DEVICES + physical as usize;
    map(address & !(PAGE as usize - 1), physical & !(PAGE - 1), PAGE, DEVICE);
    address
}

/// Maps one page of 4 KiB or 2 MiB, unless that is mapped.
fn map(address: usize, physical: u64, size: u64, rights: Rights) {
    let levels: &[u32] = if size == LARGE { &[39, 30, 21] } else { &[39, 30, 21, 12] };
    let (last, above) = (levels[levels.len() - 1], &levels[..levels.len() - 1]);
    let mut table = &POOL[0];
    for level in above {
        let entry = entry(table, address, *level);
        if entry & PRESENT == 0 {
            let new = &POOL[TAKEN.fetch_add(1, Relaxed)];
            set_entry(table, address, *level, direct::of_image(new) | PRESENT | WRITE);
            table = new;
        } else {
            let index = (entry & ADDRESS) - root();
            table = &POOL[(index / PAGE) as usize];
        }
    }
    let is_large = if size == LARGE { IS_LARGE } else { 0 };
    set_entry(table, address, last, physical | rights.0 | is_large);
}

fn entry(table: &Table, address: usize, level: u32) -> u64 {
    // SAFETY: by the boot CPU alone.
    unsafe { (*table.0.get())[address >> level & 511] }
}

fn set_entry(table: &Table, address: usize, level: u32, value: u64) {
    // SAFETY: as above.
    unsafe { (*table.0.get())[address >> level & 511] = value };
}

//! The kernel's page tables.
//!
//! ```text
//!   0x0000_1000_0000_0000   what a user sees, in pages of 4 KiB
//!   0xffff_8000_0000_0000   the direct map: memory, in pages of 2 MiB. Where it ends before memory does,
//!                           what the firmware left above its end, in pages of 4 KiB as well
//!   0xffff_c000_0000_0000   registers of devices: not cached, in pages of 4 KiB
//!   0xffff_d000_0000_0000   what the heap's manager maps: stacks, with nothing below each
//!   0xffff_d800_0000_0000   what CPUs see for a time: high memory, in pages of 4 KiB
//!   0xffff_e000_0000_0000   what the manager maps, in pages of 4 KiB and 2 MiB
//!   0xffff_ffff_8000_0000   the image: code, constants and data apart, in pages of 4 KiB
//! ```
//!
//! Tables come from a pool in the image for as long as there is no heap, and then from the heap. They are
//! seen in the direct map, as the first tables have it too.
//!
//! A page that is unmapped may still be in the buffers of CPUs. [`forget`] calls them one after the other,
//! with no lock held and interrupts let in, because a CPU that waits for a lock with interrupts masked
//! does not answer.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kmem::{GFP_ATOMIC, Gfp, VirtAddr};

use crate::heap::HEAP;
use crate::lock::Lock;
use crate::start_info::Region;
use crate::{direct, smp, temporary};

/// Where the registers of devices are seen, above their physical addresses.
pub const DEVICES: usize = 0xffff_c000_0000_0000;

/// Where the heap's manager may map: 1 TiB.
pub const HEAP_MAPPINGS: Range<usize> = 0xffff_d000_0000_0000..0xffff_d100_0000_0000;

/// Where the manager may map: 16 TiB.
pub const MAPPINGS: Range<usize> = 0xffff_e000_0000_0000..0xffff_f000_0000_0000;

/// The size of an ordinary page.
pub const PAGE: u64 = 4 << 10;

/// The size of a large page.
pub const LARGE: u64 = 2 << 20;

/// What an entry says of its page.
#[derive(Clone, Copy)]
pub struct Rights(u64);

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const IS_LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const CODE: Rights = Rights(PRESENT | GLOBAL);
const CONSTANTS: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE);
/// Registers of a device: not cached.
pub const DEVICE: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE | WRITE | UNCACHED);

/// Data: read and written.
pub const DATA: Rights = Rights(PRESENT | GLOBAL | NO_EXECUTE | WRITE);

/// Memory of a user: read and written.
pub const USER_DATA: Rights = Rights(PRESENT | USER | NO_EXECUTE | WRITE);

/// Memory of a user: read.
pub const USER_CONSTANTS: Rights = Rights(PRESENT | USER | NO_EXECUTE);

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: reached by way of the direct map, under the lock of the tables.
unsafe impl Sync for Table {}

/// The tables that are needed before there is a heap: the root's four branches, those of the image, of
/// devices and of what is seen for a time, and one for each GiB of memory.
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

/// What [`part_of_image`] calls the part that is executed.
pub const CODE_PART: &str = "code";

/// The parts of the image where it is linked, but for the code that runs before there are tables.
pub fn parts_of_image() -> [(&'static str, Range<usize>); 3] {
    let [text, constants, data] =
        [&raw const text_start, &raw const text_end, &raw const data_start].map(<*const u8>::addr);
    let end = direct::IMAGE + image().end as usize;
    [(CODE_PART, text..constants), ("constants", constants..data), ("data", data..end)]
}

/// What the image has at an address, if that is in the image.
pub fn part_of_image(address: usize) -> Option<&'static str> {
    parts_of_image().iter().find(|(_, part)| part.contains(&address)).map(|(name, _)| *name)
}

/// Makes the kernel's tables and switches the running CPU to them: the direct map has all of `regions`
/// that is memory and lies below `limit`, a multiple of [`LARGE`]. Of what lies above it has only what the
/// firmware left: RAM there is reached by mapping it.
///
/// # Panics
///
/// There is more memory than there are tables for.
///
/// # Safety
///
/// By the boot CPU, once, before others are started.
pub unsafe fn begin(regions: impl Iterator<Item = Region> + Clone, limit: u64) {
    let memory = |chunk: &Range<u64>| {
        let mut regions = regions.clone().filter(Region::is_memory);
        regions.any(|region| region.start < chunk.end && chunk.start < region.end)
    };
    let map = |address, physical, size, rights| {
        // SAFETY: these are the addresses that the kernel is to have, and each is of one page.
        match unsafe { map(address, physical, size, rights) } {
            // Two regions may meet in a page.
            Ok(()) | Err(NotMapped::Occupied) => {}
            Err(_) => panic!("there are tables for 64 GiB of memory and no more"),
        }
    };
    let end = regions.clone().filter(Region::is_memory).map(|region| region.end).max();
    for start in (0..end.unwrap_or(0).min(limit)).step_by(LARGE as usize) {
        if memory(&(start..start + LARGE)) {
            map(direct::BASE + start as usize, start, LARGE, DATA);
        }
    }
    for region in regions.filter(|region| region.is_memory() && !region.is_ram()) {
        let start = region.start.max(limit) / PAGE * PAGE;
        for page in (start..region.end).step_by(PAGE as usize) {
            map(direct::BASE + page as usize, page, PAGE, DATA);
        }
    }
    for ((_, part), rights) in parts_of_image().into_iter().zip([CODE, CONSTANTS, DATA]) {
        for address in part.step_by(PAGE as usize) {
            map(address, (address - direct::IMAGE) as u64, PAGE, rights);
        }
    }
    temporary::begin();
    // SAFETY: the tables map the running code, its stack, and all that it will use.
    unsafe { asm!("mov cr3, {}", in(reg) root(), options(nostack)) };
}

/// The physical address of the root of the kernel's tables.
pub fn root() -> u64 {
    direct::of_image(&raw const POOL[0])
}

/// Makes a page of a device's registers seen; answers where.
///
/// # Panics
///
/// There is no table for it.
///
/// # Safety
///
/// There is a device, and nobody else has its registers.
pub unsafe fn map_device(physical: u64) -> usize {
    let address = DEVICES + physical as usize;
    // SAFETY: the caller's promise.
    let mapped =
        unsafe { map(address & !(PAGE as usize - 1), physical & !(PAGE - 1), PAGE, DEVICE) };
    mapped.unwrap_or_else(|_| panic!("there is no table for the registers of a device"));
    address
}

/// Why a page is not mapped.
#[derive(Debug)]
pub enum NotMapped {
    /// There is no memory for a table.
    NoTable,
    /// A large page is to be where a table of ordinary ones is.
    Divided,
    /// A page is mapped there.
    Occupied,
}

/// Held while entries are read and written.
static ENTRIES: Lock<Retired> = Lock::new(Retired(0));

/// Maps one page of `size` bytes, [`PAGE`] or [`LARGE`], at an address. Any context but NMI.
///
/// # Errors
///
/// See [`NotMapped`].
///
/// # Safety
///
/// Nobody uses the address for anything else, and whoever uses it may use the page so.
pub unsafe fn map(
    address: usize,
    physical: u64,
    size: u64,
    rights: Rights,
) -> Result<(), NotMapped> {
    let _alone = ENTRIES.lock();
    let (last, is_large) = if size == LARGE { (21, IS_LARGE) } else { (12, 0) };
    // The last entry says what a user may do, where all above it let users in.
    let entry = entry(table_of(last, address, rights.0 & USER)?, address, last);
    // SAFETY: under the lock.
    unsafe {
        let found = entry.read();
        if size == LARGE && found & (PRESENT | IS_LARGE) == PRESENT {
            return Err(NotMapped::Divided);
        }
        if found & PRESENT != 0 {
            return Err(NotMapped::Occupied);
        }
        entry.write(physical | rights.0 | is_large);
    }
    Ok(())
}

/// The table whose entries at a level an address has one of: it is made where there is none. Under the
/// lock.
fn table_of(last: u32, address: usize, users: u64) -> Result<u64, NotMapped> {
    let mut table = root();
    for level in [39, 30, 21].into_iter().take_while(|level| *level > last) {
        let entry = entry(table, address, level);
        // SAFETY: under the lock.
        let found = unsafe { entry.read() };
        if found & PRESENT == 0 {
            table = new_table()?;
            // SAFETY: as above; the new table is empty.
            unsafe { entry.write(table | PRESENT | WRITE | users) };
        } else {
            assert!(found & IS_LARGE == 0, "{address:#x} is in a large page");
            table = found & ADDRESS;
        }
    }
    Ok(table)
}

/// Has the entries of a table, at a physical address, say what is in the [`LARGE`] bytes from an address on.
/// It is never freed.
///
/// # Errors
///
/// See [`NotMapped`].
///
/// # Safety
///
/// Nobody uses the addresses for anything else; what the table's entries lead to may be used so.
pub unsafe fn use_table(address: usize, table: u64) -> Result<(), NotMapped> {
    let _alone = ENTRIES.lock();
    let entry = entry(table_of(21, address, 0)?, address, 21);
    // SAFETY: under the lock; the caller's promise.
    unsafe {
        if entry.read() & PRESENT != 0 {
            return Err(NotMapped::Occupied);
        }
        entry.write(table | PRESENT | WRITE);
    }
    Ok(())
}

/// An entry that leads to a frame.
pub fn entry_of(physical: u64, rights: Rights) -> u64 {
    physical | rights.0
}

/// Unmaps the ordinary page at an address; answers the number of its frame, to whoever was first. CPUs may
/// still reach it until they [`forget`].
///
/// # Safety
///
/// Nobody uses the address any more.
pub unsafe fn take(address: usize) -> Option<u64> {
    let _alone = ENTRIES.lock();
    let (entry, level) = find(address, 12);
    let entry = entry.filter(|_| level == 12)?;
    // SAFETY: under the lock; nobody uses the page.
    let found = unsafe {
        let found = entry.read();
        entry.write(0);
        found
    };
    Some((found & ADDRESS) / PAGE)
}

/// Unmaps the pages in a range, of either size, those that are mapped. Of a large one all is in the range.
/// CPUs may still reach them until they [`forget`].
///
/// # Safety
///
/// Nobody uses the addresses any more.
pub unsafe fn unmap(pages: Range<usize>) {
    let mut at = pages.start;
    while at < pages.end {
        let mut retired = ENTRIES.lock();
        let whole = at.is_multiple_of(LARGE as usize) && pages.end - at >= LARGE as usize;
        let (entry, level) = find(at, if whole { 21 } else { 12 });
        if let Some(entry) = entry {
            // SAFETY: under the lock; nobody uses what the entry leads to.
            unsafe {
                let found = entry.read();
                entry.write(0);
                if whole && found & IS_LARGE == 0 {
                    retired.push(found & ADDRESS);
                }
            }
        }
        at = (at & !((1 << level) - 1)) + (1 << level);
    }
}

/// Tables that no entry leads to any more and that CPUs may still know. The first word of each has the
/// next: no page, since an address of a table is none that is present.
struct Retired(u64);

impl Retired {
    fn push(&mut self, table: u64) {
        // SAFETY: the table is nobody's but of CPUs that remember it, which find no page there.
        unsafe { direct::pointer::<u64>(table).write(self.0) };
        self.0 = table;
    }

    /// Gives all of them back. Every CPU has forgotten them.
    fn free(mut self) {
        while self.0 != 0 {
            let table = direct::pointer::<u64>(core::mem::take(&mut self.0));
            // SAFETY: nobody knows the table any more. Those of the pool stay empty and unused.
            unsafe {
                self.0 = table.read();
                if !image().contains(&physical(VirtAddr::from_ptr(table))) {
                    HEAP.free_page(VirtAddr::from_ptr(table));
                }
            }
        }
    }
}

/// From so many pages on a CPU forgets all it knows, which it can look up again faster than it forgets
/// them one by one.
const MANY: usize = 64;

/// Has all CPUs forget what they know of the pages in a range. Called with interrupts let in and no lock
/// held.
pub fn forget(pages: Range<usize>) {
    // Those that are retired from now on may be known when this has ended.
    let retired = core::mem::replace(&mut *ENTRIES.lock(), Retired(0));
    for cpu in smp::online() {
        // One that has stopped has forgotten everything when it starts again.
        let _ = smp::call_on(cpu, &|| forget_here(pages.clone()));
    }
    retired.free();
}

fn forget_here(pages: Range<usize>) {
    if pages.len() / PAGE as usize > MANY {
        // SAFETY: pages that are forgotten are looked up when they are used. Global pages are forgotten
        // when the bit that says that there are such changes.
        unsafe {
            asm!(
                "mov {all}, cr4", "mov {less}, {all}", "and {less}, ~0x80", "mov cr4, {less}", "mov cr4, {all}",
                all = out(reg) _, less = out(reg) _, options(nostack)
            );
        }
        return;
    }
    pages.step_by(PAGE as usize).for_each(forget_page);
}

/// Has the running CPU forget what it knows of a page.
pub fn forget_page(address: usize) {
    // SAFETY: a page that is forgotten is looked up when it is used.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) };
}

/// The entry of an address that says of what is at it, down to a level, if there is one that is present;
/// and the level of that entry, or of the one that is missing. Under the lock.
fn find(address: usize, down_to: u32) -> (Option<*mut u64>, u32) {
    let mut table = root();
    for level in [39, 30, 21, 12] {
        let entry = entry(table, address, level);
        // SAFETY: under the lock.
        let found = unsafe { entry.read() };
        if found & PRESENT == 0 {
            return (None, level);
        }
        if level == down_to || found & IS_LARGE != 0 {
            return (Some(entry), level);
        }
        table = found & ADDRESS;
    }
    unreachable!("the last level's entries are of pages")
}

/// The physical address of an empty table.
fn new_table() -> Result<u64, NotMapped> {
    if !HEAP.is_booted() {
        let number = TAKEN.fetch_add(1, Relaxed);
        return POOL.get(number).map(|table| direct::of_image(table)).ok_or(NotMapped::NoTable);
    }
    let page = HEAP.__get_free_pages(GFP_ATOMIC | Gfp::ZERO, 0);
    page.map(physical).map_err(|_| NotMapped::NoTable)
}

/// The physical address of what is seen in the direct map.
pub fn physical(address: VirtAddr) -> u64 {
    (address.get() - direct::BASE) as u64
}

/// The entry for an address in a table.
fn entry(table: u64, address: usize, level: u32) -> *mut u64 {
    direct::pointer::<u64>(table).wrapping_add(address >> level & 511)
}

//! What a kernel has before it has a memory manager: the way from the loader to Rust, a serial line, the
//! loader's memory map, and an end. All of it is that of the whole kernel, in `src`.

// Each file has what the whole kernel wants of it; this one wants less.
#![allow(dead_code)]

extern crate alloc;

use core::ops::Range;

pub use self::alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

#[path = "../../src/direct.rs"]
pub mod direct;
#[path = "../../src/entry.rs"]
pub mod entry;
#[path = "../../src/exit.rs"]
pub mod exit;
#[path = "../../src/memory.rs"]
pub mod memory;
#[path = "../../src/port.rs"]
pub mod port;
#[path = "../../src/serial.rs"]
pub mod serial;
#[path = "../../src/start_info.rs"]
pub mod start_info;

/// Writes a line to the serial line.
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::serial::Serial, $($argument)*);
    }};
}
pub(crate) use println;

/// How much of memory the entry code maps.
pub const MAPPED: u64 = 1 << 30;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// The physical addresses that the image takes: the stack and the page tables are in it.
pub fn image() -> Range<u64> {
    (&raw const image_start).addr() as u64..(&raw const image_end).addr() as u64
}

/// The RAM that the loader found and the entry code has mapped.
fn ram(start_info: u32) -> impl Iterator<Item = Range<u64>> {
    let regions = start_info::StartInfo::new(start_info).regions();
    let ram = regions.filter(|region| region.is_ram() && region.start < MAPPED);
    ram.map(|region| region.start..region.end.min(MAPPED))
}

#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u32) -> ! {
    crate::main(ram(start_info));
    exit::end(exit::Status::Fine)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("kernel panic: {info}");
    exit::end(exit::Status::Panic)
}

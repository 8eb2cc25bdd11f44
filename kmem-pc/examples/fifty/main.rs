//! A kernel of fifty lines: kmem gives it page frames, and `Vec`, `Box` and `BTreeMap`.
#![no_std]
#![no_main]
mod machine; // what a kernel has before: the way from the loader to `main`, `println`, an end

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use kmem::{platform::*, *};
use machine::*;

struct Kernel(AtomicU32); // how many reasons there are not to sleep

// SAFETY: there is one CPU, and nothing pre-empts.
#[rustfmt::skip] unsafe impl Cpus for Kernel {
    fn pin(&self) { self.0.fetch_add(1, Relaxed); }
    fn unpin(&self) { self.0.fetch_sub(1, Relaxed); }
    fn current(&self) -> CpuId { CpuId::BOOT }
}

// SAFETY: the entry code masks interrupts, and nobody lets them in.
#[rustfmt::skip] unsafe impl Context for Kernel {
    type Saved = ();
    fn mask(&self) { self.0.fetch_add(1, Relaxed); }
    fn restore(&self, _: ()) { self.0.fetch_sub(1, Relaxed); }
    fn in_atomic(&self) -> bool { self.0.load(Relaxed) != 0 }
    fn in_nmi(&self) -> bool { false }
}

// SAFETY: the entry code maps so much of memory there, readable and writable.
#[rustfmt::skip] unsafe impl DirectMap for Kernel {
    fn base(&self) -> VirtAddr { VirtAddr::new(direct::BASE) }
    fn limit(&self) -> PhysAddr { PhysAddr::new(MAPPED) }
}

#[rustfmt::skip] impl Hooks for Kernel {
    fn log(&self, _: Level, message: core::fmt::Arguments<'_>) { println!("kmem: {message}"); }
    fn misuse(&self, report: &Misuse<'_>) { panic!("{report}"); }
}

static MM: Mm<Kernel> = Mm::new(Kernel(AtomicU32::new(0)));
#[global_allocator]
static ALLOCATOR: GlobalKmalloc<&Mm<Kernel>> = GlobalKmalloc::new_in(&MM);

fn main(ram: impl Iterator<Item = core::ops::Range<u64>>) {
    let map = ram.fold(MemoryMap::new(), |map, ram| map.ram(ram, NodeId::ZERO));
    // SAFETY: the RAM is there, and but for the image nobody uses it.
    unsafe { MM.boot(&map.kernel(image(), "kernel"), &Setup::new()) }.expect("it boots");
    let block = MM.alloc_pages(GFP_KERNEL, 3).expect("there are eight pages in a row");
    println!("pages: 8 at {}, {} are free", MM.page_to_phys(block), MM.free_page_count());
    // SAFETY: the block is ours, and nothing uses it.
    unsafe { MM.__free_pages(block, 3) };

    let squares: Vec<u64> = (0..1000).map(|number| number * number).collect();
    let last = Box::new(squares[999]);
    let roots: BTreeMap<u64, u64> = squares.iter().copied().zip(0..).collect();
    assert!(roots.iter().all(|(square, root)| root * root == *square) && roots[&*last] == 999);
    println!("Vec: {} squares, the first at {:p}", squares.len(), &squares[0]);
    println!("Box: the last of them, {last}, at {last:p}");
    println!("BTreeMap: {} roots, the first at {:p}", roots.len(), &roots[&0]);
}

//! A process whose global allocator is a manager of its own, from before it is booted: a test without
//! a harness, since that would have allocated before it.
//!
//! The machine has one CPU, which a thread holds while it is pinned or has interrupts masked. An
//! interrupt can be made to arrive wherever the manager pins, and allocates there.

use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::mpsc;

use kmem::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse};
use kmem::*;

mod mm {
    pub static MM: kmem::Mm<super::Kernel> = kmem::Mm::new(super::Kernel);
    kmem::kernel_types!(MM: kmem::Mm<super::Kernel>);
}

const RAM_BYTES: usize = 24 << 20;
const EARLY: usize = 96 << 10;

#[global_allocator]
static ALLOCATOR: GlobalKmalloc<mm::Memory, EARLY> = GlobalKmalloc::new_in(mm::Memory);

#[repr(align(65536))]
struct Ram(UnsafeCell<[u8; RAM_BYTES]>);

// SAFETY: the manager's and its callers'.
unsafe impl Sync for Ram {}

static RAM: Ram = Ram(UnsafeCell::new([0; RAM_BYTES]));

/// The platform.
pub struct Kernel;

/// Whether a thread has the CPU.
static TAKEN: AtomicBool = AtomicBool::new(false);
static MISUSES: AtomicU64 = AtomicU64::new(0);
/// After how many pins an interrupt arrives; 0: none.
static INTERRUPT_EVERY: AtomicUsize = AtomicUsize::new(0);
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

// Values without a destructor: they allocate nothing, and are there to a thread's end.
thread_local! {
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    static PINS: Cell<usize> = const { Cell::new(0) };
    static INTERRUPTED: Cell<bool> = const { Cell::new(false) };
    static KEPT: Cell<*mut Vec<u64>> = const { Cell::new(std::ptr::null_mut()) };
}

fn take_cpu() {
    if HOLDS.get() == 0 {
        while TAKEN.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            std::thread::yield_now();
        }
    }
    HOLDS.set(HOLDS.get() + 1);
}

fn leave_cpu() {
    HOLDS.set(HOLDS.get() - 1);
    if HOLDS.get() == 0 {
        TAKEN.store(false, Release);
    }
}

/// What an interrupt handler does: allocates, and frees what the last one allocated.
fn maybe_interrupt() {
    let every = INTERRUPT_EVERY.load(Relaxed);
    PINS.set(PINS.get() + 1);
    if every == 0 || !PINS.get().is_multiple_of(every) || INTERRUPTED.replace(true) {
        return;
    }
    let mut numbers: Vec<u64> = Vec::with_capacity(PINS.get() % 300);
    numbers.extend(0..(PINS.get() % 400) as u64);
    let last = KEPT.replace(Box::into_raw(Box::new(numbers)));
    if !last.is_null() {
        // SAFETY: the last interrupt of this thread kept it.
        let last = unsafe { Box::from_raw(last) };
        assert!(last.iter().copied().eq(0..last.len() as u64));
    }
    INTERRUPTS.fetch_add(1, Relaxed);
    INTERRUPTED.set(false);
}

// SAFETY: a thread that is pinned has the CPU; what interrupts it ends before it goes on.
unsafe impl Cpus for Kernel {
    fn pin(&self) {
        take_cpu();
        maybe_interrupt();
    }

    fn unpin(&self) {
        maybe_interrupt();
        leave_cpu();
    }

    fn current(&self) -> CpuId {
        CpuId::BOOT
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

// SAFETY: interrupts come from `pin` and `unpin`, and the manager does not pin while they are masked.
unsafe impl Context for Kernel {
    type Saved = bool;

    fn mask(&self) -> bool {
        take_cpu();
        INTERRUPTED.replace(true)
    }

    fn restore(&self, saved: bool) {
        INTERRUPTED.set(saved);
        leave_cpu();
    }

    fn in_atomic(&self) -> bool {
        HOLDS.get() > 0 || INTERRUPTED.get()
    }

    fn in_nmi(&self) -> bool {
        false
    }
}

// SAFETY: the RAM is a static.
unsafe impl DirectMap for Kernel {
    fn base(&self) -> VirtAddr {
        VirtAddr::from_ptr(RAM.0.get())
    }

    fn limit(&self) -> PhysAddr {
        PhysAddr::new(RAM_BYTES as u64)
    }
}

impl Hooks for Kernel {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}

    fn misuse(&self, _: &Misuse<'_>) {
        MISUSES.fetch_add(1, Relaxed);
    }
}

fn in_ram<T>(pointer: *const T) -> bool {
    let start = RAM.0.get().addr();
    (start..start + RAM_BYTES).contains(&pointer.addr())
}

fn main() {
    // A backtrace wants more memory than the machine has.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(101);
    }));
    let early = before_boot();
    // SAFETY: the RAM is there, and the manager's alone.
    unsafe { mm::MM.boot(&MemoryMap::new().ram(0..RAM_BYTES as u64, NodeId::ZERO), &Setup::new()) }
        .expect("the machine boots");
    what_came_before_boot_stays_and_goes(early);
    collections_live_in_the_machines_ram();
    for every in [0, 1, 2, 3, 7, 50] {
        INTERRUPT_EVERY.store(every, Relaxed);
        threads_pass_memory_on();
    }
    assert!(INTERRUPTS.load(Relaxed) > 1000);
    INTERRUPT_EVERY.store(0, Relaxed);
    memory_that_runs_out_is_an_error();
    assert_eq!(MISUSES.load(Relaxed), 0, "the manager reported misuse");
    mm::MM.verify().expect("the manager's tables are sound");
    println!("global allocator: ok");
}

struct Early {
    list: Vec<u32>,
    text: String,
    map: BTreeMap<u32, String>,
}

fn before_boot() -> Early {
    let (used, lost) = (ALLOCATOR.early_used(), ALLOCATOR.early_lost());
    // The last piece grows where it is, and is had back.
    let mut list: Vec<u32> = Vec::with_capacity(10);
    let at = list.as_ptr();
    list.extend(0..1000);
    assert!(!in_ram(at) && list.as_ptr() == at, "the last piece grows in place");
    assert!(ALLOCATOR.early_used() >= used + 4000);
    drop(list);
    // But for what its alignment may have left out.
    assert!(ALLOCATOR.early_used() < used + 4 && ALLOCATOR.early_lost() == lost);
    // Memory that was used before is zeroed where that is asked for.
    assert!(vec![0u64; 400].iter().all(|word| *word == 0));
    let wide = Box::new(Wide([7; 3]));
    assert!(std::ptr::from_ref(&*wide).addr().is_multiple_of(4096));
    drop(wide);
    // One that is not the last moves, and what it had is lost.
    let lost = ALLOCATOR.early_lost();
    let mut list: Vec<u32> = (0..100).collect();
    let text = "before boot".repeat(20);
    list.extend(100..200);
    assert_eq!(ALLOCATOR.early_lost(), lost + 400);
    // More than the arena has: no memory, and no panic.
    assert!(Vec::<u8>::new().try_reserve_exact(EARLY).is_err());
    let mut last: Vec<u8> = vec![1; 10];
    assert!(last.try_reserve_exact(EARLY).is_err() && last == [1; 10]);
    drop(last);
    let map = (0..50).map(|number| (number, format!("number {number}"))).collect();
    Early { list, text, map }
}

fn what_came_before_boot_stays_and_goes(mut early: Early) {
    let used = ALLOCATOR.early_used();
    assert!(early.list.iter().copied().eq(0..200));
    assert_eq!(early.text, "before boot".repeat(20));
    assert_eq!(early.map[&49], "number 49");
    // Too large for the arena now, so it moves to the machine's RAM.
    early.list.extend(200..60_000);
    assert!(in_ram(early.list.as_ptr()));
    assert!(early.list.iter().copied().eq(0..60_000));
    early.map.extend((50..100).map(|number| (number, format!("number {number}"))));
    assert!((0..100).all(|number| early.map[&number] == format!("number {number}")));
    let lost = ALLOCATOR.early_lost();
    drop(early);
    assert!(ALLOCATOR.early_lost() + used - ALLOCATOR.early_used() > lost);
    let (used, held) = (ALLOCATOR.early_used(), vec![1u8; 100]);
    assert!(in_ram(held.as_ptr()) && ALLOCATOR.early_used() == used, "early memory is for early");
}

#[derive(Clone, PartialEq, Debug)]
#[repr(align(4096))]
struct Wide([u8; 3]);

fn collections_live_in_the_machines_ram() {
    let mut map = BTreeMap::new();
    for number in 0..20_000u64 {
        map.insert(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), Box::new(number));
    }
    assert!(map.values().all(|number| in_ram(&**number)));
    assert_eq!(map.into_values().map(|number| *number).sum::<u64>(), 19_999 * 10_000);
    let wides: Vec<Box<Wide>> = (0..100).map(|number| Box::new(Wide([number; 3]))).collect();
    for (number, wide) in wides.iter().enumerate() {
        assert!(in_ram(&**wide) && std::ptr::from_ref(&**wide).addr().is_multiple_of(4096));
        assert_eq!(**wide, Wide([number as u8; 3]));
    }
    // What kmalloc rounds up to is there to grow into.
    let mut list: Vec<u8> = vec![7; 1030];
    let at = list.as_ptr();
    list.reserve_exact(mm::MM.kmalloc_size_roundup(1030) - 1030);
    assert!(list.capacity() > 1030 && list.as_ptr() == at && list == [7; 1030]);
    // Text that grows moves now and then, and shrinks.
    let mut text = String::new();
    (0..100_000).for_each(|number| text.push(char::from(b'a' + (number % 26) as u8)));
    text.truncate(1000);
    text.shrink_to_fit();
    assert!(text.bytes().enumerate().all(|(at, byte)| byte == b'a' + (at % 26) as u8));
    let counts: HashMap<char, usize> =
        text.chars().fold(HashMap::new(), |mut counts, character| {
            *counts.entry(character).or_default() += 1;
            counts
        });
    assert_eq!(counts.values().sum::<usize>(), 1000);
}

/// Threads allocate, hand on and free what others allocated, while interrupts allocate too.
fn threads_pass_memory_on() {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::sync_channel(64)).unzip();
    std::thread::scope(|scope| {
        for (number, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(number + 1) % 3].clone();
            scope.spawn(move || {
                for step in 0..6000usize {
                    let size = (step * (number + 7)) % 700;
                    let parcel: Vec<usize> = (0..size).collect();
                    // Not waited for: if all did, nobody would receive.
                    let _ = next.try_send(parcel.into_boxed_slice());
                    if let Ok(parcel) = receiver.try_recv() {
                        assert!(parcel.iter().copied().eq(0..parcel.len()));
                    }
                }
                let kept = KEPT.replace(std::ptr::null_mut());
                if !kept.is_null() {
                    // SAFETY: an interrupt of this thread kept it; none comes between, as it is taken.
                    drop(unsafe { Box::from_raw(kept) });
                }
            });
        }
        drop(senders);
    });
}

fn memory_that_runs_out_is_an_error() {
    let mut list: Vec<u8> = Vec::new();
    let mut long: Vec<u32> = (0..10_000).collect();
    long.truncate(10);
    assert!(list.try_reserve(1 << 40).is_err());
    let layout = Layout::new::<[u64; 100]>();
    let mut last: *mut *mut u8 = std::ptr::null_mut();
    let mut count = 0;
    loop {
        // SAFETY: the size is not 0.
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            break;
        }
        // Linked through themselves: a list of them would want memory.
        let memory: *mut *mut u8 = memory.cast();
        // SAFETY: there is room for a pointer.
        unsafe { memory.write(last.cast()) };
        (last, count) = (memory, count + 1);
    }
    assert!(count > RAM_BYTES / 2 / 800, "{count}");
    assert!(list.try_reserve(1 << 20).is_err());
    // What shrinks has no need of memory.
    long.shrink_to_fit();
    assert!(long.iter().copied().eq(0..10));
    while !last.is_null() {
        // SAFETY: so it was written.
        let before = unsafe { last.read() };
        // SAFETY: it was allocated so.
        unsafe { std::alloc::dealloc(last.cast(), layout) };
        last = before.cast();
    }
    list.extend((0..1 << 20).map(|number| number as u8));
    assert!(in_ram(list.as_ptr()));
}

//! What this processor, and its host, charge for what an allocator is made of. With the same figures of the
//! machine that the goals and Linux's figures come from, readers can compare the two.

use std::cell::Cell;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::measure::{HostCpus, Plan, nanoseconds};
use crate::peers::Array;
use crate::{rows, threads};

/// One primitive.
pub struct Limit {
    /// Its name, for people and for `--filter`.
    pub name: &'static str,
    /// Nanoseconds on the machine of the goals and of Linux's figures, Cascade Lake at 2.5 GHz, if it
    /// was measured there.
    pub there: Option<f64>,
    measure: fn(&Plan, With) -> Vec<f64>,
}

/// What a limit is measured with.
#[derive(Clone, Copy, Debug)]
pub struct With {
    /// What the random order is made from.
    pub seed: u64,
    /// The CPUs of the host that may be used.
    pub cpus: HostCpus,
}

impl Limit {
    /// One round.
    pub fn measure(&self, plan: &Plan, with: With) -> Vec<f64> {
        (self.measure)(plan, with)
    }
}

/// All limits.
pub const LIMITS: [Limit; 10] = [
    limit("lock cmpxchg", Some(6.3), compare_exchange),
    limit("xchg", Some(6.0), exchange),
    limit("spin-lock pair", Some(8.5), spin_lock),
    limit("thread-local increment", Some(1.4), thread_local_increment),
    limit("line from CPU to CPU", Some(133.0), line),
    limit("memset 4 KiB in L1", Some(31.0), memset),
    limit("array of one CPU, pair", Some(2.9), array_pair),
    limit("array of one CPU, fifo", Some(3.1), array_fifo),
    limit("array of one CPU, shuffled", Some(3.1), array_shuffled),
    limit("first touch of a page", None, first_touch),
];

const fn limit(
    name: &'static str,
    there: Option<f64>,
    measure: fn(&Plan, With) -> Vec<f64>,
) -> Limit {
    Limit { name, there, measure }
}

fn compare_exchange(plan: &Plan, _: With) -> Vec<f64> {
    let word = AtomicU64::new(0);
    plan.short(|| {
        let word = black_box(&word);
        let _ = black_box(word.compare_exchange(0, 0, Ordering::AcqRel, Ordering::Relaxed));
    })
}

fn exchange(plan: &Plan, _: With) -> Vec<f64> {
    let word = AtomicU64::new(0);
    plan.short(|| {
        black_box(black_box(&word).swap(1, Ordering::AcqRel));
    })
}

/// Nobody else wants it.
fn spin_lock(plan: &Plan, _: With) -> Vec<f64> {
    let lock = AtomicBool::new(false);
    plan.short(|| {
        let lock = black_box(&lock);
        while lock.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        lock.store(false, Ordering::Release);
    })
}

fn thread_local_increment(plan: &Plan, _: With) -> Vec<f64> {
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    plan.short(|| COUNT.with(|count| black_box(count).set(count.get() + 1)))
}

fn line(plan: &Plan, with: With) -> Vec<f64> {
    threads::line(with.cpus, plan)
}

fn memset(plan: &Plan, _: With) -> Vec<f64> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([1; 4096]));
    plan.short(|| black_box(&mut page.0).fill(0))
}

/// Frames of the array: as many as the bulk rows hold, and some more.
const FRAMES: u32 = 16_384;
/// As the bulk rows of order 0.
const BULK: usize = 10_000;

fn array_pair(plan: &Plan, _: With) -> Vec<f64> {
    rows::pair(&mut Array::new(FRAMES), 0, plan)
}

fn array_fifo(plan: &Plan, _: With) -> Vec<f64> {
    rows::many(&mut Array::new(FRAMES), 0, BULK, None, plan)
}

fn array_shuffled(plan: &Plan, with: With) -> Vec<f64> {
    rows::many(&mut Array::new(FRAMES), 0, BULK, Some(with.seed), plan)
}

/// What the host asks for a page of a memory file, of which a hosted machine's RAM is made, when it
/// is first written: it is found, cleared and mapped.
fn first_touch(plan: &Plan, _: With) -> Vec<f64> {
    const PAGES: usize = 1024;
    const PAGE: usize = 4096;
    let touch = || -> Result<f64, Errno> {
        let file = memfd_create("first-touch", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, (PAGES * PAGE) as u64)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe { mmap(null_mut(), PAGES * PAGE, access, MapFlags::SHARED, &file, 0)? };
        let time = nanoseconds(|| {
            for page in 0..PAGES {
                // SAFETY: within the mapping, which nobody else knows.
                unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(1) };
            }
        });
        // SAFETY: the mapping made above; nothing refers to it.
        unsafe { munmap(start, PAGES * PAGE)? };
        Ok(time / PAGES as f64)
    };
    plan.repeat_slow(|| touch().expect("there are memory files: the hosted machine is one"))
}

//! Trace events of a machine, as a file in the text form of Linux's `trace`.
//!
//! ```text
//!   CPU 0: task, interrupt, NMI          CPU 1 ...
//!        │ Recorder::record                   │
//!        ▼                                    ▼
//!   [ ring of events ]                   [ ring of events ]       no lock, no heap
//!        └──────────────┬─────────────────────┘
//!                       ▼  every few milliseconds
//!                 the writer, a thread of the host: in the order of time, as text ──> file
//! ```
//!
//! A machine that is to be traced is booted by [`Machine::boot_traced`](crate::Machine::boot_traced), as a
//! type of its own: one whose platform says [`TRACE`](kmem::platform::Hooks::TRACE). All others are compiled
//! without a trace of it.
//!
//! # Writing
//!
//! An event is written where it happens, in whatever context: it is put into the ring of its CPU together
//! with the time, the thread and the thread's state, and becomes text later. Nobody but the CPU writes to its
//! ring, so the ring's compare-exchange never meets another; what interrupts a write takes the next place.
//!
//! A task that finds its CPU's ring nearly full lets the writer have the processor for a while, so that a
//! machine which is faster than the writer is slowed and loses nothing. A handler cannot wait: the thread
//! that it interrupted may have the host's heap, which the writer needs. The last quarter of a ring is kept
//! for handlers. What finds no place after all is counted, and the file says where it would have been.
//!
//! # The order of time
//!
//! The rings are read one after the other, and an event may get its place after a later one: by an interrupt
//! between looking at the clock and taking the place, or on another CPU. So the writer keeps back what is not
//! yet certain to be complete. Before it looks at the clock, the outermost write of a CPU leaves the time in
//! `since`, and takes it away when it is done. The writer looks at the clock, *then* at every `since`, *then*
//! empties the rings: every event that it has not seen by then is later than the earliest of those times,
//! and what is earlier can go to the file.

mod ages;
mod file;
mod text;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};

use kmem::CpuId;
use kmem::platform::Event;

use crate::local::{self, Thread};
use crate::ring::Ring;

pub(crate) use ages::Ages;
pub use file::{TraceFile, WriteError, Written};

/// Places for events of a CPU: what a CPU that does nothing but allocate and free says in some ten
/// milliseconds, in which the writer comes by several times.
const PLACES: usize = 32 << 10;

/// How full a ring may be, in hundredths, before tasks wait for the writer.
const ROOM_FOR_TASKS: u64 = 75;

/// How long a task waits: longer than a busy host keeps a thread from running.
const PATIENCE: u64 = 2_000_000_000;

/// One event, and where and when it was.
#[derive(Clone, Copy)]
struct Record {
    /// In nanoseconds, by the host's clock that does not run backwards.
    time: u64,
    event: Event,
    thread: Thread,
    cpu: u16,
    /// How many events of this CPU found no place since the one before.
    lost: u32,
}

/// What a CPU writes to.
struct CpuRing {
    ring: Ring<Record>,
    /// No write of this CPU that is under way is earlier; 0 where none is.
    since: AtomicU64,
    /// Events that found no place since the last that did.
    lost: AtomicU64,
}

/// Where the events of a machine are kept until they are written.
pub struct Recorder {
    cpus: Box<[CpuRing]>,
    /// Whether anybody empties the rings. Until then, and afterwards, nobody waits.
    is_read: AtomicBool,
    /// Events of threads that hold no CPU of the machine.
    without_cpu: AtomicU64,
}

impl Recorder {
    /// For a machine with so many CPUs.
    fn new(cpus: u32) -> Recorder {
        let ring = |_| CpuRing {
            ring: Ring::new(PLACES),
            since: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        Recorder {
            cpus: (0..cpus).map(ring).collect(),
            is_read: AtomicBool::new(false),
            without_cpu: AtomicU64::new(0),
        }
    }

    /// Takes an event of a CPU. Any context; the calling thread holds that CPU.
    pub(crate) fn record(&self, cpu: Option<CpuId>, event: &Event) {
        let Some((cpu, ring)) = cpu.and_then(|cpu| Some((cpu, self.cpus.get(cpu.index())?))) else {
            self.without_cpu.fetch_add(1, Relaxed);
            return;
        };
        if !local::in_handler() {
            self.wait_for_room(ring);
        }
        let is_outermost = ring.since.load(Relaxed) == 0;
        if is_outermost {
            // With the fence, pairs with that in `take`: either the writer sees this, or the time below is
            // later than the writer's.
            ring.since.store(now(), SeqCst);
            fence(SeqCst);
        }
        let lost = ring.lost.swap(0, Relaxed);
        let (time, thread) = (now(), local::this_thread());
        let short = u32::try_from(lost).unwrap_or(u32::MAX);
        let record = Record { time, event: *event, thread, cpu: cpu.get() as u16, lost: short };
        if !ring.ring.write(record) {
            ring.lost.fetch_add(lost + 1, Relaxed);
        }
        if is_outermost {
            // Pairs with the Acquire in `take`: who sees this sees the place full.
            ring.since.store(0, Release);
        }
    }

    /// Gives the writer time to make room, where little is left.
    #[inline]
    fn wait_for_room(&self, ring: &CpuRing) {
        if ring.ring.percent() < ROOM_FOR_TASKS {
            return;
        }
        let until = now() + PATIENCE;
        while self.is_read.load(Relaxed) && ring.ring.percent() >= ROOM_FOR_TASKS {
            if now() > until {
                // It does not come: from now on events are lost rather than time.
                self.is_read.store(false, Relaxed);
            }
            rustix::thread::sched_yield();
        }
    }

    /// Empties the rings into `records`, and answers a time: every event that is taken later was later.
    fn take(&self, records: &mut Vec<Record>) -> u64 {
        let mut complete = now();
        // See `record`.
        fence(SeqCst);
        for cpu in &self.cpus {
            match cpu.since.load(Acquire) {
                0 => {}
                since => complete = complete.min(since),
            }
        }
        for cpu in &self.cpus {
            cpu.ring.take(|record| records.push(*record));
        }
        complete
    }

    /// How full the fullest ring is, in hundredths.
    fn percent(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.ring.percent()).max().unwrap_or(0)
    }

    /// How many events were lost, of all CPUs.
    fn lost(&self) -> u64 {
        let of_cpus: u64 = self.cpus.iter().map(|cpu| cpu.ring.dropped()).sum();
        of_cpus + self.without_cpu.load(Relaxed)
    }

    /// How many events each CPU lost after the last that it did not.
    fn lost_at_end(&self) -> impl Iterator<Item = (usize, u64)> {
        let lost = self.cpus.iter().map(|cpu| cpu.lost.swap(0, Relaxed)).enumerate();
        lost.filter(|(_, lost)| *lost != 0)
    }
}

/// The time in nanoseconds, by the host's clock that does not run backwards: the one that Linux's traces
/// can have too. Never 0. Any context.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64).max(1)
}

#[cfg(test)]
mod tests;

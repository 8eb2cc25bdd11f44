//! What takes two threads: rows of objects, and a limit. Each thread is on a CPU of the host and, of a
//! hosted machine, on a CPU of that.

use std::hint::{black_box, spin_loop};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::time::Instant;

use kmem::CpuId;

use crate::heaps::Heap;
use crate::measure::{HostCpus, Plan, bind, nanoseconds};
use crate::objects::{LIVE, Mixed, Work, get};

/// Repetitions that do not count: heaps fit what they keep at hand to what went on lately.
const WARM_UP: usize = 4;

/// Runs work on a CPU of the machine that a heap is of.
pub type OnCpu<'o> = &'o (dyn Fn(CpuId, &mut dyn FnMut()) + Sync);

/// For heaps that are of no machine.
pub const ANYWHERE: OnCpu<'static> = &|_, work| work();

/// One round of a row of two threads; none where the host has one CPU, or where the row takes one.
pub fn measure<H: Heap + Sync>(
    heap: &H,
    on_cpu: OnCpu<'_>,
    work: Work,
    seed: u64,
    cpus: HostCpus,
    plan: &Plan,
) -> Vec<f64> {
    let Some(two) = Two::new(cpus, on_cpu) else { return vec![] };
    match work {
        Work::MixedByTwo => {
            let values = two.run(plan, |side| {
                let mut mixed = Mixed::with_room(heap, LIVE, seed.wrapping_add(side as u64));
                mixed.fill(LIVE);
                Box::new(move || mixed.time_replaced())
            });
            values.map(|[one, other]| f64::midpoint(one, other)).collect()
        }
        Work::Remote { size } => {
            let ring = Ring::new(&two.failed);
            let values = two.run(plan, |side| match side {
                0 => Box::new(|| ring.allocate_and_send(heap, size)),
                _ => Box::new(|| ring.receive_and_free(heap, size)),
            });
            // An object is through when the slower side is.
            values.map(|[one, other]| one.max(other)).collect()
        }
        _ => vec![],
    }
}

/// Two threads in step.
struct Two<'o> {
    host: [usize; 2],
    on_cpu: OnCpu<'o>,
    /// How many times a thread has come to [`Two::meet`].
    arrived: AtomicUsize,
    enough: AtomicBool,
    /// A thread panicked: the other must not wait for it.
    failed: AtomicBool,
}

/// Nanoseconds that a line of the processor's cache takes from one CPU to the other; none where the host
/// has one. It goes to and fro, so half of a round counts.
pub fn line(cpus: HostCpus, plan: &Plan) -> Vec<f64> {
    const ROUNDS: usize = 2000;
    let Some(two) = Two::new(cpus, ANYWHERE) else { return vec![] };
    let ball = Count(AtomicUsize::new(0));
    let values = two.run(plan, |side| {
        // Each side writes every second number, and waits for the other's.
        let (ball, failed) = (&ball.0, &two.failed);
        let mut turn = side;
        Box::new(move || {
            let rounds = nanoseconds(|| {
                for _ in 0..ROUNDS {
                    wait_until(failed, || ball.load(Acquire) == turn);
                    ball.store(turn + 1, Release);
                    turn += 2;
                }
            });
            rounds / (2 * ROUNDS) as f64
        })
    });
    values.map(|[one, other]| f64::midpoint(one, other)).collect()
}

/// One repetition of a thread's work, in nanoseconds an object. Dropped on the thread's CPU.
type Side<'w> = Box<dyn FnMut() -> f64 + 'w>;

impl<'o> Two<'o> {
    /// `None` where the host has one CPU.
    fn new(cpus: HostCpus, on_cpu: OnCpu<'o>) -> Option<Self> {
        Some(Two {
            host: [cpus.own, cpus.other?],
            on_cpu,
            arrived: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    /// The figures of both threads, a pair a repetition.
    fn run<'w>(
        &self,
        plan: &Plan,
        make: impl Fn(usize) -> Side<'w> + Sync,
    ) -> impl Iterator<Item = [f64; 2]> {
        let thread = |side: usize| {
            let _failure = OnPanic(&self.failed);
            bind(self.host[side]).expect("the program may use this CPU");
            let mut values = Vec::new();
            let cpu = CpuId::new(side as u32).expect("the machine has two");
            (self.on_cpu)(cpu, &mut || values = self.repeat(plan, side, make(side)));
            values
        };
        let [one, other] = std::thread::scope(|scope| {
            let thread = &thread;
            [0, 1].map(|side| scope.spawn(move || thread(side))).map(|running| {
                running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        one.into_iter().zip(other).map(|(one, other)| [one, other])
    }

    /// Repetitions after some that do not count, until there are enough or they took long enough.
    fn repeat(&self, plan: &Plan, side: usize, mut once: Side<'_>) -> Vec<f64> {
        let mut values = Vec::new();
        for _ in 0..WARM_UP {
            self.meet();
            once();
        }
        let start = Instant::now();
        loop {
            self.meet();
            values.push(once());
            if side == 0 {
                let long = start.elapsed() >= plan.budget || values.len() >= plan.repetitions;
                // Read by the other after it has met this thread again.
                self.enough.store(long, Relaxed);
            }
            self.meet();
            if self.enough.load(Relaxed) {
                return values;
            }
        }
    }

    /// Waits for the other thread.
    fn meet(&self) {
        // What each did before is seen by the other: both read what the other has added.
        let before = self.arrived.fetch_add(1, AcqRel);
        let both = (before / 2 + 1) * 2;
        wait_until(&self.failed, || self.arrived.load(Acquire) >= both);
    }
}

/// Tells the other thread.
struct OnPanic<'f>(&'f AtomicBool);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

/// Spins, and lets others have the CPU of the host when that takes long: the two may share it.
#[inline(always)]
fn wait_until(failed: &AtomicBool, mut is_so: impl FnMut() -> bool) {
    const PATIENCE: u32 = 2000;
    let mut turns = 0;
    while !is_so() {
        turns += 1;
        if turns < PATIENCE {
            spin_loop();
        } else {
            assert!(!failed.load(Relaxed), "the other thread panicked");
            std::thread::yield_now();
        }
    }
}

/// A counter that shares no line of the processor's cache, nor the line that is fetched with it.
#[repr(align(128))]
struct Count(AtomicUsize);

/// Passes objects from one thread to another, in order.
struct Ring<'f> {
    slots: Vec<AtomicPtr<u8>>,
    sent: Count,
    received: Count,
    failed: &'f AtomicBool,
}

impl<'f> Ring<'f> {
    /// Objects that are under way at most.
    const SLOTS: usize = 1024;
    /// Objects of a repetition.
    const OBJECTS: usize = 50_000;

    fn new(failed: &'f AtomicBool) -> Self {
        Ring {
            slots: (0..Self::SLOTS).map(|_| AtomicPtr::new(null_mut())).collect(),
            sent: Count(AtomicUsize::new(0)),
            received: Count(AtomicUsize::new(0)),
            failed,
        }
    }

    /// Nanoseconds an object.
    fn allocate_and_send<H: Heap>(&self, heap: &H, size: usize) -> f64 {
        let size = black_box(size);
        let all = nanoseconds(|| {
            let first = self.sent.0.load(Relaxed);
            let mut received = self.received.0.load(Acquire);
            for sent in first..first + Self::OBJECTS {
                let object = get(heap, size);
                if sent - received >= Self::SLOTS {
                    wait_until(self.failed, || {
                        // The slot has been read: pairs with the store of the receiver.
                        received = self.received.0.load(Acquire);
                        sent - received < Self::SLOTS
                    });
                }
                self.slots[sent % Self::SLOTS].store(object.as_ptr(), Relaxed);
                // With it go the slot and the object's contents.
                self.sent.0.store(sent + 1, Release);
            }
        });
        all / Self::OBJECTS as f64
    }

    /// Nanoseconds an object, whose first word is read before it is freed.
    fn receive_and_free<H: Heap>(&self, heap: &H, size: usize) -> f64 {
        let size = black_box(size);
        let all = nanoseconds(|| {
            let first = self.received.0.load(Relaxed);
            let mut sent = self.sent.0.load(Acquire);
            for received in first..first + Self::OBJECTS {
                if sent == received {
                    wait_until(self.failed, || {
                        // Pairs with the store of the sender.
                        sent = self.sent.0.load(Acquire);
                        sent != received
                    });
                }
                let object = self.slots[received % Self::SLOTS].load(Relaxed);
                self.received.0.store(received + 1, Release);
                let object = NonNull::new(object).expect("only objects are sent");
                // SAFETY: the sender wrote this word, and has passed the object on.
                let word = unsafe { object.cast::<u64>().read_volatile() };
                assert_eq!(word, size as u64, "an object changed on its way");
                // SAFETY: allocated by the sender with this size.
                unsafe { heap.free(object, size) };
            }
        });
        all / Self::OBJECTS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heaps::{self, Kmalloc, talc};
    use crate::subjects;
    use kmem_host::Machine;

    /// Where there is one, both threads share it: slow, and as sound.
    fn host_cpus() -> HostCpus {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let own = cpus.next().unwrap_or(0);
        HostCpus { own, other: cpus.next().or(Some(own)) }
    }

    #[test]
    fn two_cpus_of_a_machine_pass_objects_on_and_lose_none() {
        let machine = Machine::<12>::boot(&subjects::description(64 << 20)).unwrap();
        let heap = Kmalloc(machine.mm());
        let on_cpu = |cpu, work: &mut dyn FnMut()| machine.run_on(cpu, work);
        for work in [Work::Remote { size: 64 }, Work::MixedByTwo] {
            let values = measure(&heap, &on_cpu, work, 1, host_cpus(), &Plan::TEST);
            assert!(!values.is_empty() && values.iter().all(|value| *value > 0.0), "{work:?}");
        }
        machine.run_on(CpuId::BOOT, || heaps::settle(machine.mm()));
        let shutdown = machine.shutdown();
        assert!(shutdown.is_clean() && shutdown.misuse_count == 0, "{shutdown}");
    }

    #[test]
    fn a_peer_is_used_from_two_threads() {
        let heap = talc().unwrap();
        let work = Work::Remote { size: 64 };
        assert!(!measure(&heap, ANYWHERE, work, 1, host_cpus(), &Plan::TEST).is_empty());
    }

    #[test]
    fn a_line_goes_to_and_fro() {
        let values = line(host_cpus(), &Plan::TEST);
        assert!(!values.is_empty() && values.iter().all(|value| *value > 0.0));
    }

    #[test]
    fn with_one_cpu_there_is_no_figure() {
        let one = HostCpus { own: 0, other: None };
        let heap = talc().unwrap();
        assert!(measure(&heap, ANYWHERE, Work::MixedByTwo, 1, one, &Plan::TEST).is_empty());
    }
}

//! Virtual CPUs, and the threads that hold them.
//!
//! A CPU is held by one thread at a time; which one is next is for its [`Queue`] to say. Holding is
//! recorded in two places: in the thread's own words ([`local`]), for the thread itself, and in
//! [`VirtualCpu::holder`], for those that send interrupts.
//!
//! # No interrupt is lost
//!
//! A sender posts an interrupt and *then* looks who holds the CPU. A thread that takes the CPU
//! writes its name there and *then* looks what is posted; a thread that leaves it wipes its name off
//! and *then* looks. All four accesses are sequentially consistent, so of a sender and a thread that
//! comes or goes at the same moment at least one sees the other:
//!
//! ```text
//!   the sender sees ...        and therefore
//!   the thread that holds it   signals it. If that thread has left meanwhile, the signal does
//!                              nothing there, and the thread has seen the interrupt in leaving
//!   nobody                     wakes the controller
//!
//!   the thread sees ...        and therefore
//!   an interrupt, coming       handles it before anything else
//!   an interrupt, going        wakes the controller
//! ```
//!
//! The controller is a thread of the machine. It takes every idle CPU on which something waits for
//! as long as its interrupts run. If it finds the CPU held, then by a thread that came after the
//! interrupt was posted, and which has seen it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, Weak};

use kmem::platform::NotCalled;
use kmem::{CpuId, VirtAddr};
use rustix::thread::futex;

use crate::interrupt::OneShot;
use crate::journal::Line;
use crate::lines::{Job, Lines, Posted};
use crate::queue::Queue;
use crate::{local, signal};

/// Where the number of the machine begins in a tag. CPU numbers are below.
const TAG_SHIFT: u32 = 16;
const _: () = assert!(kmem::MAX_CPUS <= 1 << TAG_SHIFT);

/// What is asked of a machine's manager, whatever its page size is and whatever reclaims its memory.
pub(crate) trait Manager {
    /// The name of the cache with this number.
    fn cache_name(&self, number: u16) -> Option<Line>;

    /// See [`kmem::Mm::report_touch`].
    fn report_touch(&self, address: VirtAddr) -> Option<Line>;

    /// See [`kmem::Mm::is_inside`].
    fn is_inside(&self) -> bool;
}

/// One CPU.
pub(crate) struct VirtualCpu {
    id: CpuId,
    /// The machine's tag plus the number.
    tagged: u64,
    queue: Queue,
    /// The number of the thread that holds it, 0 for none.
    holder: AtomicI32,
    /// 1 while the CPU is online. A futex: tasks that may run nowhere else wait for it.
    online: AtomicU32,
    /// How many senders are between looking whether it is online and having posted.
    senders: AtomicUsize,
    pub(crate) interrupts: Lines,
    pub(crate) nmis: Lines,
}

/// The CPUs of one machine.
pub(crate) struct Cpus {
    tag: u64,
    all: Box<[VirtualCpu]>,
    /// Counts what the controller is woken for. A futex.
    work: AtomicU32,
    /// Whether the controller is to end.
    stopping: AtomicBool,
    /// How many tasks there are that were spawned and have not ended.
    pub(crate) tasks: AtomicUsize,
    /// The manager of the machine, once it has one.
    manager: OnceLock<Weak<dyn Manager + Send + Sync>>,
    /// One-shot interrupts that have run and are to be freed.
    pub(crate) spent: AtomicPtr<OneShot>,
}

/// Which CPU a task may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// This one alone.
    Bound(CpuId),
    /// Any; this one where another is no better.
    Prefer(CpuId),
}

/// Whether something is an interrupt or an NMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Waits while interrupts are masked.
    Interrupt,
    /// Waits for nothing.
    Nmi,
}

impl VirtualCpu {
    /// The machine's tag plus the number.
    pub(crate) fn tagged(&self) -> u64 {
        self.tagged
    }

    pub(crate) fn id(&self) -> CpuId {
        self.id
    }

    pub(crate) fn is_online(&self) -> bool {
        self.online.load(SeqCst) != 0
    }

    /// Whether another thread waits for this CPU.
    pub(crate) fn is_wanted(&self) -> bool {
        self.queue.is_contended()
    }

    fn lines(&self, flavour: Flavour) -> &Lines {
        match flavour {
            Flavour::Interrupt => &self.interrupts,
            Flavour::Nmi => &self.nmis,
        }
    }

    fn has_pending(&self) -> bool {
        self.interrupts.is_pending() || self.nmis.is_pending()
    }
}

impl Cpus {
    /// `count` CPUs, of which only the first is online.
    pub(crate) fn new(count: u32) -> Cpus {
        static MACHINES: AtomicU64 = AtomicU64::new(1);
        let tag = MACHINES.fetch_add(1, Relaxed) << TAG_SHIFT;
        let cpu = |id: CpuId| VirtualCpu {
            id,
            tagged: tag + u64::from(id.get()),
            queue: Queue::new(),
            holder: AtomicI32::new(0),
            online: AtomicU32::new(u32::from(id == CpuId::BOOT)),
            senders: AtomicUsize::new(0),
            interrupts: Lines::new(),
            nmis: Lines::new(),
        };
        Cpus {
            tag,
            all: (0..count).filter_map(CpuId::new).map(cpu).collect(),
            work: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            tasks: AtomicUsize::new(0),
            manager: OnceLock::new(),
            spent: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Says which manager the machine has. There is one, and it is told of once.
    pub(crate) fn set_manager(&self, manager: Weak<dyn Manager + Send + Sync>) {
        let _ = self.manager.set(manager);
    }

    /// The manager. Whoever asks is called by it, or holds a CPU: this handle is not the last to go.
    pub(crate) fn manager(&self) -> Option<Arc<dyn Manager + Send + Sync>> {
        self.manager.get().and_then(Weak::upgrade)
    }

    /// What the thread-local word of a thread that holds CPU 0 of this machine is.
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    pub(crate) fn all(&self) -> &[VirtualCpu] {
        &self.all
    }

    pub(crate) fn get(&self, id: CpuId) -> Option<&VirtualCpu> {
        self.all.get(id.index())
    }

    /// The CPU of this machine that the running thread holds.
    pub(crate) fn held(&self) -> Option<&VirtualCpu> {
        let number = local::held().wrapping_sub(self.tag);
        self.all.get(usize::try_from(number).ok()?)
    }

    /// Waits for a CPU and takes it. `wish` names a CPU that there is.
    ///
    /// The thread holds none, and is in no atomic context.
    pub(crate) fn take(&self, wish: Wish) {
        loop {
            let cpu = self.choose(wish);
            cpu.queue.acquire();
            if cpu.is_online() {
                self.arrive(cpu);
                return;
            }
            cpu.queue.release();
            if matches!(wish, Wish::Bound(_)) {
                let _ = futex::wait(&cpu.online, futex::Flags::PRIVATE, 0, None);
            }
        }
    }

    fn choose(&self, wish: Wish) -> &VirtualCpu {
        let (Wish::Bound(id) | Wish::Prefer(id)) = wish;
        let first = &self.all[id.index()];
        if matches!(wish, Wish::Bound(_)) {
            return first;
        }
        let online = || self.all.iter().filter(|cpu| cpu.is_online());
        match online().min_by_key(|cpu| cpu.queue.length()) {
            Some(best) if !first.is_online() || best.queue.length() < first.queue.length() => best,
            // The last CPU does not go offline, but a look at all of them is not one moment.
            _ => first,
        }
    }

    /// Makes the running thread the holder of a CPU whose queue it has come through.
    fn arrive(&self, cpu: &VirtualCpu) {
        let thread = local::thread(signal::prepare_thread);
        let saved = local::mask();
        local::set_cpu(Some((self, cpu)));
        cpu.holder.store(thread, SeqCst);
        if cpu.has_pending() {
            local::defer();
            local::handle_nmis();
        }
        local::restore(saved);
    }

    /// Gives away the CPU that the running thread holds.
    pub(crate) fn leave(&self) {
        let Some(cpu) = self.held() else { return };
        // Only the mark is of interest: there is nothing to restore without a CPU.
        let _ = local::mask();
        cpu.holder.store(0, SeqCst);
        local::set_cpu(None);
        cpu.queue.release();
        local::unmask_without_cpu();
        if cpu.has_pending() {
            self.wake_controller();
        }
    }

    /// Posts a job for a CPU and sees to it that it runs there.
    ///
    /// # Safety
    ///
    /// As for [`Lines::post`].
    pub(crate) unsafe fn send(
        &self,
        id: CpuId,
        flavour: Flavour,
        job: Job,
    ) -> Result<Posted, NotCalled> {
        let cpu = self.get(id).ok_or(NotCalled::NoSuchCpu)?;
        // Pairs with `take_offline`: either the CPU is seen to be offline here, or this sender is
        // seen there and waited for.
        cpu.senders.fetch_add(1, SeqCst);
        let result = if cpu.is_online() {
            // SAFETY: the caller's promise.
            let posted = unsafe { cpu.lines(flavour).post(job) };
            if posted == Posted::First {
                match cpu.holder.load(SeqCst) {
                    0 => self.wake_controller(),
                    thread => signal::send(thread, flavour),
                }
            }
            Ok(posted)
        } else {
            Err(NotCalled::Offline)
        };
        cpu.senders.fetch_sub(1, SeqCst);
        result
    }

    /// Takes a CPU out of service: waits until no task holds it and no interrupt waits for it.
    /// Tasks that are in the queue and may run elsewhere go there. `false` if it was offline.
    ///
    /// The running thread holds no CPU.
    pub(crate) fn take_offline(&self, cpu: &VirtualCpu) -> bool {
        if cpu.online.swap(0, SeqCst) == 0 {
            return false;
        }
        while cpu.senders.load(SeqCst) != 0 {
            local::relax();
        }
        cpu.queue.acquire();
        self.arrive(cpu);
        self.leave();
        true
    }

    /// Puts a CPU into service.
    pub(crate) fn put_online(&self, cpu: &VirtualCpu) {
        cpu.online.store(1, SeqCst);
        let _ = futex::wake(&cpu.online, futex::Flags::PRIVATE, i32::MAX as u32);
    }

    /// Has the controller look at all CPUs. Any context.
    pub(crate) fn wake_controller(&self) {
        self.work.fetch_add(1, Release);
        let _ = futex::wake(&self.work, futex::Flags::PRIVATE, 1);
    }

    /// The controller: runs the interrupts of idle CPUs, and frees what has run, until
    /// [`Cpus::stop_controller`].
    pub(crate) fn control(&self) {
        loop {
            let work = self.work.load(Acquire);
            let stopping = self.stopping.load(Acquire);
            for cpu in &self.all {
                if cpu.has_pending() && cpu.queue.try_acquire() {
                    self.arrive(cpu);
                    self.leave();
                }
            }
            OneShot::free_spent(&self.spent);
            if stopping {
                return;
            }
            let _ = futex::wait(&self.work, futex::Flags::PRIVATE, work, None);
        }
    }

    /// Has the controller look a last time and end.
    pub(crate) fn stop_controller(&self) {
        self.stopping.store(true, Release);
        self.wake_controller();
    }
}

impl Drop for Cpus {
    fn drop(&mut self) {
        OneShot::free_spent(&self.spent);
    }
}

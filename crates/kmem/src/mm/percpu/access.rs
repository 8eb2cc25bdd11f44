//! Reaching copies: this CPU's, pinned, and those of others.

use core::marker::PhantomData;
use core::ops::Deref;
use core::panic::Location;
use core::sync::atomic::{
    AtomicI32, AtomicI64, AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

use super::super::Mm;
use crate::CpuId;
use crate::percpu::{CpuCell, CpuCounter, CpuRefMut, PerCpuVar};
use crate::platform::{Cpus, Misuse, MisuseKind, Passed, Pinned, Platform, There, Unpreempted};
use crate::reclaim::Reclaim;

/// The code stays on its CPU while this lives. It does not leave it by another way either: it is neither
/// `Send` nor `Sync`.
///
/// ```compile_fail,E0277
/// # use kmem::{CpuGuard, platform::desk::Desk};
/// fn sent(_: impl Send) {}
/// fn try_it(guard: CpuGuard<'_, Desk<'static>>) {
///     sent(guard);
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use kmem::{CpuGuard, platform::desk::Desk};
/// fn shared(_: impl Sync) {}
/// fn try_it(guard: CpuGuard<'_, Desk<'static>>) {
///     shared(guard);
/// }
/// ```
#[must_use = "the code is pinned while this lives"]
pub struct CpuGuard<'m, P: Cpus> {
    pinned: Unpreempted<'m, P>,
    platform: &'m P,
    owner: usize,
    stays: PhantomData<*mut ()>,
}

impl<P: Cpus> CpuGuard<'_, P> {
    /// The CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.pinned.cpu()
    }

    /// The CPU's number as an index: for an array with a place for each CPU (A279).
    #[inline]
    pub fn index(&self) -> usize {
        self.cpu().index()
    }

    /// The CPU's copy of a variable, as [`Mm::get_cpu_var`] answers it; for the time that this guard is
    /// there.
    #[inline]
    pub fn var<'g, V: PerCpuVar>(&'g self, variable: &'g V) -> CpuVar<'g, V::Value, P> {
        CpuVar::new(Unpreempted::new(self.platform), variable, self.owner)
    }
}

/// A variable's copy of the CPU that this code is pinned to, while this lives (A284). It is neither
/// `Send` nor `Sync`.
///
/// It is the value's `&T`. Interrupt handlers of this CPU may have one too; [`percpu`](crate::percpu)
/// says what may be changed how.
#[must_use = "the code is pinned while this lives"]
pub struct CpuVar<'m, T, P: Cpus> {
    pinned: Unpreempted<'m, P>,
    value: &'m T,
    own: bool,
    stays: PhantomData<*mut ()>,
}

impl<'m, T, P: Cpus> CpuVar<'m, T, P> {
    #[inline]
    fn new<V: PerCpuVar<Value = T>>(
        pinned: Unpreempted<'m, P>,
        variable: &'m V,
        owner: usize,
    ) -> Self {
        let copy = variable.copies().of(owner, pinned.cpu());
        // SAFETY: it is a value as long as the variable is borrowed.
        let value = unsafe { copy.value.as_ref() };
        CpuVar { pinned, value, own: copy.own, stays: PhantomData }
    }

    /// The CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.pinned.cpu()
    }
}

impl<T, P: Cpus> Deref for CpuVar<'_, T, P> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T, P: Cpus> CpuVar<'_, CpuCell<T>, P> {
    /// The value, to change in place. `None` while it is lent already: to code that this code
    /// interrupted, or to a caller further out; and while the variable is not set up.
    ///
    /// Any context. Cost: a load and two stores.
    #[inline]
    pub fn borrow_mut(&self) -> Option<CpuRefMut<'_, T>> {
        // SAFETY: the cell is the copy of this CPU and of nobody else (`own`), and this code is pinned
        // as long as `self` is there. Others that borrow it came by a guard of this CPU, too.
        if self.own { unsafe { self.value.borrow() } } else { None }
    }
}

impl<P: Cpus> CpuVar<'_, CpuCounter, P> {
    /// Adds to this CPU's part.
    ///
    /// Any context: right against interrupt and NMI handlers that add to it too. Cost: two loads and
    /// three stores.
    #[inline]
    pub fn add(&self, amount: i64) {
        if self.own {
            // SAFETY: it is this CPU's, which this code is pinned to.
            unsafe { self.value.add(amount) };
        } else {
            self.value.add_aside(amount);
        }
    }
}

/// An atomic integer that the `this_cpu` calls work on.
///
/// Implemented for atomics of 32 and 64 bits and of the address size.
pub trait ThisCpu: Sync {
    /// The integer.
    type Integer: Copy;

    /// What is there.
    fn read(&self) -> Self::Integer;
    /// Writes.
    fn write(&self, value: Self::Integer);
    /// Adds and answers what was there before; overflow wraps.
    fn add(&self, value: Self::Integer) -> Self::Integer;
    /// Adds one.
    fn inc(&self);
}

macro_rules! this_cpu {
    ($($atomic:ty: $integer:ty),*) => {
        $(
            impl ThisCpu for $atomic {
                type Integer = $integer;

                #[inline]
                fn read(&self) -> $integer {
                    self.load(Relaxed)
                }
                #[inline]
                fn write(&self, value: $integer) {
                    self.store(value, Relaxed);
                }
                #[inline]
                fn add(&self, value: $integer) -> $integer {
                    self.fetch_add(value, Relaxed)
                }
                #[inline]
                fn inc(&self) {
                    self.fetch_add(1, Relaxed);
                }
            }
        )*
    };
}

this_cpu!(AtomicU32: u32, AtomicI32: i32, AtomicU64: u64, AtomicI64: i64);
this_cpu!(AtomicUsize: usize, AtomicIsize: isize);

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Pins the code to its CPU and says which that is (A279). It stays there until the guard is dropped
    /// or given to [`Mm::put_cpu`]. Calls nest.
    ///
    /// A task that holds the guard must not sleep: calls that may are reported
    /// ([`MisuseKind::SleepInAtomic`]). [`Task::get_cpu`](crate::Task::get_cpu) is a form that the
    /// compiler checks.
    ///
    /// Any context. Cost: that of [`Cpus::pin`].
    ///
    /// ```
    /// # use kmem::{Mm, MAX_CPUS};
    /// # use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// # let mut ram = vec![0; 9 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// static MY_PERCPU: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
    ///
    /// let cpu = mm.get_cpu();
    /// let own = &MY_PERCPU[cpu.index()];
    /// own.store(own.load(Relaxed) + 1, Relaxed);
    /// mm.put_cpu(cpu);
    /// ```
    #[inline]
    pub fn get_cpu(&self) -> CpuGuard<'_, P> {
        self.cpu_guard()
    }

    #[inline]
    pub(super) fn cpu_guard(&self) -> CpuGuard<'_, P> {
        let (pinned, owner) = (Unpreempted::new(&self.platform), self.identity());
        CpuGuard { pinned, platform: &self.platform, owner, stays: PhantomData }
    }

    /// Ends what [`Mm::get_cpu`] began (A279).
    #[inline]
    pub fn put_cpu(&self, guard: CpuGuard<'_, P>) {
        drop(guard);
    }

    /// Pins the code to its CPU and answers that CPU's copy of a variable (A284, A289). It stays there
    /// until the guard is dropped or given to [`Mm::put_cpu_var`]; meanwhile it must not sleep, as with
    /// [`Mm::get_cpu`].
    ///
    /// A static variable that nobody has set up has one value, which the boot CPU may use. On another CPU
    /// that is reported, and so is a variable of another manager; the answer is then the boot CPU's copy,
    /// whose [`CpuCell`] is not lent.
    ///
    /// Any context. Cost: that of [`Cpus::pin`], and a few loads.
    #[inline]
    #[track_caller]
    pub fn get_cpu_var<'m, V: PerCpuVar>(&'m self, variable: &'m V) -> CpuVar<'m, V::Value, P> {
        let owner = self.identity();
        let copy = CpuVar::new(Unpreempted::new(&self.platform), variable, owner);
        if !copy.own {
            self.look_at_stranger(variable, copy.cpu(), Location::caller());
        }
        copy
    }

    /// Ends what [`Mm::get_cpu_var`] began (A284).
    #[inline]
    pub fn put_cpu_var<T>(&self, copy: CpuVar<'_, T, P>) {
        drop(copy);
    }

    /// A CPU's copy of a variable (A285). Nothing keeps that CPU from using it meanwhile, and nothing is
    /// pinned: what must not be changed by two needs a lock, as anything that CPUs share.
    ///
    /// `None` for a CPU that there cannot be, and for a variable that is not set up, but for the boot
    /// CPU's copy, or is another manager's. Any context. Cost: a few loads.
    #[inline]
    pub fn per_cpu<'v, V: PerCpuVar>(&self, variable: &'v V, cpu: CpuId) -> Option<&'v V::Value> {
        let copies = variable.copies();
        let copy = copies.of(self.identity(), cpu);
        let there = copy.own || cpu == CpuId::BOOT && copies.is_unset();
        // SAFETY: it is a value as long as the variable is borrowed.
        if there { Some(unsafe { copy.value.as_ref() }) } else { None }
    }

    /// The copies of all CPUs that there can be, as [`Mm::per_cpu`] answers them.
    pub fn per_cpu_each<'v, V: PerCpuVar>(
        &self,
        variable: &'v V,
    ) -> impl Iterator<Item = (CpuId, &'v V::Value)> {
        let cpus = (0..crate::MAX_CPUS as u32).filter_map(CpuId::new);
        cpus.map_while(move |cpu| Some((cpu, self.per_cpu(variable, cpu)?)))
    }

    /// Adds to this CPU's copy and answers what was there before. Right against interrupt and NMI
    /// handlers, and against CPUs that come by [`Mm::per_cpu`]: one locked instruction, on a line that no
    /// other CPU has. [`CpuCounter`] does without.
    ///
    /// Any context. The caller need not be pinned, and knows no more which CPU it was than it did before.
    #[inline]
    #[track_caller]
    pub fn this_cpu_add<V: PerCpuVar<Value: ThisCpu>>(
        &self,
        variable: &V,
        amount: <V::Value as ThisCpu>::Integer,
    ) -> <V::Value as ThisCpu>::Integer {
        self.get_cpu_var(variable).add(amount)
    }

    /// Adds one to this CPU's copy. Otherwise as [`Mm::this_cpu_add`].
    #[inline]
    #[track_caller]
    pub fn this_cpu_inc<V: PerCpuVar<Value: ThisCpu>>(&self, variable: &V) {
        self.get_cpu_var(variable).inc();
    }

    /// What this CPU's copy says. Any context; unless the caller is pinned it may be of another CPU by
    /// then.
    #[inline]
    #[track_caller]
    pub fn this_cpu_read<V: PerCpuVar<Value: ThisCpu>>(
        &self,
        variable: &V,
    ) -> <V::Value as ThisCpu>::Integer {
        self.get_cpu_var(variable).read()
    }

    /// Writes this CPU's copy. Any context; unless the caller is pinned it may be of another CPU by then.
    #[inline]
    #[track_caller]
    pub fn this_cpu_write<V: PerCpuVar<Value: ThisCpu>>(
        &self,
        variable: &V,
        value: <V::Value as ThisCpu>::Integer,
    ) {
        self.get_cpu_var(variable).write(value);
    }

    /// Adds to this CPU's part of a counter. Any context, NMI handlers included; nothing that handlers add
    /// meanwhile is lost. Cost: that of [`Cpus::pin`], and no locked instruction.
    #[inline]
    #[track_caller]
    pub fn counter_add<V: PerCpuVar<Value = CpuCounter>>(&self, counter: &V, amount: i64) {
        self.get_cpu_var(counter).add(amount);
    }

    /// The sum of all CPUs' parts. Exact where nobody adds meanwhile, and else what it was at some moment
    /// for each part. Any context. Cost: a line of each CPU's.
    pub fn counter_sum<V: PerCpuVar<Value = CpuCounter>>(&self, counter: &V) -> i64 {
        self.per_cpu_each(counter).fold(0, |sum, (_, part)| sum.wrapping_add(part.get()))
    }

    /// The CPU that runs this, without staying there (A282).
    ///
    /// A task may be moved as soon as it has the answer, so code that is neither pinned nor otherwise
    /// atomic is reported ([`MisuseKind::MayMove`]); [`Mm::get_cpu`] is for it. A platform whose
    /// [`Context::in_atomic`](crate::platform::Context::in_atomic) does not know reports too much.
    ///
    /// Any context.
    #[track_caller]
    pub fn smp_processor_id(&self) -> CpuId {
        let may_move = !self.platform.in_atomic();
        let pinned = Pinned::new(&self.platform);
        let cpu = pinned.cpu();
        drop(pinned);
        if may_move {
            let (kind, passed) = (MisuseKind::MayMove, Passed::Cpu(cpu));
            let (there, site) = (There::TaskContext, Location::caller());
            self.report(&Misuse { kind, passed, there, site });
        }
        cpu
    }

    /// Reports the use of a variable that this CPU has no copy of.
    #[cold]
    #[inline(never)]
    fn look_at_stranger<V: PerCpuVar>(
        &self,
        variable: &V,
        cpu: CpuId,
        site: &'static Location<'static>,
    ) {
        let unset = variable.copies().is_unset();
        // At early boot the boot CPU uses what is there.
        if !(unset && cpu == CpuId::BOOT) {
            let (kind, passed) = (MisuseKind::NoCopy, Passed::Cpu(cpu));
            self.report(&Misuse { kind, passed, there: There::Nothing, site });
        }
    }
}

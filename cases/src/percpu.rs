//! G14: per-CPU data.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kmem::platform::{Context, Cpus};
use kmem::{
    AllocError, CpuCell, CpuCounter, CpuId, GFP_ATOMIC, GFP_KERNEL, MAX_CPUS, PerCpu,
    PerCpuCounter, PerCpuStatic, SetupPerCpuError, define_per_cpu,
};

use crate::elsewhere::{in_interrupt, last_cpu, on_cpu, without_preemption};
use crate::failure::{at_least, check, equal, some};
use crate::hold::Block;
use crate::objects::{Memory, wrong};
use crate::pages::anywhere;
use crate::text::Text;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "an array with a place for each CPU, indexed by get_cpu(), needs no lock",
                &["A279"],
                anywhere,
                array,
            ),
            Case::new(
                "smp_processor_id() keeps nobody on the CPU, which is reported where it matters",
                &["A282"],
                anywhere,
                number_alone,
            )
            .reports(1),
            Case::new(
                "a static variable has a copy for each CPU, which begins as it was defined",
                &["A283"],
                anywhere,
                static_variable,
            )
            .objects(),
            Case::new(
                "get_cpu_var() is changed in place and disables pre-emption, put_cpu_var() enables it",
                &["A284"],
                anywhere,
                in_place,
            )
            .objects(),
            Case::new(
                "per_cpu() reaches another CPU's copy, and pins and locks nothing",
                &["A285"],
                anywhere,
                others_copy,
            )
            .objects(),
            Case::new(
                "static variables work in modules: they come, and go with all that they had",
                &["A286"],
                anywhere,
                module,
            )
            .objects()
            .reports(1),
            Case::new(
                "alloc_percpu() gives each CPU an instance, zeroed and aligned as its type",
                &["A287", "A290"],
                anywhere,
                instances,
            )
            .objects(),
            Case::new(
                "free_percpu() frees all copies, and what is no object changes nothing",
                &["A288"],
                anywhere,
                freed,
            )
            .objects()
            .reports(6),
            Case::new(
                "get_cpu_var() works on what was allocated; so do get_cpu_ptr() and this_cpu_ptr()",
                &["A289"],
                anywhere,
                dynamic,
            )
            .objects()
            .reports(2),
            Case::new(
                "no two CPUs' copies are in one line of the processor's cache",
                &["A291"],
                anywhere,
                lines,
            )
            .objects(),
            Case::new(
                "interrupt handlers and tasks count together on all CPUs, and nothing is lost",
                &["A292"],
                anywhere,
                handlers_and_tasks,
            )
            .objects(),
            Case::new(
                "a sleep between get and put is reported",
                &["A292"],
                anywhere,
                sleep_between,
            )
            .objects()
            .reports(2),
        ]
    }
}

/// The line of any processor that runs this, or more.
const LINE: usize = 128;

/// A static variable is one for all machines of a process: a case at a time has them.
struct Turn;

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn wait_for<M: Machine>(machine: &M) -> Turn {
        // Acquire pairs with the Release in `drop`.
        while TAKEN.swap(true, Ordering::Acquire) {
            machine.mm().platform().relax();
        }
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// Static variables that are set up until this is dropped.
struct SetUp<'m, M: Machine, const N: usize> {
    machine: &'m M,
    variables: [&'static dyn PerCpuStatic; N],
}

impl<'m, M: Machine, const N: usize> SetUp<'m, M, N> {
    fn new(machine: &'m M, variables: [&'static dyn PerCpuStatic; N]) -> Result<Self, Failure> {
        let done = machine.mm().setup_per_cpu(&variables);
        check(done.is_ok(), "variables that nobody has set up can be")?;
        Ok(SetUp { machine, variables })
    }
}

impl<M: Machine, const N: usize> Drop for SetUp<'_, M, N> {
    fn drop(&mut self) {
        // SAFETY: the case has ended its use of them.
        unsafe { self.machine.mm().remove_per_cpu(&self.variables) };
    }
}

fn cpus<M: Machine>(machine: &M) -> impl Iterator<Item = CpuId> + Clone {
    (0..machine.facts().cpus).filter_map(CpuId::new)
}

fn array<M: Machine>(machine: &M) -> Result<(), Failure> {
    const ROUNDS: u64 = 1000;
    let mm = machine.mm();
    let my_percpu = [const { AtomicU64::new(0) }; MAX_CPUS];
    let atomic = AtomicU32::new(0);
    machine.concurrently(&|cpu| {
        for _ in 0..ROUNDS {
            let own = mm.get_cpu();
            // One CPU writes it, so no operation in one piece is needed.
            let place = &my_percpu[own.index()];
            place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            let right = own.cpu() == cpu && mm.platform().in_atomic();
            atomic.fetch_add(u32::from(right), Ordering::Relaxed);
            mm.put_cpu(own);
        }
    });
    let all = ROUNDS as u32 * machine.facts().cpus;
    equal(
        atomic.into_inner().into(),
        all.into(),
        "get_cpu() says which CPU, and disables pre-emption",
    )?;
    for cpu in cpus(machine) {
        let counted = my_percpu[cpu.index()].load(Ordering::Relaxed);
        equal(counted, ROUNDS, "each place was counted up by its own CPU alone")?;
    }
    check(!mm.platform().in_atomic(), "put_cpu() enables pre-emption")
}

fn number_alone<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let reports = machine.misuses();
    let number = mm.smp_processor_id();
    equal(machine.misuses() - reports, 1, "a task that may be moved is told")?;
    check(number.get() < machine.facts().cpus, "the number is that of a CPU")?;
    check(!mm.platform().in_atomic(), "and pre-emption is as it was")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    check(text.contains("may be moved"), "the report says what is wrong")?;
    check(text.contains("percpu.rs:"), "and where")?;
    // Where the code stays on its CPU anyway, the call is right.
    let own = mm.get_cpu();
    let same = mm.smp_processor_id() == own.cpu();
    mm.put_cpu(own);
    check(same, "between get_cpu() and put_cpu() it is the same")?;
    without_preemption(machine, || Ok(mm.smp_processor_id()))?;
    for cpu in [CpuId::BOOT, last_cpu(machine)] {
        let found = in_interrupt(machine, cpu, || Ok(mm.smp_processor_id()))?;
        check(found == cpu, "a handler runs on the CPU that it interrupted")?;
    }
    Ok(())
}

mod declared {
    //! Where variables are defined; their path is their declaration.
    use super::{AtomicU64, CpuCell, define_per_cpu};

    define_per_cpu! {
        /// How often, from 7 on.
        pub static VISITS: AtomicU64 = AtomicU64::new(7);
        pub static PLACE: CpuCell<[u32; 5]> = CpuCell::new([1, 2, 3, 4, 5]);
    }
}

fn static_variable<M: Machine>(machine: &M) -> Result<(), Failure> {
    use declared::VISITS;
    let _turn = Turn::wait_for(machine);
    let mm = machine.mm();
    // At early boot there is one CPU, which uses what there is.
    let before = mm.get_cpu_var(&VISITS).load(Ordering::Relaxed);
    let early = mm.this_cpu_add(&VISITS, 10);
    check(early == before, "the boot CPU uses it before it is set up")?;
    let set_up = SetUp::new(machine, [&VISITS, &declared::PLACE])?;
    let again = mm.setup_per_cpu(&[&declared::PLACE]);
    check(matches!(again, Err(SetupPerCpuError::Again(0))), "once")?;
    for cpu in cpus(machine) {
        let copy = some(mm.per_cpu(&VISITS, cpu), "each CPU has a copy")?;
        let first = if cpu == CpuId::BOOT { before + 10 } else { 7 };
        equal(
            copy.load(Ordering::Relaxed),
            first,
            "which begins with the value of its definition",
        )?;
        let place = on_cpu(machine, cpu, || {
            mm.this_cpu_add(&VISITS, u64::from(cpu.get()) + 1);
            let place = mm.get_cpu_var(&declared::PLACE);
            let mut own = some(place.borrow_mut(), "the copy is nobody else's")?;
            own[0] += cpu.get();
            Ok(own[0])
        })?;
        at_least(place.into(), u64::from(1 + cpu.get()), "also where it is changed in place")?;
        let counted = copy.load(Ordering::Relaxed) - first;
        equal(counted, u64::from(cpu.get()) + 1, "and each CPU changes its own")?;
    }
    let missing = CpuId::new(MAX_CPUS as u32 - 1);
    let missing = missing.filter(|cpu| cpu.get() >= machine.facts().cpus);
    let found = missing.and_then(|cpu| mm.per_cpu(&VISITS, cpu));
    // The boot CPU's place goes on as it is: the next machine of this process finds it so.
    some(mm.per_cpu(&declared::VISITS, CpuId::BOOT), "there is a boot CPU")?
        .store(7, Ordering::Relaxed);
    drop(set_up);
    check(found.is_none(), "a CPU that there is not has none")
}

fn in_place<M: Machine>(machine: &M) -> Result<(), Failure> {
    const ROUNDS: u64 = 500;
    struct Own {
        count: u64,
        last: [u16; 3],
    }
    let mm = machine.mm();
    let make = |_| CpuCell::new(Own { count: 0, last: [0; 3] });
    let mut name = PerCpu::new_in(make, GFP_KERNEL, mm)?;
    let refused = AtomicU64::new(0);
    machine.concurrently(&|cpu| {
        for _ in 0..ROUNDS {
            let own = mm.get_cpu_var(&name);
            let atomic = mm.platform().in_atomic() && own.cpu() == cpu;
            match own.borrow_mut() {
                Some(mut value) if atomic => {
                    value.count += 1;
                    value.last = [value.last[1], value.last[2], cpu.get() as u16];
                }
                _ => _ = refused.fetch_add(1, Ordering::Relaxed),
            }
            mm.put_cpu_var(own);
        }
    });
    equal(
        refused.into_inner(),
        0,
        "each CPU has its own copy to itself, with pre-emption disabled",
    )?;
    check(!mm.platform().in_atomic(), "put_cpu_var() enables pre-emption")?;
    // A handler that arrives while the copy is lent does not get it a second time.
    let own = mm.get_cpu_var(&name);
    let lent = some(own.borrow_mut(), "it is not lent")?;
    let second =
        in_interrupt(machine, own.cpu(), || Ok(mm.get_cpu_var(&name).borrow_mut().is_some()))?;
    check(!second, "a copy is lent to one at a time")?;
    check(own.borrow_mut().is_none(), "to the same code, too")?;
    drop(lent);
    let again =
        in_interrupt(machine, own.cpu(), || Ok(mm.get_cpu_var(&name).borrow_mut().is_some()))?;
    check(again, "and to the next one afterwards")?;
    mm.put_cpu_var(own);
    for (cpu, value) in name.iter_mut().take(machine.facts().cpus as usize) {
        let value = value.get_mut();
        equal(value.count, ROUNDS, "no CPU counted in another one's copy")?;
        check(value.last == [cpu.get() as u16; 3], "nor wrote there")?;
    }
    Ok(())
}

fn others_copy<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let name: PerCpu<AtomicU64, _> = PerCpu::new_zeroed_in(GFP_KERNEL, mm)?;
    for cpu in cpus(machine) {
        on_cpu(machine, cpu, || {
            mm.this_cpu_write(&name, 100 + u64::from(cpu.get()));
            Ok(())
        })?;
    }
    for cpu in cpus(machine) {
        let copy = some(mm.per_cpu(&name, cpu), "each CPU has a copy")?;
        check(!mm.platform().in_atomic(), "to look at it pins nothing")?;
        let found = copy.fetch_add(1, Ordering::Relaxed);
        equal(found, 100 + u64::from(cpu.get()), "it is that CPU's")?;
        let there = on_cpu(machine, cpu, || Ok(mm.this_cpu_read(&name)))?;
        equal(there, found + 1, "which finds what was written from elsewhere")?;
    }
    // Nothing keeps two from it: here both look at the same number, and one addition is lost.
    let copy = some(mm.per_cpu(&name, last_cpu(machine)), "there is a last CPU")?;
    let seen = copy.load(Ordering::Relaxed);
    on_cpu(machine, last_cpu(machine), || {
        mm.this_cpu_inc(&name);
        Ok(())
    })?;
    copy.store(seen + 1, Ordering::Relaxed);
    let there = on_cpu(machine, last_cpu(machine), || Ok(mm.this_cpu_read(&name)))?;
    equal(there, seen + 1, "no lock is taken for whoever uses another's copy")
}

fn module<M: Machine>(machine: &M) -> Result<(), Failure> {
    define_per_cpu! {
        static EVENTS: CpuCounter = CpuCounter::new();
        static LARGE: CpuCell<[u64; 100]> = CpuCell::new([3; 100]);
    }
    let _turn = Turn::wait_for(machine);
    let mm = machine.mm();
    let before = mm.percpu_counts();
    let at_first = mm.counter_sum(&EVENTS);
    // The module is loaded and unloaded more than once.
    for _ in 0..3 {
        let loaded = SetUp::new(machine, [&EVENTS, &LARGE])?;
        let now = mm.percpu_counts();
        equal(now.objects, before.objects + 2, "each variable is an object")?;
        let sum = mm.counter_sum(&EVENTS);
        machine.concurrently(&|cpu| {
            mm.counter_add(&EVENTS, i64::from(cpu.get()) + 1);
            if let Some(mut own) = mm.get_cpu_var(&LARGE).borrow_mut() {
                own[99] += 1;
            }
        });
        let added = cpus(machine).map(|cpu| i64::from(cpu.get()) + 1).sum::<i64>();
        equal(
            (mm.counter_sum(&EVENTS) - sum) as u64,
            added as u64,
            "all CPUs use a module's variable",
        )?;
        let last = on_cpu(machine, last_cpu(machine), || {
            let own = mm.get_cpu_var(&LARGE);
            let value = some(own.borrow_mut(), "nobody else is at it")?;
            Ok((value[0], value[99]))
        })?;
        check(last.0 == 3 && last.1 >= 4, "and begin with its value")?;
        drop(loaded);
        equal(mm.percpu_counts().objects, before.objects, "what is unloaded has no copies")?;
    }
    // The boot CPU's copy is the variable itself, and goes with the module's own memory.
    let own = on_cpu(machine, CpuId::BOOT, || {
        let own = mm.get_cpu_var(&EVENTS);
        own.add(at_first - own.get());
        Ok(own.get())
    })?;
    equal(own as u64, at_first as u64, "the boot CPU may use what there is")?;
    wrong(machine, "not set up", "percpu.rs:", || {
        // SAFETY: nobody uses them: they are not set up.
        unsafe { mm.remove_per_cpu(&[&LARGE]) }
    })
}

#[repr(C)]
struct RabidCheetah {
    speed: AtomicU64,
    teeth: [u8; 13],
}

#[repr(align(64))]
struct Wide(#[allow(dead_code, reason = "its place is what counts")] [u8; 192]);

/// An object with copies, which is freed by itself.
struct Object<'m, M: Machine, T> {
    machine: &'m M,
    at: NonNull<T>,
}

impl<M: Machine, T> Object<'_, M, T> {
    /// The address of a CPU's copy.
    fn copy(&self, cpu: CpuId) -> Result<usize, Failure> {
        // SAFETY: it is freed when this is dropped.
        let copy = unsafe { self.machine.mm().per_cpu_ptr(self.at, cpu) };
        Ok(some(copy, "each CPU has a copy")?.as_ptr().expose_provenance())
    }

    /// That each CPU has a copy of so many bytes, aligned, and zeroed unless it was written; writes them.
    fn check_copies(&self, size: usize, align: usize) -> Result<(), Failure> {
        for cpu in cpus(self.machine) {
            let address = self.copy(cpu)?;
            check(address.is_multiple_of(align), "each copy is aligned")?;
            let bytes = core::ptr::with_exposed_provenance_mut::<u8>(address);
            for byte in 0..size {
                // SAFETY: the copy has so many bytes, and is this value's.
                let found = unsafe { bytes.add(byte).replace(cpu.get() as u8 + 1) };
                equal(found.into(), 0, "each copy is zeroed, and no other CPU's")?;
            }
        }
        Ok(())
    }
}

impl<M: Machine, T> Drop for Object<'_, M, T> {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { self.machine.mm().free_percpu(self.at.as_ptr()) };
    }
}

fn instances<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let bytes = || mm.percpu_counts().bytes;
    let before = bytes();
    {
        let at = mm.alloc_percpu::<RabidCheetah>()?;
        let one = Object { machine, at };
        let natural = bytes() - before;
        let (size, align) = (size_of::<RabidCheetah>(), align_of::<RabidCheetah>());
        let at = mm.__alloc_percpu(size, align)?;
        let two = Object { machine, at };
        equal(bytes() - before, 2 * natural, "both calls ask for the same")?;
        one.check_copies(size, align)?;
        two.check_copies(size, align)?;
        let wide = Object { machine, at: mm.alloc_percpu::<Wide>()? };
        wide.check_copies(192, 64)?;
        let page_bytes = machine.facts().page_bytes() as usize;
        for (size, align) in [(1, 1), (24, 8), (100, 4), (8, page_bytes), (page_bytes, page_bytes)]
        {
            let object = Object { machine, at: mm.__alloc_percpu(size, align)? };
            object.check_copies(size, align)?;
        }
        for (size, align) in [(page_bytes + 1, 8), (8, 2 * page_bytes), (8, 3)] {
            let found = mm.__alloc_percpu(size, align);
            check(
                matches!(found, Err(AllocError::PerCpuLayout { .. })),
                "more than a page is refused",
            )?;
        }
        check(matches!(mm.__alloc_percpu(0, 8), Err(AllocError::ZeroSize)), "0 bytes are refused")?;
    }
    equal(bytes(), before, "all of it is given back")
}

fn freed<M: Machine>(machine: &M) -> Result<(), Failure> {
    const DOUBLE: &str = "double free";
    let mm = machine.mm();
    let (counts, pages) = (mm.percpu_counts(), mm.free_page_count());
    let kept = Object { machine, at: mm.alloc_percpu::<[u64; 4]>()? };
    let grown = pages - mm.free_page_count();
    at_least(grown, machine.facts().cpus.into(), "a page for each CPU, where none had room")?;
    let object = mm.alloc_percpu::<[u64; 4]>()?.as_ptr();
    let free = |at: *const u8| {
        // SAFETY: the case's own; or the manager refuses it.
        unsafe { mm.free_percpu(at) }
    };
    free(core::ptr::null());
    let last = Object { machine, at: mm.alloc_percpu::<u64>()? };
    free(object.cast());
    equal(mm.percpu_counts().objects, counts.objects + 2, "one call frees the copies of all CPUs")?;
    wrong(machine, DOUBLE, "percpu.rs:", || free(object.cast()))?;
    let inside = kept.at.as_ptr().cast::<u8>();
    wrong(machine, "inside an object", "percpu.rs:", || free(inside.wrapping_add(8)))?;
    wrong(machine, "inside an object", "percpu.rs:", || free(inside.wrapping_add(3)))?;
    let memory = Memory::new(machine, 100, GFP_KERNEL)?;
    wrong(machine, "no object", "percpu.rs:", || free(memory.pointer()))?;
    drop(memory);
    wrong(machine, "free of", "percpu.rs:", || {
        // SAFETY: the manager refuses it: per-CPU data is not kmalloc's.
        unsafe { mm.kfree(inside) }
    })?;
    equal(mm.percpu_counts().objects, counts.objects + 2, "a wrong free changes nothing")?;
    drop((kept, last));
    equal(mm.percpu_counts().objects, counts.objects, "nothing is left")?;
    mm.shrink_caches();
    equal(mm.percpu_counts().chunks, 0, "and no page, when memory is sought")?;
    wrong(machine, DOUBLE, "percpu.rs:", || free(inside))
}

fn dynamic<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let object = Object { machine, at: mm.alloc_percpu::<AtomicU64>()? };
    let at = object.at.as_ptr().expose_provenance();
    for cpu in cpus(machine) {
        on_cpu(machine, cpu, || {
            let object = some(
                NonNull::new(core::ptr::with_exposed_provenance_mut::<AtomicU64>(at)),
                "an object has an address",
            )?;
            // SAFETY: the case has it.
            let mine = some(unsafe { mm.get_cpu_ptr(object) }, "this CPU has a copy")?;
            // SAFETY: zeros are a value.
            let own = unsafe { &*mine.as_ptr() };
            own.store(50 + u64::from(cpu.get()), Ordering::Relaxed);
            check(mine.cpu() == cpu && mm.platform().in_atomic(), "the code stays there")?;
            // SAFETY: as above.
            let same =
                unsafe { mm.this_cpu_ptr(object) }.map(NonNull::as_ptr) == Some(mine.as_ptr());
            mm.put_cpu_ptr(mine);
            check(!mm.platform().in_atomic(), "until put_cpu_ptr()")?;
            check(same, "this_cpu_ptr() is the same without pinning")
        })?;
    }
    for cpu in cpus(machine) {
        let copy = core::ptr::with_exposed_provenance::<AtomicU64>(object.copy(cpu)?);
        // SAFETY: zeros were a value.
        let found = unsafe { &*copy }.load(Ordering::Relaxed);
        equal(found, 50 + u64::from(cpu.get()), "each CPU wrote its own copy")?;
    }
    // The same with a variable that owns its memory.
    let owned: PerCpu<AtomicU64, _> = PerCpu::new_zeroed_in(GFP_KERNEL, mm)?;
    let mine = mm.get_cpu_var(&owned);
    mine.store(9, Ordering::Relaxed);
    let cpu = mine.cpu();
    mm.put_cpu_var(mine);
    let found = some(mm.per_cpu(&owned, cpu), "it has a copy there")?.load(Ordering::Relaxed);
    equal(found, 9, "get_cpu_var() works on what was allocated")?;
    // What is wrong is told.
    let missing = some(CpuId::new(MAX_CPUS as u32 - 1), "a number")?;
    wrong(machine, "cpu that there is not", "percpu.rs:", || {
        // SAFETY: the case has it.
        let _ = unsafe { mm.per_cpu_ptr(object.at, missing) };
    })?;
    let memory = Memory::new(machine, 100, GFP_KERNEL)?;
    wrong(machine, "no object", "percpu.rs:", || {
        // SAFETY: it is no per-CPU data, which the manager finds out.
        let _ =
            unsafe { mm.get_cpu_ptr(NonNull::new(memory.pointer()).unwrap_or(object.at.cast())) };
    })
}

fn lines<M: Machine>(machine: &M) -> Result<(), Failure> {
    define_per_cpu! {
        static SMALL: AtomicU32 = AtomicU32::new(0);
    }
    let _turn = Turn::wait_for(machine);
    let mm = machine.mm();
    let set_up = SetUp::new(machine, [&SMALL])?;
    let mut objects = [const { None }; 40];
    for (number, place) in objects.iter_mut().enumerate() {
        let at = mm.__alloc_percpu(1 + 7 * number, 1 << (number % 6))?;
        *place = Some((Object { machine, at }, 1 + 7 * number));
    }
    // Which lines a CPU's copies touch: no two CPUs have one in common.
    let lines_of = |cpu: CpuId, call: Look<'_>| -> Result<(), Failure> {
        for (object, size) in objects.iter().flatten() {
            let address = object.copy(cpu)?;
            call(address / LINE, (address + size - 1) / LINE)?;
        }
        let small = some(mm.per_cpu(&SMALL, cpu), "each CPU has a copy")?;
        let address = core::ptr::from_ref(small).addr();
        call(address / LINE, (address + 3) / LINE)
    };
    for one in cpus(machine) {
        for other in cpus(machine).filter(|other| *other > one) {
            lines_of(one, &mut |first, last| {
                lines_of(other, &mut |from, to| {
                    check(last < from || to < first, "two CPUs' copies are not in one line")
                })
            })?;
        }
    }
    // Nor is anything else in the line of the boot CPU's copy of a static variable.
    let at = core::ptr::from_ref(some(mm.per_cpu(&SMALL, CpuId::BOOT), "the first")?).addr();
    check(at.is_multiple_of(LINE), "a static variable begins a line")?;
    drop(set_up);
    Ok(())
}

/// Is told the first and the last line of something.
type Look<'a> = &'a mut dyn FnMut(usize, usize) -> Result<(), Failure>;

fn handlers_and_tasks<M: Machine>(machine: &M) -> Result<(), Failure> {
    const ROUNDS: u32 = 300;
    let mm = machine.mm();
    let counter = PerCpuCounter::new_in(GFP_KERNEL, mm)?;
    let plain: PerCpu<AtomicU64, _> = PerCpu::new_zeroed_in(GFP_KERNEL, mm)?;
    let handled = AtomicU32::new(0);
    let failed = AtomicU32::new(0);
    machine.concurrently(&|cpu| {
        for round in 0..ROUNDS {
            counter.add(2);
            mm.this_cpu_inc(&plain);
            if round % 10 == 0 {
                // Another CPU, in the midst of whatever it does.
                let other = CpuId::new((cpu.get() + 1) % machine.facts().cpus).unwrap_or(cpu);
                let done = machine.interrupt(other, &|| {
                    counter.add(5);
                    mm.this_cpu_inc(&plain);
                    // A handler may have per-CPU data of its own, if there is room at once.
                    match mm.alloc_percpu_gfp::<u64>(GFP_ATOMIC) {
                        // SAFETY: just allocated.
                        Ok(object) => unsafe { mm.free_percpu(object.as_ptr()) },
                        Err(_) => _ = failed.fetch_add(1, Ordering::Relaxed),
                    }
                    handled.fetch_add(1, Ordering::Relaxed);
                });
                failed.fetch_add(u32::from(done.is_err()), Ordering::Relaxed);
            }
        }
    });
    equal(failed.into_inner().into(), 0, "handlers run, and are given per-CPU data")?;
    let (tasks, handled) = (ROUNDS * machine.facts().cpus, handled.into_inner());
    at_least(handled.into(), u64::from(tasks / 10), "every CPU was interrupted")?;
    let wanted = 2 * u64::from(tasks) + 5 * u64::from(handled);
    equal(counter.sum() as u64, wanted, "nothing that a handler or a task added is lost")?;
    let sum: u64 = mm.per_cpu_each(&plain).map(|(_, copy)| copy.load(Ordering::Relaxed)).sum();
    equal(sum, u64::from(tasks + handled), "nor of a variable that is an atomic")
}

fn sleep_between<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let name: PerCpu<AtomicU64, _> = PerCpu::new_zeroed_in(GFP_KERNEL, mm)?;
    check(mm.task().is_ok(), "a task may sleep")?;
    let reports = machine.misuses();
    let own = mm.get_cpu_var(&name);
    check(mm.task().is_err(), "but not between get and put")?;
    let block = Block::new(machine, GFP_KERNEL, 0);
    mm.put_cpu_var(own);
    block?.free();
    equal(machine.misuses() - reports, 1, "a call that may sleep is reported there")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    check(text.contains("may sleep in atomic context"), "the report says what is wrong")?;
    let own = mm.get_cpu();
    let object = mm.alloc_percpu::<u64>();
    mm.put_cpu(own);
    // SAFETY: just allocated.
    unsafe { mm.free_percpu(object?.as_ptr()) };
    equal(machine.misuses() - reports, 2, "to allocate per-CPU data may sleep, too")?;
    let own = mm.get_cpu();
    let object = mm.alloc_percpu_gfp::<u64>(GFP_ATOMIC);
    mm.put_cpu(own);
    // SAFETY: just allocated.
    unsafe { mm.free_percpu(object?.as_ptr()) };
    equal(machine.misuses() - reports, 2, "but not with GFP_ATOMIC")
}

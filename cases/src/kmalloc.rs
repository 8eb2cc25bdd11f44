//! G8: kmalloc and kfree.

use core::ptr::NonNull;
use core::slice;

use kmem::platform::DirectMap;
use kmem::{AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, VirtAddr};

use crate::elsewhere::{in_interrupt, last_cpu};
use crate::failure::{at_least, check, equal, some};
use crate::objects::{Memory, wrong};
use crate::pages::anywhere;
use crate::pressure::press;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "kmalloc gives at least what was asked for, and kfree takes it back",
                &["A145", "A146", "A149", "A153"],
                anywhere,
                at_least_what_was_asked,
            )
            .objects(),
            Case::new("kfree of null is no free", &["A147"], anywhere, null).objects(),
            Case::new(
                "a wrong kfree is found at the call, and changes nothing",
                &["A148"],
                anywhere,
                wrong_frees,
            )
            .objects()
            .reports(20),
            Case::new(
                "kmalloc's memory is contiguous, and lies in the direct map",
                &["A150", "A161"],
                anywhere,
                contiguous,
            )
            .objects(),
            Case::new(
                "kmalloc's memory is as its last user left it, unless zeros are asked for",
                &["A151"],
                anywhere,
                not_cleared,
            )
            .objects(),
            Case::new(
                "kmalloc rounds up, and to less than twice the request",
                &["A152", "A153"],
                anywhere,
                rounding,
            )
            .objects(),
            Case::new(
                "kmalloc has some sizes, powers of two among them, and a cache for each",
                &["A154", "A155", "A158"],
                anywhere,
                sizes,
            )
            .objects(),
            Case::new(
                "kmalloc has an end: the largest block of pages",
                &["A156"],
                anywhere,
                largest,
            )
            .objects(),
            Case::new(
                "an interrupt handler allocates a buffer with GFP_ATOMIC, and frees it later",
                &["A163"],
                anywhere,
                interrupt_handler,
            )
            .objects(),
            Case::new(
                "a structure is allocated by its size, looked at for failure, and freed",
                &["A164"],
                anywhere,
                dog,
            )
            .objects(),
        ]
    }
}

/// The largest request that can be met, in bytes.
fn limit<M: Machine>(machine: &M) -> usize {
    (machine.facts().page_bytes() as usize) << machine.facts().largest_order
}

/// Sizes around the places where something changes.
const SIZES: [usize; 20] = [
    1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 192, 193, 1000, 4000, 4096, 4097, 10_000, 131_072,
    131_073,
];

fn at_least_what_was_asked<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let mut held = [const { None }; 2 * SIZES.len()];
    let sizes = || SIZES.iter().filter(|size| **size <= limit(machine));
    for (place, size) in held.iter_mut().zip(sizes().chain(sizes())) {
        let memory = Memory::new(machine, *size, GFP_KERNEL)?;
        at_least(mm.ksize(memory.pointer()) as u64, *size as u64, "it has the bytes asked for")?;
        let found = mm.ksize(memory.pointer());
        equal(found as u64, mm.kmalloc_size_roundup(*size) as u64, "as many as was foretold")?;
        *place = Some(memory);
    }
    // All of the bytes are the holder's.
    for (number, memory) in held.iter_mut().flatten().enumerate() {
        memory.bytes().fill(number as u8 ^ 0x5a);
    }
    for (number, memory) in held.iter_mut().flatten().enumerate() {
        let same = memory.bytes().iter().all(|byte| *byte == number as u8 ^ 0x5a);
        check(same, "and nobody else's: what was written is there")?;
    }
    check(matches!(mm.kmalloc(0, GFP_KERNEL), Err(AllocError::ZeroSize)), "0 bytes are refused")
}

fn null<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let freed = || mm.caches().map(|cache| cache.freed).sum::<u64>();
    let (before, pages) = (freed(), mm.free_page_count());
    // SAFETY: null is no memory.
    unsafe { mm.kfree(core::ptr::null()) };
    equal(freed(), before, "nothing is freed")?;
    equal(mm.free_page_count(), pages, "no page either")
    // And nothing is reported: the case says so.
}

fn wrong_frees<M: Machine>(machine: &M) -> Result<(), Failure> {
    const INSIDE: &str = "inside an object";
    const NO_OBJECT: &str = "no object";
    const DOUBLE: &str = "double free";
    const FOREIGN: &str = "not this manager's";
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes() as usize;
    let mut small = Memory::new(machine, 40, GFP_KERNEL)?;
    let large_size = limit(machine).min(150_000);
    let mut large = Memory::new(machine, large_size, GFP_KERNEL)?;
    // Pages, where no size class is as large.
    let is_object = mm.caches().any(|cache| cache.size >= large_size);
    let in_large = if is_object { INSIDE } else { NO_OBJECT };
    small.bytes().fill(1);
    large.bytes().fill(2);
    let pages = mm.pages(GFP_KERNEL, 2)?;
    let free_page = mm.pages(GFP_KERNEL, 0)?.address().as_ptr();
    let at = |memory: &Memory<'_, M>, offset| memory.pointer().wrapping_add(offset);
    let below = mm.platform().base().get().wrapping_sub(page_bytes);
    let foreign = core::ptr::with_exposed_provenance_mut::<u8>(below);
    let stack = [0u8; 64];
    for (words, memory) in [
        (INSIDE, at(&small, 1)),
        (INSIDE, at(&small, 8)),
        (in_large, at(&large, 8)),
        (in_large, at(&large, page_bytes)),
        (NO_OBJECT, pages.address().as_ptr()),
        (in_large, at(&large, page_bytes + 8)),
        (DOUBLE, free_page),
        (FOREIGN, foreign),
        // A kernel's stack may lie in memory of the manager, and a process's does not.
        ("free of", stack.as_ptr().cast_mut()),
    ] {
        wrong(machine, words, "kmalloc.rs:", || {
            // SAFETY: the manager refuses it: no memory of kmalloc's begins there.
            unsafe { mm.kfree(memory) }
        })?;
    }
    // Pages of objects are not freed as pages, with whatever order.
    for (memory, order) in [(&small, 0), (&small, 1), (&large, 0), (&large, 2)] {
        let page = VirtAddr::new(memory.address() / page_bytes * page_bytes);
        wrong(machine, "free ", "kmalloc.rs:", || {
            // SAFETY: the manager refuses it: the page is kmalloc's.
            unsafe { mm.free_pages(page, order) }
        })?;
    }
    check(small.bytes().iter().all(|byte| *byte == 1), "small memory is unharmed")?;
    check(large.bytes().iter().all(|byte| *byte == 2), "large memory is unharmed")?;
    drop((pages, large));

    // Freed twice: at once, after it has left the CPU, and by another CPU.
    for size in [40, large_size] {
        let memory = Memory::new(machine, size, GFP_KERNEL)?;
        let address = memory.address();
        drop(memory);
        let again = || {
            // SAFETY: the manager refuses it: nothing was allocated since it was freed.
            unsafe { mm.kfree(core::ptr::with_exposed_provenance(address)) };
        };
        wrong(machine, DOUBLE, "kmalloc.rs:", again)?;
        wrong(machine, DOUBLE, "kmalloc.rs:", || machine.run_on(last_cpu(machine), &again))?;
        mm.drain_all_pages();
        wrong(machine, DOUBLE, "kmalloc.rs:", again)?;
    }
    drop(small);
    let (one, two) = (Memory::new(machine, 40, GFP_KERNEL)?, Memory::new(machine, 40, GFP_KERNEL)?);
    check(one.address() != two.address(), "what was freed twice is handed out once")?;
    let address = one.address();
    drop(one);
    mm.shrink_caches();
    wrong(machine, DOUBLE, "kmalloc.rs:", || {
        // SAFETY: as above.
        unsafe { mm.kfree(core::ptr::with_exposed_provenance(address)) }
    })
}

fn contiguous<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, page_bytes) = (machine.mm(), machine.facts().page_bytes() as usize);
    let base = mm.platform().base().get();
    let sizes = SIZES.into_iter().chain([3 * page_bytes, 20 * page_bytes]);
    for size in sizes.filter(|size| *size <= limit(machine)) {
        let memory = Memory::new(machine, size, GFP_KERNEL)?;
        let got = mm.ksize(memory.pointer());
        for offset in (0..got).step_by(page_bytes).chain([got - 1]) {
            let address = memory.address() + offset;
            let phys = some(mm.platform().virt_to_phys(VirtAddr::new(address)), "a frame")?;
            // One rule for all addresses, so nothing was mapped for this memory, and one frame lies
            // behind the other where one page does.
            equal(
                phys.get(),
                (address - base) as u64,
                "an address is its frame's plus the offset",
            )?;
        }
    }
    Ok(())
}

fn not_cleared<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for size in [24, 200, 3000] {
        let mut memory = Memory::new(machine, size, GFP_KERNEL)?;
        memory.bytes().fill(0xee);
        let address = memory.address();
        drop(memory);
        let mut memory = Memory::new(machine, size, GFP_KERNEL)?;
        equal(memory.address() as u64, address as u64, "what was just freed is given again")?;
        check(memory.bytes().iter().all(|byte| *byte == 0xee), "with the contents it had")?;
        drop(memory);
        let mut memory = Memory::new(machine, size, GFP_KERNEL | Gfp::ZERO)?;
        equal(memory.address() as u64, address as u64, "also where zeros are asked for")?;
        check(memory.bytes()[..size].iter().all(|byte| *byte == 0), "which then are there")?;
        memory.bytes().fill(0xee);
        drop(memory);
        let zeros = [mm.kzalloc(size, GFP_KERNEL)?, mm.kcalloc(size / 8, 8, GFP_KERNEL)?];
        for zeros in zeros {
            // SAFETY: so many bytes were just allocated.
            let bytes = unsafe { slice::from_raw_parts(zeros.as_ptr(), size) };
            let cleared = bytes.iter().all(|byte| *byte == 0);
            // SAFETY: just allocated.
            unsafe { mm.kfree(zeros.as_ptr()) };
            check(cleared, "kzalloc and kcalloc clear")?;
        }
    }
    Ok(())
}

fn rounding<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let smallest = mm.kmalloc_size_roundup(1);
    let rounded = |size| mm.kmalloc_size_roundup(size);
    let powers = (0..usize::BITS).map(|bit| 1usize << bit).take_while(|p| *p <= limit(machine));
    let around = powers.flat_map(|power| [power - 1, power, power + 1]);
    let all = around.chain((1..limit(machine).min(300_000)).step_by(37));
    for size in all.filter(|size| (1..=limit(machine)).contains(size)) {
        at_least(rounded(size) as u64, size as u64, "never less than was asked for")?;
        let most = 2 * size.max(smallest);
        at_least(most as u64, rounded(size) as u64, "at most twice as much, or the smallest")?;
        equal(
            rounded(rounded(size)) as u64,
            rounded(size) as u64,
            "a size that there is, is kept",
        )?;
    }
    Ok(())
}

fn sizes<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let active = |name: &str| {
        mm.caches().find(|cache| cache.name.as_str() == name).map_or(0, |cache| cache.active)
    };
    let (mut last, mut smallest) = (0, 0);
    for cache in mm.caches().filter(|cache| cache.name.as_str().starts_with("kmalloc-")) {
        let size = cache.size;
        at_least(size as u64, last as u64 + 1, "sizes rise")?;
        for asked in [last + 1, size] {
            let found = mm.kmalloc_size_roundup(asked);
            equal(found as u64, size as u64, "a request is rounded up to the next size")?;
            let before = active(cache.name.as_str());
            let _memory = Memory::new(machine, asked, GFP_KERNEL)?;
            equal(active(cache.name.as_str()), before + 1, "and served by that size's cache")?;
        }
        if last == 0 {
            smallest = size;
        }
        last = size;
    }
    check([8, 32, 64].contains(&smallest), "the smallest is 8, or 32 or 64 as in the texts")?;
    let mut power = smallest;
    while power <= last {
        equal(mm.kmalloc_size_roundup(power) as u64, power as u64, "powers of two are sizes")?;
        power *= 2;
    }
    Ok(())
}

fn largest<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, most) = (machine.mm(), limit(machine));
    let memory = Memory::new(machine, most, GFP_KERNEL)?;
    equal(mm.ksize(memory.pointer()) as u64, most as u64, "the largest block is memory, too")?;
    for more in [most + 1, 2 * most, usize::MAX] {
        let found = mm.kmalloc(more, GFP_KERNEL);
        check(matches!(found, Err(AllocError::OrderTooLarge { .. })), "a byte more is refused")?;
        equal(mm.kmalloc_size_roundup(more) as u64, 0, "and has no size")?;
    }
    let overflow = mm.kcalloc(usize::MAX / 4, 8, GFP_KERNEL);
    check(overflow.is_err(), "a product that overflows is refused")
}

fn interrupt_handler<M: Machine>(machine: &M) -> Result<(), Failure> {
    const BYTES: usize = 300;
    let mm = machine.mm();
    for cpu in [CpuId::BOOT, last_cpu(machine)] {
        let buffer = in_interrupt(machine, cpu, || {
            let buffer = mm.kmalloc(BYTES, GFP_ATOMIC)?;
            // SAFETY: so many bytes were just allocated.
            unsafe { buffer.write_bytes(7, BYTES) };
            Ok(buffer.as_ptr().expose_provenance())
        })?;
        // Later, in another handler on the boot CPU.
        in_interrupt(machine, CpuId::BOOT, || {
            let buffer = core::ptr::with_exposed_provenance::<u8>(buffer);
            // SAFETY: the handler before allocated so many bytes, and nobody else uses them.
            let bytes = unsafe { slice::from_raw_parts(buffer, BYTES) };
            let kept = bytes.iter().all(|byte| *byte == 7);
            // SAFETY: as above, and nobody uses it from here on.
            unsafe { mm.kfree(buffer) };
            check(kept, "the buffer keeps what was written")
        })?;
    }
    // The handler has to look: there may be none.
    let pressed = press(machine, Gfp::NONE);
    mm.reclaim().answer_from(0);
    let (got, told) = in_interrupt(machine, CpuId::BOOT, || {
        // Linked through their first words, for there is no other place to keep them.
        let (mut last, mut count) = (0, 0);
        let failed = loop {
            match mm.kmalloc(BYTES, GFP_ATOMIC | Gfp::NOWARN) {
                Ok(next) => {
                    // SAFETY: just allocated, with room for a word.
                    unsafe { next.cast::<usize>().write(last) };
                    last = next.as_ptr().expose_provenance();
                    count += 1;
                }
                Err(error) => break error,
            }
        };
        while last != 0 {
            let next = core::ptr::with_exposed_provenance::<usize>(last);
            // SAFETY: allocated above, and its first word is the one before.
            unsafe {
                last = next.read();
                mm.kfree(next.cast());
            }
        }
        Ok((count, matches!(failed, AllocError::NoMemory { .. })))
    })?;
    check(told, "where there is none, it is told so")?;
    at_least(got, 1, "and it had the reserve before")?;
    equal(mm.reclaim().calls(), 0, "a handler never reclaims")?;
    drop(pressed);
    Ok(())
}

/// The structure of the text's example.
struct Dog {
    age: u32,
    weight: u64,
    name: [u8; 20],
}

fn dog<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let dog = mm.kmalloc(size_of::<Dog>(), GFP_KERNEL);
    let dog: NonNull<Dog> = match dog {
        Ok(dog) => dog.cast(),
        Err(error) => return Err(error.into()),
    };
    check(dog.is_aligned(), "memory is aligned for a structure")?;
    // SAFETY: there are the bytes of a dog, and they are aligned for one.
    let found = unsafe {
        dog.write(Dog { age: 3, weight: 20_000, name: *b"a name of 20 letters" });
        dog.read()
    };
    // SAFETY: just allocated, and not used from here on.
    unsafe { mm.kfree(dog.as_ptr().cast()) };
    check(found.age == 3 && found.weight == 20_000, "a structure is there as it was written")?;
    check(&found.name == b"a name of 20 letters", "to its last byte")?;
    // With all memory taken the answer is an error, and no panic.
    let pressed = press(machine, Gfp::NONE);
    mm.reclaim().answer_from(0);
    let gfp = GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN;
    // More than what CPUs and slabs have left.
    let refused = mm.kmalloc(limit(machine) / 2, gfp);
    drop(pressed);
    check(matches!(refused, Err(AllocError::NoMemory { .. })), "or there is none, which is told")
}

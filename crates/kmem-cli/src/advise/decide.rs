//! The choice: what is needed, on which machine, gives the call, or a refusal.
//!
//! Pure: nothing is asked, printed or allocated here. The order of the questions is that of
//! `docs/choosing.md`, which says the same; tests hold the two together.
//!
//! ```text
//!   a copy for each CPU ────────────► alloc_percpu, DEFINE_PER_CPU
//!   before boot is over ────────────► alloc_bootmem...
//!   a process ──────────────────────► alloc_pages, GFP_HIGHUSER_MOVABLE
//!   mapped when used ───────────────► alloc_pages, __GFP_HIGHMEM, kmap
//!   a device ───────────────────────► as below, with a zone; never vmalloc
//!   software ─ small, short-lived ──► the stack
//!            ├ many equal ones ─────► kmem_cache_alloc
//!            ├ up to half a page ───► kmalloc
//!            ├ up to a page ────────► __get_free_page
//!            ├ frames side by side ─► __get_free_pages, kmalloc; beyond a block: bigphysarea
//!            └ only addresses ──────► kvmalloc, vmalloc
//! ```

use kmem::boot::LARGEST_OBJECT;
use kmem::{GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOFS, GFP_NOIO, Gfp};
use kmem_host::description::format_size;

use super::advice::Advice;
use super::limits::{Limits, Part};
use super::need::{Context, Contiguity, Lifetime, Need, Purpose};
use super::remedy::{Change, Refusal, Refused};

/// The largest local variable: all of a function together should take no more than a couple of
/// hundred bytes (A265).
const LOCAL: u64 = 200;

/// From how many pieces on a cache of their own is advised. The texts say many and name no number;
/// a hundred of them fill a slab or more of any size.
const MANY: u64 = 100;

/// How many objects a slab should hold at least, or it is but a block of pages.
const OBJECTS_A_SLAB: u64 = 8;

/// How to get what is needed on a machine.
pub fn decide(need: &Need, machine: &Limits) -> Result<Advice, Refusal> {
    answer(need, machine).map_err(|refused| refused.with_remedies(need, machine))
}

/// The same; the remedies of a refusal have not been tried.
pub fn answer(need: &Need, machine: &Limits) -> Result<Advice, Refused> {
    sensible(need, machine)?;
    let ask = Ask { need, machine };
    let advice = match (need.context, need.purpose) {
        _ if ask.is_local() => Ok(ask.local()),
        (_, Purpose::PerCpu) => ask.per_cpu(),
        (Context::Boot, _) => ask.boot(),
        (_, Purpose::Software) => ask.software(),
        (_, Purpose::Dma { bits, coherent }) => ask.device(bits, coherent),
        (_, Purpose::User) => ask.user(),
        (_, Purpose::High) => ask.high(),
    }?;
    Ok(ask.remarks(advice))
}

/// Refuses what no machine, or not this one, can have.
fn sensible(need: &Need, machine: &Limits) -> Result<(), Refused> {
    let copies = if need.purpose == Purpose::PerCpu { machine.cpus } else { 1 };
    let all = need.size.checked_mul(need.count).and_then(|all| all.checked_mul(copies));
    if need.size == 0 || need.count == 0 {
        let why = "a piece of 0 bytes, or 0 pieces, is no memory: give at least 1 of each";
        return Err(Refused::because(why)
            .or(Change::Size(need.size.max(1)))
            .or(Change::Count(need.count.max(1))));
    }
    if all.is_none_or(|all| all > machine.free) {
        let (size, ram) = (exactly(need.size), in_kilobytes(machine.ram));
        let asked = match need.count.saturating_mul(copies) {
            1 => size,
            pieces => format!("{pieces} times {size}"),
        };
        let why = if all.is_none_or(|all| all > machine.ram) {
            format!("{asked} is more than the {ram} of RAM of machine {} (A224)", machine.name)
        } else {
            let free = in_kilobytes(machine.free);
            let (name, held) =
                (&machine.name, "what firmware, kernel, tables and bigphysarea have");
            format!(
                "{asked} is more than the {free} that {held} leaves of the {ram} of machine {name}"
            )
        };
        let enough = all.and_then(|all| all.checked_mul(2)?.checked_next_power_of_two());
        let mut refused = Refused::because(why);
        if let Some(bytes) = enough {
            refused = refused.or(Change::Mem(bytes));
        }
        let most = (machine.free / need.size.saturating_mul(copies)).max(1);
        return Err(refused.or(Change::Size(machine.block)).or(Change::Count(most)));
    }
    if let Purpose::Dma { bits, coherent } = need.purpose {
        if !(1..=64).contains(&bits) {
            let why =
                format!("a device has no {bits} address lines: give 1 to 64, such as 24 or 32");
            return Err(Refused::because(why)
                .or(Change::Purpose(Purpose::Dma { bits: 24, coherent }))
                .or(Change::Purpose(Purpose::Dma { bits: 32, coherent })));
        }
        if need.contiguity == Contiguity::Virtual {
            let why =
                "a device does not see the CPU's mappings, so vmalloc is not for DMA (A228, A336)";
            return Err(Refused::because(why).or(Change::Contiguity(Contiguity::Physical)));
        }
    }
    Ok(())
}

/// A size for people as it is: an odd one in bytes.
fn exactly(bytes: u64) -> String {
    match bytes.is_multiple_of(1 << 10) {
        true => format_size(bytes),
        false => format!("{bytes} bytes"),
    }
}

/// A size for people, rounded down to whole kilobytes.
fn in_kilobytes(bytes: u64) -> String {
    if bytes < 1 << 10 { format!("{bytes} bytes") } else { format!("{}K", bytes >> 10) }
}

struct Ask<'a> {
    need: &'a Need,
    machine: &'a Limits,
}

impl Ask<'_> {
    /// The flags of Table 12.7 for where the code runs, without a zone.
    fn base(&self) -> Gfp {
        match self.need.context {
            Context::Task | Context::Boot => GFP_KERNEL,
            Context::Locked | Context::Interrupt | Context::Nmi => GFP_ATOMIC,
            Context::BlockIo => GFP_NOIO,
            Context::Filesystem => GFP_NOFS,
        }
    }

    /// Why these are the flags.
    fn why_flags(&self, advice: Advice) -> Advice {
        let device = matches!(self.need.purpose, Purpose::Dma { .. });
        match self.need.context {
            Context::Boot => advice,
            Context::Task if device => {
                advice.why("A task that may sleep asks for a device's memory with GFP_KERNEL (A133).")
            }
            Context::Task => advice.why(
                "A task that may sleep takes GFP_KERNEL: the call may wait, and do whatever frees \
                 memory (A123, A130).",
            ),
            Context::Locked => advice
                .why(if device {
                    "A task that must not sleep asks for a device's memory with GFP_ATOMIC (A134)."
                } else {
                    "A task that must not sleep takes GFP_ATOMIC (A119, A131)."
                })
                .instead(
                    "GFP_KERNEL",
                    if device {
                        "allocate earlier, where the task may sleep (A134)."
                    } else {
                        "allocate before or after, where the task may sleep (A131)."
                    },
                ),
            Context::Interrupt if device => advice
                .why("A handler cannot sleep, so it asks for a device's memory with GFP_ATOMIC (A134).")
                .instead("GFP_KERNEL", "allocate earlier, in a task that may sleep (A134)."),
            Context::Interrupt => advice.why(
                "Interrupt handlers, softirqs and tasklets cannot sleep: they take GFP_ATOMIC (A132).",
            ),
            Context::Nmi => advice
                .why("An NMI handler cannot sleep, as no handler can: it takes GFP_ATOMIC (A119).")
                .mind(
                    "An NMI may arrive while its own CPU holds a lock of the allocator, which then is \
                     only tried: it fails sooner than elsewhere. Have the memory ready beforehand.",
                ),
            Context::BlockIo => advice.why(
                "Block I/O code takes GFP_NOIO: it may sleep, and starts no I/O that would come back to \
                 it (A121, A141).",
            ),
            Context::Filesystem => advice.why(
                "Filesystem code takes GFP_NOFS: it may sleep and start I/O, and calls no filesystem, \
                 which would come back to it (A122, A141).",
            ),
        }
    }

    /// What holds for most answers.
    fn remarks(&self, mut advice: Advice) -> Advice {
        let is_freed = !advice.free.starts_with("nothing");
        if self.need.count > 1 && is_freed && advice.before.is_none() {
            advice = advice.mind(format!(
                "Call it {} times, and give each back by itself (A162).",
                self.need.count
            ));
        }
        if advice.flags == Some(GFP_ATOMIC) {
            advice = advice.instead(
                "GFP_NOWAIT",
                "where there is another way if it fails: the reserve is left to others (A120).",
            );
        }
        if is_freed {
            advice = advice.mind("It can fail, whatever the flags: handle that (A143).");
        }
        advice
    }

    /// Before boot is over: the page allocator is not there yet.
    fn boot(&self) -> Result<Advice, Refused> {
        let Need { size, purpose, .. } = *self.need;
        let page = self.machine.page;
        let low = match purpose {
            Purpose::Software => None,
            Purpose::Dma { coherent: false, bits } => {
                let (zone, _) = self.zone(bits)?;
                Some(self.lowest()).filter(|_| !zone.is_empty())
            }
            Purpose::Dma { .. } | Purpose::User | Purpose::High | Purpose::PerCpu => {
                let why = "before boot is over there is only plain memory, not coherent, high or a \
                           process's";
                return Err(Refused::because(why).or(Change::Context(Context::Task)));
            }
        };
        let end = low.map_or(u64::MAX, |low| low.end);
        let longest = self.machine.longest_at_boot(end);
        if size > longest {
            let (size, free) = (exactly(size), in_kilobytes(longest));
            let name = &self.machine.name;
            let why = match low {
                Some(low) => format!(
                    "{size} is more than the longest free piece, {free}, below {} of machine {name}, where \
                     alloc_bootmem_low looks",
                    format_size(low.end)
                ),
                None => format!(
                    "{size} is more than the longest free piece of memory of machine {name} at boot, {free}"
                ),
            };
            return Err(Refused::because(why)
                .or(Change::Size(longest))
                .or(Change::Context(Context::Task)));
        }
        let pages = size >= page;
        let call = match (low.is_some(), pages) {
            (false, false) => "alloc_bootmem",
            (false, true) => "alloc_bootmem_pages",
            (true, false) => "alloc_bootmem_low",
            (true, true) => "alloc_bootmem_low_pages",
        };
        let keeps = self.machine.keeps_boot_memory;
        let free = if keeps {
            "nothing: what is allocated at boot stays".to_owned()
        } else {
            format!("memblock_free(memory, {size})")
        };
        let mut advice = Advice::new(format!("{call}({size})"), free)
            .why("The page allocator gets what boot-time allocations leave (A247, A253).");
        if pages {
            advice = advice.why("The forms with _pages give whole pages (A249).");
        }
        if low.is_some() {
            advice = advice.why("The low forms stay below MAX_DMA_ADDRESS (A248, A254).");
        }
        if size > self.machine.block {
            advice = advice.why(format!(
                "Contiguous memory beyond the largest block, {} here, is to be had at boot (A251, A335).",
                format_size(self.machine.block)
            ));
        }
        Ok(advice
            .mind("Only code of the kernel's image runs so early: a module cannot (A250, A260).")
            .mind(if keeps {
                "This machine never gives it back, as kernels of the 2.4 series; today it can be freed (A252)."
            } else {
                "Kernels of the 2.4 series never give it back; today it can be freed (A252)."
            })
            .instead(
                "bigphysarea_alloc_pages",
                "modules, too: bigphysarea= reserves at boot, and hands out later (A256).",
            ))
    }

    /// The zone for a device, or why there is none.
    fn zone(&self, bits: u32) -> Result<(Gfp, Part), Refused> {
        self.machine.zone_for(bits).ok_or_else(|| {
            let why = format!(
                "a device with {bits} address lines reaches no whole zone of machine {}",
                self.machine.name
            );
            Refused::because(why)
                .or(Change::Set(format!("dma_limit={}", format_size(1 << bits.min(63)))))
        })
    }

    /// What lies below MAX_DMA_ADDRESS: the lowest zone.
    fn lowest(&self) -> Part {
        self.machine.dma.or(self.machine.dma32).unwrap_or(self.machine.low)
    }

    /// Whether the stack does.
    fn is_local(&self) -> bool {
        let Need { size, count, purpose, contiguity, lifetime, .. } = *self.need;
        purpose == Purpose::Software
            && lifetime == Lifetime::Short
            && contiguity != Contiguity::Physical
            && size.saturating_mul(count) <= LOCAL
    }

    fn local(&self) -> Advice {
        Advice::new("a local variable", "nothing: it goes with the function")
            .why("A couple of hundred bytes for the time of a call fit the stack (A265).")
            .mind(
                "The stack is small and does not grow; what overflows it is not noticed, or too late \
                 (A261, A266). No recursion without a bound.",
            )
            .instead(
                "kmalloc",
                "what outlives the function, or is large, or of a size that is not known (A268).",
            )
    }

    fn software(&self) -> Result<Advice, Refused> {
        let Need { size, context, contiguity, .. } = *self.need;
        let Limits { page, block, .. } = *self.machine;
        let runs = size > page && contiguity != Contiguity::Physical;
        if !runs || (contiguity == Contiguity::Any && self.is_for_a_cache(Gfp::NONE)) {
            return self.contiguous(Gfp::NONE);
        }
        // From here on a run of addresses longer than a page, of which the frames may lie anywhere.
        if !context.may_sleep() {
            if contiguity == Contiguity::Any && size <= block {
                return Ok(self.contiguous(Gfp::NONE)?.mind(format!(
                    "Pages that need not lie side by side would be found more surely, and what maps \
                     them is not for {} (A061, A231): take single pages, or what a task has allocated.",
                    context.in_words()
                )));
            }
            let why = format!("vmalloc may sleep, and {} must not (A231)", context.in_words());
            // What a task has allocated beforehand is used here.
            return Err(Refused::because(why)
                .or(Change::Context(Context::Task))
                .or(Change::Contiguity(Contiguity::Physical)));
        }
        if size > self.machine.largest_area {
            let why = format!(
                "{} is more than the largest area that vmalloc has on machine {}, {}",
                exactly(size),
                self.machine.name,
                in_kilobytes(self.machine.largest_area)
            );
            let enough = size.saturating_mul(2).checked_next_power_of_two().unwrap_or(size);
            return Err(Refused::because(why)
                .or(Change::Set(format!("mapping_area={}", format_size(enough))))
                .or(Change::Size(self.machine.largest_area)));
        }
        let flags = self.base();
        let either = Advice::new(format!("kvmalloc({size}, {flags})"), "kvfree(memory)");
        let advice = if context != Context::Task {
            self.why_flags(either.flags(flags)).why(
                "vmalloc takes no flags, and asks with GFP_KERNEL; kvmalloc takes them (A230, A333).",
            )
        } else if contiguity == Contiguity::Any && size <= block {
            self.why_flags(either.flags(flags))
                .why(
                    "Above a page contiguous frames get hard to find (A061, A166): kvmalloc takes them \
                     where they are, and else maps single ones (A167, A246).",
                )
                .instead("vmalloc", "never asks for neighbours: --contiguity virtual (A333).")
        } else {
            Advice::new(format!("vmalloc({size})"), "vfree(memory)")
                .why(
                    "A large buffer of software needs addresses in a row, not frames (A246, A333, A335).",
                )
                .why("It takes no flags and may sleep: it asks with GFP_KERNEL (A230, A231).")
                .instead("kvmalloc", "up to a block of pages, where speed matters more (A235).")
        };
        Ok(advice
            .mind("What is mapped takes longer to get, and page by page strains the TLB (A234).")
            .mind("Not for a device: its frames may lie anywhere (A228)."))
    }

    /// Whether pieces are many, equal, and of a size that a slab holds several of.
    fn is_for_a_cache(&self, zone: Gfp) -> bool {
        let Need { size, count, .. } = *self.need;
        let most = (self.machine.block / OBJECTS_A_SLAB).min(LARGEST_OBJECT as u64);
        // A whole page is dense by itself. No cache takes its slabs from DMA32.
        count >= MANY
            && size <= most
            && !size.is_multiple_of(self.machine.page)
            && zone != Gfp::DMA32
    }

    /// Memory with its frames side by side, from a zone.
    fn contiguous(&self, zone: Gfp) -> Result<Advice, Refused> {
        let Need { size, contiguity, lifetime, .. } = *self.need;
        let Limits { page, block, .. } = *self.machine;
        let flags = self.base() | zone;
        if self.is_for_a_cache(zone) {
            return Ok(self.cache(flags, zone));
        }
        if size > block {
            return match lifetime {
                Lifetime::Forever => self.reserved(flags),
                Lifetime::Short | Lifetime::Long => Err(self.too_large()),
            };
        }
        let pages = size.div_ceil(page).next_power_of_two();
        // For DMA32 there are only pages: kmalloc has no such memory (A115).
        let only_pages = zone == Gfp::DMA32;
        let whole = size == pages * page || only_pages;
        let mut advice = if size <= page / 2 && !only_pages {
            let advice = Advice::new(format!("kmalloc({size}, {flags})"), "kfree(memory)").why(
                "For a size in bytes kmalloc is the usual call; it is contiguous (A076, A331).",
            );
            if self.need.purpose == Purpose::Software && contiguity != Contiguity::Physical {
                advice.instead(
                    "kmem_cache_alloc",
                    "many of one kind, made and destroyed all the time: --count (A334).",
                )
            } else {
                advice
            }
        } else if pages == 1 {
            let advice = Advice::new(format!("__get_free_page({flags})"), "free_page(address)");
            if only_pages && size <= page / 2 {
                advice.mind(
                    "kmalloc has no memory of DMA32 (A115): put several small buffers into one page.",
                )
            } else {
                advice.why("More than half a page: a page wastes nothing of it, and has less overhead \
                            than all other calls (A069, A070).")
            }
            .instead("get_zeroed_page", "a page of zeros (A048).")
        } else if whole {
            let order = pages.ilog2();
            let (call, free) = (
                format!("__get_free_pages({flags}, {order})"),
                format!("free_pages(address, {order})"),
            );
            Advice::new(call, free).why(format!(
                "Contiguous pages in a power of two: {pages} of them are order {order} (A055, A331)."
            ))
        } else {
            Advice::new(format!("kmalloc({size}, {flags})"), "kfree(memory)")
                .why(format!(
                    "Contiguous, and no power of two in pages: kmalloc takes sizes in bytes (A076, A331); \
                     __get_free_pages would take {pages} pages (A059)."
                ))
        };
        if zone == Gfp::DMA && advice.call.starts_with("__get_free_page") {
            let order = pages.ilog2();
            advice = advice.instead(
                format!("__get_dma_pages({}, {order})", self.base()),
                "the same, under the name that the oldest drivers know (A050).",
            );
        }
        if size > page {
            advice = advice.mind(
                "Contiguous pages get rare once a machine has run for a while: ask early, and have \
                 another way (A060, A061).",
            );
        }
        if contiguity == Contiguity::Virtual {
            advice =
                advice.why("For one page vmalloc makes no sense: a page is contiguous (A233).");
        }
        Ok(self.why_flags(advice.flags(flags)))
    }

    fn cache(&self, flags: Gfp, zone: Gfp) -> Advice {
        let Need { size, context, .. } = *self.need;
        let kind = match zone {
            Gfp::DMA => "SLAB_HWCACHE_ALIGN|SLAB_CACHE_DMA",
            _ => "SLAB_HWCACHE_ALIGN",
        };
        let mut advice = Advice::new(
            format!("kmem_cache_alloc(cache, {flags})"),
            "kmem_cache_free(cache, object)",
        )
        .flags(flags)
        .before(format!("cache = kmem_cache_create(\"name\", {size}, 0, {kind}, NULL, NULL)"))
        .why(
            "Many objects of one size, which come and go: a cache of their own keeps them densely, and \
             each CPU has some at hand (A218, A334).",
        )
        .instead("kmalloc", "few of them, or of different sizes (A331).")
        .mind("Keep no list of free objects yourself: the cache is one (A215).")
        .mind("kmem_cache_destroy ends the cache, when all objects are back (A208).");
        if !context.may_sleep() {
            advice = advice.mind("Make the cache beforehand, in a task: that may sleep (A188).");
        }
        if zone == Gfp::DMA {
            advice =
                advice.why("SLAB_CACHE_DMA has its slabs where the device reaches them (A194).");
        }
        self.why_flags(advice)
    }

    /// Contiguous memory beyond the largest block, that a machine keeps from boot on.
    fn reserved(&self, flags: Gfp) -> Result<Advice, Refused> {
        let Need { size, count, purpose, .. } = *self.need;
        let pages = size.div_ceil(self.machine.page);
        let all = pages.saturating_mul(count);
        let reach = match purpose {
            Purpose::Dma { bits, .. } if bits < 64 => 1 << bits,
            _ => u64::MAX,
        };
        if self.machine.end_of_bigphysarea(all).is_none_or(|end| end > reach) {
            let why = format!(
                "no {} pages in one piece are to be set aside on machine {}{}",
                all,
                self.machine.name,
                if reach < u64::MAX { ", where the device reaches them" } else { "" }
            );
            return Err(Refused::because(why)
                .or(Change::Mem(self.machine.ram.saturating_mul(2).next_power_of_two()))
                .or(Change::Size(self.machine.block)));
        }
        // The area is contiguous and low, so a zone modifier says nothing.
        let base = flags.difference(Gfp::DMA | Gfp::DMA32);
        let advice = Advice::new(
            format!("bigphysarea_alloc_pages({pages}, 0, {base})"),
            "bigphysarea_free_pages(memory)",
        )
        .flags(base)
        .why(format!(
            "Beyond the largest block, {} here, contiguous memory is to be had at boot alone (A251, A335).",
            format_size(self.machine.block)
        ))
        .why("bigphysarea reserves it then, and hands it out at run time, also to modules (A256).")
        .instead("alloc_bootmem_pages", "code of the kernel's image: --context boot (A247, A250).")
        .instead("mem=", "keeps the top of RAM from the manager, for a driver's own use (A257).")
        .mind("What is reserved serves nobody else: least likely to fail, least flexible (A259).");
        let has = self.machine.bigphysarea;
        let advice = if has < all {
            advice.before(format!("bigphysarea={all} on the kernel's command line"))
        } else {
            advice.mind(format!("This machine sets bigphysarea={has} pages aside already (A256)."))
        };
        Ok(self.why_flags(advice))
    }

    fn too_large(&self) -> Refused {
        let why = format!(
            "{} contiguous is more than the largest block of machine {}, {} (A058); alloc_contig_pages \
             finds longer runs by luck",
            exactly(self.need.size),
            self.machine.name,
            format_size(self.machine.block)
        );
        Refused::because(why)
            .or(Change::Lifetime(Lifetime::Forever))
            .or(Change::Contiguity(Contiguity::Virtual))
            .or(Change::Context(Context::Boot))
            .or(Change::Size(self.machine.block))
    }

    fn device(&self, bits: u32, coherent: bool) -> Result<Advice, Refused> {
        let size = self.need.size;
        let (zone, part) = self.zone(bits)?;
        if size > part.bytes {
            let why = format!(
                "{} is more than the {} of RAM that a device with {bits} address lines reaches on \
                 machine {}",
                exactly(size),
                in_kilobytes(part.bytes),
                self.machine.name
            );
            return Err(Refused::because(why).or(Change::Size(self.machine.block)));
        }
        if coherent && size <= self.machine.block {
            let flags = self.base();
            let advice = Advice::new(
                format!("dma_alloc_coherent(device, {size}, {flags})"),
                format!("dma_free_coherent(device, {size}, memory)"),
            )
            .flags(flags)
            .why(
                "CPU and device use it at the same time: the call answers an address for each, and \
                 chooses the zone by the device's mask (A034, A336).",
            )
            .instead(
                "kmalloc",
                "one uses it after the other, transfer by transfer: without --coherent (A336).",
            );
            return Ok(self.why_flags(advice));
        }
        let advice = self.contiguous(zone)?;
        let advice = if size > self.machine.block {
            advice.mind(format!(
                "It is taken from the start of memory; the device reaches what lies below {} (A034, A256).",
                format_size(part.end)
            ))
        } else {
            advice.why(match zone {
                Gfp::DMA => "GFP_DMA: the frames lie below the limit of ISA devices (A030, A034).",
                Gfp::DMA32 => "GFP_DMA32: the frames lie where 32 address lines reach (A115).",
                _ => "The device reaches all of the direct map: no zone modifier (A034).",
            })
        };
        Ok(advice
            .why("Devices want contiguous frames: kmalloc's or pages, never vmalloc's (A228, A336).")
            .mind(
                "Where there is an IOMMU, or caches are not kept in step with the device, the memory is \
                 mapped for each transfer: dma_map_single, then dma_unmap_single.",
            )
            .instead(
                "dma_alloc_coherent",
                "CPU and device use it at the same time: --coherent (A336).",
            ))
    }

    fn user(&self) -> Result<Advice, Refused> {
        let Need { size, context, contiguity, .. } = *self.need;
        if context != Context::Task {
            let why = format!(
                "a process's memory is allocated by a task that may sleep (A125), not by {}",
                context.in_words()
            );
            return Err(Refused::because(why).or(Change::Context(Context::Task)));
        }
        let flags = GFP_HIGHUSER_MOVABLE | Gfp::ZERO;
        let advice = self
            .pages(flags, contiguity == Contiguity::Physical)?
            .why("For a process: from high memory where there is some, and it may be moved (A117, A125).")
            .why("Zeroed, so that it shows nothing of who had it before (A075).");
        let advice = if size > self.machine.page && contiguity != Contiguity::Physical {
            advice
                .why("Pages are mapped into the process one by one: each may lie anywhere (A072).")
        } else {
            advice
        };
        Ok(advice.instead("get_zeroed_page", "the kernel needs its address, too (A048)."))
    }

    fn high(&self) -> Result<Advice, Refused> {
        let Need { size, context, contiguity, .. } = *self.need;
        let page = self.machine.page;
        if contiguity == Contiguity::Virtual && size > page {
            return self.software();
        }
        let mut advice =
            self.pages(self.base() | Gfp::HIGHMEM, contiguity == Contiguity::Physical)?;
        let slot = match context {
            Context::Task | Context::BlockIo | Context::Filesystem => None,
            Context::Interrupt => Some("KM_IRQ0"),
            Context::Nmi => Some("KM_NMI"),
            Context::Locked | Context::Boot => Some("KM_USER0"),
        };
        let (map, unmap) = match slot {
            None => ("kmap(page)".to_owned(), "kunmap(page)".to_owned()),
            Some(slot) => {
                (format!("kmap_atomic(page, {slot})"), format!("kunmap_atomic(address, {slot})"))
            }
        };
        advice = advice.then(format!("address = {map}"));
        advice = match slot {
            None => advice
                .mind("kmap may sleep, and its mappings are few: kunmap soon (A269, A270).")
                .instead("kmap_local_page", "for a short time; never sleeps (A269)."),
            Some(_) => advice
                .why("kmap_atomic never sleeps; kmap may (A269, A273).")
                .mind("The mapping lasts until the next one in the same slot (A276).")
                .instead("kmap_local_page", "today's form, without a slot's name (A269)."),
        };
        advice.free = format!("{unmap}, {}", advice.free);
        advice = advice.why(
            "High memory has no address of its own: alloc_pages gives it as a page, which is mapped \
             when it is used (A074, A278, A332).",
        );
        if !self.machine.high {
            advice = advice.mind(format!(
                "Machine {} has no high memory: the flag does nothing there (A032).",
                self.machine.name
            ));
        }
        Ok(self.why_flags(advice))
    }

    /// Pages by their descriptors: one block, or one after the other.
    fn pages(&self, flags: Gfp, one_block: bool) -> Result<Advice, Refused> {
        let Need { size, .. } = *self.need;
        let Limits { page, block, .. } = *self.machine;
        let pages = size.div_ceil(page);
        if pages > 1 && one_block {
            if size > block {
                let why = format!(
                    "{} contiguous is more than the largest block of machine {}, {} (A058)",
                    exactly(size),
                    self.machine.name,
                    format_size(block)
                );
                // Single pages then.
                return Err(Refused::because(why)
                    .or(Change::Contiguity(Contiguity::Any))
                    .or(Change::Size(block)));
            }
            let order = pages.next_power_of_two().ilog2();
            let (call, free) =
                (format!("alloc_pages({flags}, {order})"), format!("__free_pages(page, {order})"));
            return Ok(Advice::new(call, free).flags(flags).mind(
                "Contiguous pages get rare once a machine has run for a while: ask early, and have \
                 another way (A060, A061).",
            ));
        }
        let advice = Advice::new(format!("alloc_page({flags})"), "__free_page(page)").flags(flags);
        Ok(if pages > 1 {
            advice.mind(format!("A piece is {pages} pages: one call for each (A043)."))
        } else {
            advice
        })
    }

    fn per_cpu(&self) -> Result<Advice, Refused> {
        let Need { size, context, lifetime, count, .. } = *self.need;
        let page = self.machine.page;
        let own =
            "Each CPU has a copy in cache lines of its own, and needs no lock for it (A280, A291).";
        let between = "Between get and put pre-emption is disabled: do not sleep (A292).";
        if lifetime == Lifetime::Forever || context == Context::Boot {
            return Ok(Advice::new(
                "DEFINE_PER_CPU(type, name)",
                "nothing: it is part of the image",
            )
            .then("get_cpu_var(name) ... put_cpu_var(name)")
            .why(own)
            .why("What is there from boot on needs no call: it is defined (A283).")
            .mind(between)
            .mind("In 2.6 not in modules; today there, too (A286).")
            .instead("alloc_percpu", "as many as turn out to be needed: --lifetime long (A287)."));
        }
        if !context.may_sleep() {
            let why = format!(
                "alloc_percpu may sleep, and {} must not: it uses what a task has allocated (A292)",
                context.in_words()
            );
            return Err(Refused::because(why)
                .or(Change::Context(Context::Task))
                .or(Change::Lifetime(Lifetime::Forever)));
        }
        if context != Context::Task {
            let why = format!(
                "alloc_percpu takes no flags and asks with GFP_KERNEL, which {} must not (A141)",
                context.in_words()
            );
            return Err(Refused::because(why)
                .or(Change::Context(Context::Task))
                .or(Change::Lifetime(Lifetime::Forever)));
        }
        if size > page {
            let why = format!(
                "{} a CPU is more than a page: keep an array of pointers by get_cpu(), and kmalloc_node \
                 each CPU's memory (A279, A294)",
                exactly(size)
            );
            return Err(Refused::because(why).or(Change::Size(page)));
        }
        let advice = Advice::new("alloc_percpu(type)", "free_percpu(memory)")
            .then("get_cpu_var(memory) ... put_cpu_var(memory)")
            .why(own)
            .why(format!(
                "One copy of {size} bytes for each of {} CPUs, in its natural alignment (A287, A290).",
                self.machine.cpus
            ))
            .mind(between)
            .instead("DEFINE_PER_CPU", "there from boot on: --lifetime forever (A283).")
            .instead("__alloc_percpu", "a size in bytes and an alignment, not a type (A287).");
        Ok(if count > 1 {
            advice.instead(
                "alloc_percpu",
                "one array or structure of all the copies of a CPU (A287).",
            )
        } else {
            advice
        })
    }
}

//! Trace events, with the names and fields that Linux's trace files have for them.

use core::fmt;
use core::panic::Location;

use crate::{CacheName, Gfp, NodeId, Order, Pfn, VirtAddr};

/// One event: what the manager did, for those who look at its work from outside.
///
/// Names and fields are those of the groups `kmem`, `vmalloc` and `percpu` of Linux's trace events, so
/// that tools which read Linux's traces read these. [`Event::name`] and the `Display` form are what stands
/// in a trace file behind the time.
///
/// # Order
///
/// An allocation is told of when what it took is its caller's, a free before anybody else can have it. So
/// between two allocations at one address there is always a free, in the order of time and from whatever
/// CPUs and handlers they come.
///
/// # Layers
///
/// One allocation may be several events: a new slab, or memory above the largest size class, is an
/// allocation of pages too. What the slab layer has for itself (magazines, records of slabs) are pages, and
/// no event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `mm_page_alloc`: a caller was given a block of pages, or none.
    PageAlloc {
        /// The first page, or `None` for an allocation that failed.
        first: Option<Frame>,
        /// The order of the block.
        order: Order,
        /// The migrate type: 0 unmovable, 1 movable, 2 reclaimable.
        migrate_type: u8,
        /// The flags that the caller gave.
        gfp: Gfp,
    },
    /// `mm_page_alloc_zone_locked`: a block was taken from the free areas under the zone's lock.
    PageAllocZoneLocked {
        /// The first page.
        first: Frame,
        /// The order of the block.
        order: Order,
        /// The migrate type that was wanted.
        migrate_type: u8,
        /// Whether it went to a per-CPU list and not to a caller.
        percpu_refill: bool,
    },
    /// `mm_page_alloc_extfrag`: a block of another migrate type was taken.
    PageAllocExtfrag {
        /// The first page.
        first: Frame,
        /// The order that was wanted.
        order: Order,
        /// The migrate type that was wanted.
        migrate_type: u8,
        /// The order of the block it was taken from.
        fallback_order: Order,
        /// The migrate type that it had.
        fallback_migrate_type: u8,
        /// The order of a page block.
        page_block_order: Order,
        /// Whether the page block changed its type.
        change_ownership: bool,
    },
    /// `mm_page_free`: a caller gave a block back.
    PageFree {
        /// The first page.
        first: Frame,
        /// The order of the block.
        order: Order,
    },
    /// `mm_page_free_batched`: the same page once more, as one of many in one call.
    PageFreeBatched {
        /// The page.
        first: Frame,
    },
    /// `mm_page_pcpu_drain`: a block went from a per-CPU list to the free areas.
    PagePcpuDrain {
        /// The first page.
        first: Frame,
        /// The order of the block.
        order: Order,
        /// The migrate type.
        migrate_type: u8,
    },
    /// `kmalloc`: a caller was given memory of a size, or none.
    Kmalloc {
        /// The call.
        site: Site,
        /// The memory, or `None` where there was none.
        memory: Option<VirtAddr>,
        /// How many bytes were wanted.
        asked: usize,
        /// How many bytes it takes.
        got: usize,
        /// The flags that the caller gave.
        gfp: Gfp,
        /// The node that was named.
        node: Option<NodeId>,
    },
    /// `kfree`: a caller gave memory of `kmalloc` back.
    Kfree {
        /// The call.
        site: Site,
        /// The memory, or `None` for a null pointer, with which nothing is done.
        memory: Option<VirtAddr>,
    },
    /// `kmem_cache_alloc`: a caller was given an object, or none.
    CacheAlloc {
        /// The call.
        site: Site,
        /// The object, or `None` where there was none.
        object: Option<VirtAddr>,
        /// The cache.
        cache: CacheName,
        /// The size of an object in bytes.
        asked: usize,
        /// How many bytes it takes.
        got: usize,
        /// The flags that the caller gave.
        gfp: Gfp,
        /// The node that was named.
        node: Option<NodeId>,
    },
    /// `kmem_cache_free`: a caller gave an object back.
    CacheFree {
        /// The call.
        site: Site,
        /// The object.
        object: VirtAddr,
        /// The cache.
        cache: CacheName,
    },
    /// `alloc_vmap_area`: addresses for a mapping were taken, or there were none.
    AreaAlloc {
        /// The first, or `None` where there was no room.
        start: Option<VirtAddr>,
        /// How many bytes, guard pages included.
        size: usize,
        /// Of what the first is a multiple.
        align: usize,
        /// Where mappings may lie.
        within: (VirtAddr, VirtAddr),
    },
    /// `free_vmap_area_noflush`: a mapping was given back; its addresses are free when it is unmapped.
    AreaFree {
        /// Its first address.
        start: VirtAddr,
        /// How many pages wait to be unmapped with it.
        waiting: usize,
        /// How many may wait.
        bound: usize,
    },
    /// `purge_vmap_area_lazy`: mappings that were given back are unmapped, and forgotten by all CPUs.
    AreasPurged {
        /// From the lowest address of one.
        start: VirtAddr,
        /// To the highest.
        end: VirtAddr,
        /// How many.
        count: usize,
    },
    /// `percpu_alloc_percpu`: a caller was given an object for each CPU.
    PerCpuAlloc {
        /// The call.
        site: Site,
        /// Whether the call must not sleep.
        is_atomic: bool,
        /// The size in bytes that was wanted.
        size: usize,
        /// The alignment that was wanted.
        align: usize,
        /// Where it is.
        place: PerCpuPlace,
        /// How many bytes it takes at all CPUs together.
        got: usize,
        /// The flags that the caller gave.
        gfp: Gfp,
    },
    /// `percpu_alloc_percpu_fail`: there was none.
    PerCpuAllocFail {
        /// Whether the call must not sleep.
        is_atomic: bool,
        /// The size in bytes that was wanted.
        size: usize,
        /// The alignment that was wanted.
        align: usize,
    },
    /// `percpu_free_percpu`: a caller gave an object back.
    PerCpuFree {
        /// Where it was.
        place: PerCpuPlace,
    },
    /// `percpu_create_chunk`: a page for each CPU, for objects, was taken.
    PerCpuChunk {
        /// The boot CPU's.
        base: VirtAddr,
    },
    /// `percpu_destroy_chunk`: it was given back.
    PerCpuChunkGone {
        /// The boot CPU's page.
        base: VirtAddr,
    },
}

/// A page as events name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where its descriptor lies: Linux's `struct page *`.
    pub descriptor: VirtAddr,
    /// Its number.
    pub pfn: Pfn,
}

/// Where a per-CPU object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerCpuPlace {
    /// The boot CPU's page of the chunk that it is in.
    pub base: VirtAddr,
    /// How far behind that it lies.
    pub offset: usize,
}

/// Where a call was made.
///
/// Linux prints a function's name and how far into it the call is: `kmem_init+0x24/0x1f0`. Here it is file
/// and line, in the same form, since programs take it for one word that ends with an offset and a size:
/// `crates/scull/src/store.rs:41+0x0/0x0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site(pub &'static Location<'static>);

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A folder's name may have blanks, and a word may not.
        let mut parts = self.0.file().split([' ', '\t', '\n']);
        f.write_str(parts.next().unwrap_or_default())?;
        for part in parts {
            write!(f, "_{part}")?;
        }
        write!(f, ":{}+0x0/0x0", self.0.line())
    }
}

impl Event {
    /// What trace files call the event.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::PageAlloc { .. } => "mm_page_alloc",
            Event::PageAllocZoneLocked { .. } => "mm_page_alloc_zone_locked",
            Event::PageAllocExtfrag { .. } => "mm_page_alloc_extfrag",
            Event::PageFree { .. } => "mm_page_free",
            Event::PageFreeBatched { .. } => "mm_page_free_batched",
            Event::PagePcpuDrain { .. } => "mm_page_pcpu_drain",
            Event::Kmalloc { .. } => "kmalloc",
            Event::Kfree { .. } => "kfree",
            Event::CacheAlloc { .. } => "kmem_cache_alloc",
            Event::CacheFree { .. } => "kmem_cache_free",
            Event::AreaAlloc { .. } => "alloc_vmap_area",
            Event::AreaFree { .. } => "free_vmap_area_noflush",
            Event::AreasPurged { .. } => "purge_vmap_area_lazy",
            Event::PerCpuAlloc { .. } => "percpu_alloc_percpu",
            Event::PerCpuAllocFail { .. } => "percpu_alloc_percpu_fail",
            Event::PerCpuFree { .. } => "percpu_free_percpu",
            Event::PerCpuChunk { .. } => "percpu_create_chunk",
            Event::PerCpuChunkGone { .. } => "percpu_destroy_chunk",
        }
    }
}

/// The event as a trace file has it behind the time: name, colon, fields.
///
/// The form is Linux's to the letter, its oddities included: the first address of an area is decimal behind
/// a colon where the area is taken, and hexadecimal behind an equals sign where it is given back.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match *self {
            Event::PageAlloc { first, order, migrate_type, gfp } => write!(
                f,
                "{} order={order} migratetype={migrate_type} gfp_flags={}",
                FrameFields(first),
                Flags(gfp)
            ),
            Event::PageAllocZoneLocked { first, order, migrate_type, percpu_refill } => write!(
                f,
                "{first} order={order} migratetype={migrate_type} percpu_refill={}",
                u8::from(percpu_refill)
            ),
            Event::PageAllocExtfrag {
                first,
                order,
                migrate_type,
                fallback_order,
                fallback_migrate_type,
                page_block_order,
                change_ownership,
            } => write!(
                f,
                "{first} alloc_order={order} fallback_order={fallback_order} \
                 pageblock_order={page_block_order} alloc_migratetype={migrate_type} \
                 fallback_migratetype={fallback_migrate_type} fragmenting={} change_ownership={}",
                u8::from(fallback_order < page_block_order),
                u8::from(change_ownership),
            ),
            Event::PageFree { first, order } => write!(f, "{first} order={order}"),
            Event::PageFreeBatched { first } => write!(f, "{first} order=0"),
            Event::PagePcpuDrain { first, order, migrate_type } => {
                write!(f, "{first} order={order} migratetype={migrate_type}")
            }
            // Nothing is accounted to groups of tasks.
            Event::Kmalloc { site, memory, asked, got, gfp, node } => write!(
                f,
                "call_site={site} ptr={} bytes_req={asked} bytes_alloc={got} gfp_flags={} \
                 node={} accounted=false",
                Pointer(memory),
                Flags(gfp),
                Node(node)
            ),
            Event::Kfree { site, memory } => write!(f, "call_site={site} ptr={}", Pointer(memory)),
            Event::CacheAlloc { site, object, cache, asked, got, gfp, node } => write!(
                f,
                "call_site={site} ptr={} name={cache} bytes_req={asked} bytes_alloc={got} \
                 gfp_flags={} node={} accounted=false",
                Pointer(object),
                Flags(gfp),
                Node(node)
            ),
            Event::CacheFree { site, object, cache } => {
                write!(f, "call_site={site} ptr={} name={cache}", Pointer(Some(object)))
            }
            Event::AreaAlloc { start, size, align, within } => write!(
                f,
                "va_start: {} size={size} align={align} vstart={:#x} vend={:#x} failed={}",
                start.map_or(0, VirtAddr::get),
                within.0.get(),
                within.1.get(),
                u8::from(start.is_none())
            ),
            Event::AreaFree { start, waiting, bound } => {
                write!(f, "va_start={:#x} nr_lazy={waiting} nr_lazy_max={bound}", start.get())
            }
            Event::AreasPurged { start, end, count } => {
                write!(f, "start={:#x} end={:#x} num_purged={count}", start.get(), end.get())
            }
            // There is no part that is reserved for modules.
            Event::PerCpuAlloc { site, is_atomic, size, align, place, got, gfp } => write!(
                f,
                "call_site={site} reserved=0 is_atomic={} size={size} align={align} {place} \
                 bytes_alloc={got} gfp_flags={}",
                u8::from(is_atomic),
                Flags(gfp)
            ),
            Event::PerCpuAllocFail { is_atomic, size, align } => {
                write!(f, "reserved=0 is_atomic={} size={size} align={align}", u8::from(is_atomic))
            }
            Event::PerCpuFree { place } => write!(f, "{place}"),
            Event::PerCpuChunk { base } | Event::PerCpuChunkGone { base } => {
                write!(f, "base_addr={}", Pointer(Some(base)))
            }
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page={} pfn={:#x}", Pointer(Some(self.descriptor)), self.pfn.number())
    }
}

impl fmt::Display for PerCpuPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PerCpuPlace { base, offset } = *self;
        let object = VirtAddr::new(base.get() + offset);
        write!(f, "base_addr={} off={offset} ptr={}", Pointer(Some(base)), Pointer(Some(object)))
    }
}

/// The fields of a page, where there may be none.
struct FrameFields(Option<Frame>);

impl fmt::Display for FrameFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(frame) => frame.fmt(f),
            None => write!(f, "page={} pfn=0x0", Pointer(None)),
        }
    }
}

/// A pointer as `%p` prints it: all its digits, without a mark before them.
struct Pointer(Option<VirtAddr>);

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.map_or(0, VirtAddr::get))
    }
}

/// Flags in the words of a trace file.
struct Flags(Gfp);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { self.0.fmt(f) }
    }
}

/// A node, or that none was named.
struct Node(Option<NodeId>);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(node) => write!(f, "{}", node.index()),
            None => f.write_str("-1"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;
    use crate::GFP_KERNEL;

    const SITE: Site = Site(Location::caller());

    /// Each in the form that Linux prints it in: the same words in the same order.
    #[test]
    fn every_event_is_one_line_of_a_trace_file() {
        let at = VirtAddr::new;
        let first = Frame { descriptor: at(0x7f00_dead_b000), pfn: Pfn::new(0x1234).unwrap() };
        let order = |order| Order::new(order).unwrap();
        let (two, three) = (order(2), order(3));
        let cache = CacheName::new("dentry").unwrap();
        let object = at(0x7f12_3456_7890);
        let place = PerCpuPlace { base: at(0x7f00_0000_1000), offset: 40 };
        let node = NodeId::new(1);
        let lines = [
            (
                Event::PageAlloc {
                    first: Some(first),
                    order: two,
                    migrate_type: 1,
                    gfp: GFP_KERNEL | Gfp::ZERO,
                },
                "mm_page_alloc: page=00007f00deadb000 pfn=0x1234 order=2 migratetype=1 \
                 gfp_flags=GFP_KERNEL|__GFP_ZERO",
            ),
            (
                Event::PageAlloc { first: None, order: two, migrate_type: 0, gfp: Gfp::NONE },
                "mm_page_alloc: page=0000000000000000 pfn=0x0 order=2 migratetype=0 gfp_flags=none",
            ),
            (
                Event::PageAllocZoneLocked {
                    first,
                    order: two,
                    migrate_type: 2,
                    percpu_refill: true,
                },
                "mm_page_alloc_zone_locked: page=00007f00deadb000 pfn=0x1234 order=2 migratetype=2 \
                 percpu_refill=1",
            ),
            (
                Event::PageAllocExtfrag {
                    first,
                    order: two,
                    migrate_type: 0,
                    fallback_order: three,
                    fallback_migrate_type: 1,
                    page_block_order: order(9),
                    change_ownership: false,
                },
                "mm_page_alloc_extfrag: page=00007f00deadb000 pfn=0x1234 alloc_order=2 \
                 fallback_order=3 pageblock_order=9 alloc_migratetype=0 fallback_migratetype=1 \
                 fragmenting=1 change_ownership=0",
            ),
            (
                Event::PageFree { first, order: three },
                "mm_page_free: page=00007f00deadb000 pfn=0x1234 order=3",
            ),
            (
                Event::PageFreeBatched { first },
                "mm_page_free_batched: page=00007f00deadb000 pfn=0x1234 order=0",
            ),
            (
                Event::PagePcpuDrain { first, order: three, migrate_type: 1 },
                "mm_page_pcpu_drain: page=00007f00deadb000 pfn=0x1234 order=3 migratetype=1",
            ),
            (
                Event::Kmalloc {
                    site: SITE,
                    memory: Some(object),
                    asked: 100,
                    got: 128,
                    gfp: GFP_KERNEL,
                    node: None,
                },
                "kmalloc: call_site=@ ptr=00007f1234567890 bytes_req=100 bytes_alloc=128 \
                 gfp_flags=GFP_KERNEL node=-1 accounted=false",
            ),
            (Event::Kfree { site: SITE, memory: None }, "kfree: call_site=@ ptr=0000000000000000"),
            (
                Event::CacheAlloc {
                    site: SITE,
                    object: Some(object),
                    cache,
                    asked: 184,
                    got: 192,
                    gfp: GFP_KERNEL,
                    node,
                },
                "kmem_cache_alloc: call_site=@ ptr=00007f1234567890 name=dentry bytes_req=184 \
                 bytes_alloc=192 gfp_flags=GFP_KERNEL node=1 accounted=false",
            ),
            (
                Event::CacheFree { site: SITE, object, cache },
                "kmem_cache_free: call_site=@ ptr=00007f1234567890 name=dentry",
            ),
            (
                Event::AreaAlloc {
                    start: Some(at(0x10_0000)),
                    size: 20480,
                    align: 4096,
                    within: (at(0x1000), at(0x20_0000)),
                },
                "alloc_vmap_area: va_start: 1048576 size=20480 align=4096 vstart=0x1000 \
                 vend=0x200000 failed=0",
            ),
            (
                Event::AreaAlloc {
                    start: None,
                    size: 8192,
                    align: 4096,
                    within: (at(0x1000), at(0x2000)),
                },
                "alloc_vmap_area: va_start: 0 size=8192 align=4096 vstart=0x1000 vend=0x2000 failed=1",
            ),
            (
                Event::AreaFree { start: at(0x10_0000), waiting: 5, bound: 8192 },
                "free_vmap_area_noflush: va_start=0x100000 nr_lazy=5 nr_lazy_max=8192",
            ),
            (
                Event::AreasPurged { start: at(0x1000), end: at(0x9000), count: 3 },
                "purge_vmap_area_lazy: start=0x1000 end=0x9000 num_purged=3",
            ),
            (
                Event::PerCpuAlloc {
                    site: SITE,
                    is_atomic: true,
                    size: 8,
                    align: 8,
                    place,
                    got: 32,
                    gfp: GFP_KERNEL,
                },
                "percpu_alloc_percpu: call_site=@ reserved=0 is_atomic=1 size=8 align=8 \
                 base_addr=00007f0000001000 off=40 ptr=00007f0000001028 bytes_alloc=32 \
                 gfp_flags=GFP_KERNEL",
            ),
            (
                Event::PerCpuAllocFail { is_atomic: false, size: 8, align: 16 },
                "percpu_alloc_percpu_fail: reserved=0 is_atomic=0 size=8 align=16",
            ),
            (
                Event::PerCpuFree { place },
                "percpu_free_percpu: base_addr=00007f0000001000 off=40 ptr=00007f0000001028",
            ),
            (
                Event::PerCpuChunk { base: place.base },
                "percpu_create_chunk: base_addr=00007f0000001000",
            ),
            (
                Event::PerCpuChunkGone { base: place.base },
                "percpu_destroy_chunk: base_addr=00007f0000001000",
            ),
        ];
        for (event, line) in lines {
            assert_eq!(event.to_string(), line.replace('@', &SITE.to_string()));
        }
    }

    #[test]
    fn a_site_is_one_word_that_ends_as_a_symbol_does() {
        let word = SITE.to_string();
        let place = word.strip_suffix("+0x0/0x0").unwrap();
        let (file, line) = place.rsplit_once(':').unwrap();
        assert!(file.ends_with("platform/events.rs") && line.parse::<u32>().unwrap() > 0, "{word}");
        assert!(!word.contains(char::is_whitespace), "{word}");
    }
}

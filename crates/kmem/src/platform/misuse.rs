//! Reports of wrong frees and wrong calls: what was passed, and what is really there (A062, A063).

use core::fmt;
use core::panic::Location;

use super::{Overwritten, StackHarm, StackOwner};
use crate::{CpuId, Order, Pfn, PhysAddr, VirtAddr};

/// One wrong call. Memory is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse<'a> {
    /// What is wrong.
    pub kind: MisuseKind,
    /// What the caller passed.
    pub passed: Passed,
    /// What is there.
    pub there: There,
    /// Where the call was made. For what comes to light later, where it came to light.
    pub site: &'a Location<'a>,
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MisuseKind {
    /// The block is free already.
    DoubleFree,
    /// No memory of this manager is there.
    Foreign,
    /// The address is not the first byte of a page, or the frame not the first of such a block.
    Misaligned,
    /// The page lies inside a block and is not its first.
    Interior,
    /// The page was never handed out: it is reserved, or the manager's own.
    Reserved,
    /// The block was allocated with another order.
    WrongOrder,
    /// The page is the tail of a compound page.
    CompoundTail,
    /// A block on a per-CPU list or a free list is not free any more or is there twice: it was
    /// freed by two CPUs at one moment. It has not been handed out; it is lost or with its other
    /// holder.
    ConcurrentFree,
    /// A call that may sleep was made where sleeping is forbidden (A135).
    SleepInAtomic,
    /// High memory was asked for as an address (A073). The flag was left out.
    HighmemAddress,
    /// A reference was taken to, or dropped from, a page that has none.
    NoReference,
    /// More references were taken to a page than can be counted: it is never freed. Or it was to be mapped for
    /// a user once more than can be counted, and is not.
    TooManyReferences,
    /// The block belongs to a slab, or is kmalloc's: its objects are freed, not its pages.
    Slab,
    /// No object begins there: it is memory of somebody else.
    NoObject,
    /// The address lies inside a slab, and no object begins there.
    InsideObject,
    /// The object is of another cache, or none of kmalloc's.
    WrongCache,
    /// The cache has been destroyed.
    StaleCache,
    /// The block has references besides the caller's and cannot be split.
    Shared,
    /// A state of a page was changed that is not in use.
    NotInUse,
    /// A state of a page was to be changed that only the manager changes.
    ManagersState,
    /// Boot-time memory was called for after the page allocator had taken it over (A250).
    BootIsOver,
    /// Bytes of a cache that is debugged were written by somebody whose they were not (A195, A196).
    Overwritten,
    /// No area of mapped pages begins there.
    NoArea,
    /// The address lies inside an area of mapped pages.
    InsideArea,
    /// The area is of another kind: what `vmap` made is not for `vfree`.
    WrongArea,
    /// The page belongs to an area of `vmalloc`, which frees it itself.
    VmallocPage,
    /// A page was to be mapped that is not in use.
    MapNotInUse,
    /// A mapping was ended that there is not: it was ended before, by another address or slot type, or
    /// it is another CPU's.
    NotMapped,
    /// A temporary mapping was made in a slot whose last one had not been ended (A276). The new one
    /// has taken its place; the old one is gone.
    SlotInUse,
    /// Nested temporary mappings were not ended in the opposite order. The one that was named has
    /// ended.
    MapOrder,
    /// The page holds per-CPU data: objects are freed, not pages.
    PerCpuPage,
    /// The address is another CPU's copy: the boot CPU's names them all.
    NotFirstCopy,
    /// There is no such CPU.
    NoSuchCpu,
    /// This CPU has no copy of a static variable: it was not set up, or not by this manager.
    NoCopy,
    /// The number of the CPU was asked for by code that may be moved to another one (A282).
    MayMove,
    /// A call that takes a lock was made by an NMI handler.
    InNmi,
    /// A kernel stack was used up: what is below it was touched, or its lowest words are overwritten
    /// (A266).
    StackOverflow,
    /// The page behind an area of mapped pages was touched, an area that was given back, or an address for
    /// mappings that no area has.
    Unmapped,
    /// The memory is not among what a task's stack frees with it.
    NotManaged,
    /// Memory that no device can be told of was to be given to one (A228).
    NotForDma,
    /// What a device was to give back it has not: it was never given, or has been given back.
    NotGiven,
    /// The device has it with another size, in another direction, or as memory of another kind.
    GivenOtherwise,
    /// A driver has done with its device, and the device still has memory.
    StillGiven,
    /// The device has memory of another manager's: what it is kept note in is not this one's.
    OthersDevice,
}

impl MisuseKind {
    const fn what(self) -> &'static str {
        match self {
            MisuseKind::DoubleFree => "double free",
            MisuseKind::Foreign => "free of memory that is not this manager's",
            MisuseKind::Misaligned => "free of a misaligned address",
            MisuseKind::Interior => "free of a page inside a block",
            MisuseKind::Reserved => "free of a reserved page",
            MisuseKind::WrongOrder => "free with the wrong order",
            MisuseKind::CompoundTail => "free of the tail of a compound page",
            MisuseKind::ConcurrentFree => "block was freed twice at one moment",
            MisuseKind::SleepInAtomic => "a call that may sleep in atomic context",
            MisuseKind::HighmemAddress => "high memory asked for as an address",
            MisuseKind::NoReference => "reference count of a page that has no reference",
            MisuseKind::TooManyReferences => "more references to a page than can be counted",
            MisuseKind::Slab => "free of a page that belongs to a slab",
            MisuseKind::InsideObject => "free of an address inside an object",
            MisuseKind::NoObject => "free of what is no object",
            MisuseKind::WrongCache => "free of another cache's object",
            MisuseKind::StaleCache => "use of a cache that has been destroyed",
            MisuseKind::Shared => "split of a block that has other references",
            MisuseKind::NotInUse => "change to a page that is not in use",
            MisuseKind::BootIsOver => "a boot-time call after boot",
            MisuseKind::Overwritten => "memory was overwritten",
            MisuseKind::NoArea => "free of what is no area of mapped pages",
            MisuseKind::InsideArea => "free of an address inside an area of mapped pages",
            MisuseKind::WrongArea => "free of an area of another kind",
            MisuseKind::VmallocPage => "free of a page that belongs to a vmalloc area",
            MisuseKind::MapNotInUse => "mapping of a page that is not in use",
            MisuseKind::NotMapped => "end of a mapping that there is not",
            MisuseKind::SlotInUse => "temporary mapping in a slot that is in use",
            MisuseKind::MapOrder => "nested temporary mappings ended out of order",
            MisuseKind::PerCpuPage => "free of a page of per-cpu data",
            MisuseKind::NotFirstCopy => "another cpu's copy in place of the boot cpu's",
            MisuseKind::NoSuchCpu => "copy of a cpu that there is not",
            MisuseKind::NoCopy => "use of a per-cpu variable that is not set up",
            MisuseKind::MayMove => "cpu number asked for by code that may be moved",
            MisuseKind::InNmi => "a call that takes a lock in an nmi handler",
            MisuseKind::StackOverflow => "kernel stack overflow",
            MisuseKind::Unmapped => "touch of an address that nothing is mapped at",
            MisuseKind::NotManaged => "free of what the task does not manage",
            MisuseKind::NotForDma => "memory that no device can be told of",
            MisuseKind::NotGiven => "memory taken back from a device that has it not",
            MisuseKind::GivenOtherwise => "memory taken back from a device as something else",
            MisuseKind::StillGiven => "a device is left that still has memory",
            MisuseKind::OthersDevice => "use of a device that has another manager's memory",
            MisuseKind::ManagersState => "change to a page state that is the manager's own",
        }
    }
}

/// What a caller passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A page and an order, which need not be one that there is.
    Page(Pfn, u32),
    /// An address and an order.
    Address(VirtAddr, u32),
    /// Flags of an allocation.
    Flags(crate::Gfp),
    /// The address of an object.
    Object(VirtAddr),
    /// A cache, by its place in the table.
    Cache(u16),
    /// A number of bytes.
    Size(usize),
    /// A physical address, and how many bytes from there on.
    Bytes(PhysAddr, u64),
    /// The address of a mapping, and the number of its slot type where one was passed.
    Mapping(VirtAddr, Option<u8>),
    /// A CPU: the one that runs the call, or asked for.
    Cpu(CpuId),
    /// Memory as a device is told of it.
    Dma {
        /// Its first address.
        address: u64,
        /// How many bytes.
        size: usize,
    },
}

/// What is really there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// No RAM that this manager knows.
    Nothing,
    /// A reserved frame, or a frame of the manager's own tables.
    Reserved,
    /// A block in use.
    Block {
        /// Its first frame.
        head: Pfn,
        /// Its order.
        order: Order,
    },
    /// A free block in a zone's free areas.
    Free {
        /// Its first frame.
        head: Pfn,
        /// Its order.
        order: Order,
    },
    /// A free block on a CPU's page lists.
    PerCpu {
        /// Its first frame.
        head: Pfn,
        /// Its order.
        order: Order,
        /// The CPU.
        cpu: CpuId,
    },
    /// An object of a slab.
    Object {
        /// Its address.
        object: VirtAddr,
        /// The number of its cache.
        cache: u16,
        /// Whether it is free.
        free: bool,
    },
    /// An object of per-CPU data.
    PerCpuData {
        /// The boot CPU's copy.
        object: VirtAddr,
        /// The CPU whose copy was passed or asked for.
        cpu: CpuId,
        /// Whether it is free.
        free: bool,
    },
    /// Bytes that are not what they should be.
    Overwritten(Overwritten),
    /// A kernel stack.
    Stack {
        /// Its first address.
        start: VirtAddr,
        /// How many pages it has.
        pages: usize,
        /// Whose it is, where that is known.
        owner: Option<StackOwner>,
        /// What of its lowest words is overwritten, if they can be looked at.
        harm: Option<StackHarm>,
    },
    /// Code that must not sleep.
    AtomicContext,
    /// An area of mapped pages.
    Area {
        /// Its first address.
        start: VirtAddr,
        /// How many pages it has.
        pages: usize,
        /// What it is: `vmalloc`, `vmap` and so on.
        kind: &'static str,
        /// Whether it has been given back already.
        is_going: bool,
        /// Who made it.
        caller: &'static Location<'static>,
    },
    /// RAM that nobody has.
    Unused,
    /// Some pages in one piece, of a carveout.
    Pages {
        /// The first.
        first: Pfn,
        /// How many.
        count: u64,
    },
    /// Memory that the page allocator has taken over.
    HandedOver,
    /// Nothing is mapped there.
    NotMapped,
    /// A temporary mapping.
    Mapping {
        /// Its address.
        address: VirtAddr,
        /// What is mapped.
        frame: Pfn,
        /// The CPU that sees it there.
        cpu: CpuId,
    },
    /// A task that is not pinned.
    TaskContext,
    /// Memory that a device has.
    Given {
        /// The address that it was told.
        address: u64,
        /// How many bytes.
        size: usize,
        /// In which direction, or that it is coherent.
        what: &'static str,
        /// Who gave it.
        caller: &'static Location<'static>,
    },
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Passed::Page(pfn, order) => write!(f, "{pfn:?} order {order}"),
            Passed::Address(address, order) => write!(f, "address {address} order {order}"),
            Passed::Flags(gfp) => write!(f, "flags {gfp}"),
            Passed::Object(address) => write!(f, "address {address}"),
            Passed::Cache(number) => write!(f, "cache {number}"),
            Passed::Size(bytes) => write!(f, "a size of {bytes} bytes"),
            Passed::Bytes(start, bytes) => write!(f, "physical address {start}, {bytes} bytes"),
            Passed::Mapping(address, None) => write!(f, "address {address}"),
            Passed::Mapping(address, Some(slot)) => write!(f, "address {address} slot {slot}"),
            Passed::Cpu(cpu) => write!(f, "cpu {cpu}"),
            Passed::Dma { address, size } => write!(f, "{size} bytes at dma {address:#x}"),
        }
    }
}

impl fmt::Display for There {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            There::Nothing => f.write_str("no page of this manager"),
            There::Reserved => f.write_str("a reserved page"),
            There::Block { head, order } => write!(f, "a block in use at {head:?}, order {order}"),
            There::Free { head, order } => write!(f, "a free block at {head:?}, order {order}"),
            There::PerCpu { head, order, cpu } => {
                write!(f, "a free block at {head:?}, order {order}, on the lists of cpu {cpu}")
            }
            There::Object { object, cache, free } => {
                let state = if *free { "a free" } else { "an" };
                write!(f, "{state} object of cache {cache} at {object}")
            }
            There::Overwritten(bytes) => bytes.fmt(f),
            There::PerCpuData { object, cpu, free } => {
                let state = if *free { "free per-cpu data" } else { "per-cpu data" };
                write!(f, "{state} at {object}, copy of cpu {cpu}")
            }
            There::TaskContext => f.write_str("a task that is not pinned: see get_cpu"),
            There::Stack { start, pages, owner, harm } => {
                write!(f, "the kernel stack of {pages} pages at {start}")?;
                if let Some(owner) = owner {
                    write!(f, " of {owner}")?;
                }
                harm.map_or(Ok(()), |harm| write!(f, ": {harm}"))
            }
            There::AtomicContext => f.write_str("a context that must not sleep"),
            There::Area { start, pages, kind, is_going, caller } => {
                let freed = if *is_going { "a freed" } else { "an" };
                let of = if *pages == 1 { "page" } else { "pages" };
                write!(f, "{freed} area of {pages} {of} at {start}, {kind} at {caller}")
            }
            There::Unused => f.write_str("memory that nobody has"),
            There::Pages { first, count } => write!(f, "a block of {count} pages at {first:?}"),
            There::HandedOver => f.write_str("memory that the page allocator has taken over"),
            There::NotMapped => f.write_str("nothing mapped"),
            There::Mapping { address, frame, cpu } => {
                write!(f, "{frame:?} mapped at {address} on cpu {cpu}")
            }
            There::Given { address, size, what, caller } => {
                write!(f, "{size} bytes at dma {address:#x}, {what}, given at {caller}")
            }
        }
    }
}

/// One line: what is wrong, what was passed, what is there, and where the call was made.
impl fmt::Display for Misuse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: passed {}, found {}, at {}",
            self.kind.what(),
            self.passed,
            self.there,
            self.site
        )
    }
}

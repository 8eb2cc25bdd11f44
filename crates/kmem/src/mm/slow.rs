//! The slow path of an allocation: the only code that may sleep or call reclaim.

use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;

use super::tables::Tables;
use super::{Mm, compound};
use crate::page::{MigrateType, Page};
use crate::pcp::PCP_LARGEST;
use crate::platform::{Level, Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::{PageSource, Reclaim, ReclaimRequest, Shrinker};
use crate::zone::{Floor, Met, Priority, Zone, ZoneEvent};
use crate::{AllocError, Gfp, NodeId, NodeMask, Order, Pfn};

/// How many pages caches give back at least when they are asked to: less would hardly be worth the
/// drain of all CPUs' magazines that it takes.
const REAP: u64 = 64;

/// How often an allocation goes into reclaim without anything being freed before it gives up. One
/// more try than the first, because another CPU may have been freeing meanwhile.
const RETRIES: u32 = 1;
/// The same with `__GFP_RETRY_MAYFAIL`: it is worth waiting for others.
const RETRIES_MAYFAIL: u32 = 16;
/// How often at most while something is freed each time: what others take at once does not help,
/// and a request for a large block is not met by single pages however many are freed.
const PROGRESS_LIMIT: u32 = 64;
/// With `__GFP_NOFAIL`, after how many tries in vain a message is logged, each time.
const NOFAIL_WARNING: u32 = 1024;
/// How long an allocation with `__GFP_NOFAIL` sleeps between tries, where the platform can.
const NOFAIL_PAUSE_NANOSECONDS: u64 = 1_000_000;

/// A sound request: flags that do not contradict each other, an order that the machine has, a
/// context that it may be made in.
struct Request<'a> {
    tables: &'a Tables,
    node: NodeId,
    local: NodeId,
    gfp: Gfp,
    order: Order,
    memalloc: bool,
}

impl Request<'_> {
    /// Whether it is made by somebody who frees memory for others.
    fn frees_memory(&self) -> bool {
        self.memalloc || self.gfp.contains(Gfp::MEMALLOC)
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates when the fast path could not, or would not.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        order: u32,
        site: &'static Location<'static>,
    ) -> Result<Page, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        gfp.check()?;
        let largest = tables.largest;
        let order = Order::new(order)
            .filter(|order| *order <= largest)
            .ok_or(AllocError::OrderTooLarge { order, largest })?;
        let gfp = self.flags_for_context(gfp, site);
        let local = self.local_node(tables);
        if let Some(node) = node.filter(|node| !tables.nodes.contains(*node)) {
            return Err(AllocError::NoSuchNode(node));
        }
        // A node that was named has RAM, and so has the one that is the CPU's.
        let node = node.unwrap_or(local);
        self.honour_request();

        let memalloc = self.platform.memalloc();
        let request = Request { tables, node, local, gfp, order, memalloc };
        let found = match self.attempt(&request, Priority::Low) {
            Some(pfn) => Some(pfn),
            None => self.alloc_low(&request),
        };
        self.trace_alloc(found, gfp, order);
        match found {
            Some(pfn) => {
                if gfp.contains(Gfp::COMP) && order > Order::ZERO {
                    compound::make(&tables.memmap, pfn, order);
                }
                if gfp.contains(Gfp::ZERO) {
                    self.clear(pfn, order);
                }
                Ok(Page::of(pfn))
            }
            None => Err(self.no_memory(gfp, order, site)),
        }
    }

    /// Counts an allocation that failed, and says so where the request does not forbid it.
    pub(super) fn no_memory(
        &self,
        gfp: Gfp,
        order: Order,
        site: &'static Location<'static>,
    ) -> AllocError {
        self.events.failures.fetch_add(1, Relaxed);
        if !gfp.contains(Gfp::NOWARN) {
            self.platform.log(
                Level::Warning,
                format_args!(
                    "page allocation failure: order {order}, {gfp}, at {site}; {} pages free",
                    self.free_page_count()
                ),
            );
        }
        AllocError::NoMemory { order, gfp }
    }

    /// The node of the CPU that runs this. As soon as it is known another one may.
    pub(super) fn local_node(&self, tables: &Tables) -> NodeId {
        let pinned = Pinned::new(&self.platform);
        tables.node_of(pinned.cpu())
    }

    /// A request that may sleep where it must not is reported, and goes on as one that must not.
    pub(super) fn flags_for_context(&self, gfp: Gfp, site: &'static Location<'static>) -> Gfp {
        if !gfp.may_sleep() || !self.platform.in_atomic() {
            return gfp;
        }
        self.report(&Misuse {
            kind: MisuseKind::SleepInAtomic,
            passed: Passed::Flags(gfp),
            there: There::AtomicContext,
            site,
        });
        gfp - (Gfp::DIRECT_RECLAIM | Gfp::IO | Gfp::FS | Gfp::NOFAIL | Gfp::RETRY_MAYFAIL)
    }

    /// No zone is above its low mark.
    fn alloc_low(&self, request: &Request<'_>) -> Option<Pfn> {
        let Request { gfp, order, .. } = *request;
        if gfp.wakes_kswapd() {
            self.reclaim.wake_background(&ReclaimRequest { gfp, order, attempt: 0 });
        }
        let whole = request.tables.whole_reserve_for_atomic;
        let priority = Priority::of(gfp, request.memalloc, whole);
        if let Some(pfn) = self.attempt(request, priority) {
            return Some(pfn);
        }
        // What is on the lists is free memory too, and may merge to what is wanted (A086).
        self.drain_all_pages();
        if let Some(pfn) = self.attempt(request, priority) {
            return Some(pfn);
        }
        // A task that frees memory has had everything there is.
        if !gfp.may_sleep() || request.frees_memory() && !gfp.contains(Gfp::NOFAIL) {
            return None;
        }
        self.alloc_reclaim(request, priority)
    }

    /// Frees memory and tries again, as often as the flags say.
    fn alloc_reclaim(&self, request: &Request<'_>, priority: Priority) -> Option<Pfn> {
        let Request { gfp, order, .. } = *request;
        self.events.stalls[gfp.highest_zone().index()].fetch_add(1, Relaxed);
        let retries = if gfp.contains(Gfp::NORETRY) {
            0
        } else if gfp.contains(Gfp::RETRY_MAYFAIL) {
            RETRIES_MAYFAIL
        } else {
            RETRIES
        };
        let (mut attempt, mut in_vain) = (0u32, 0u32);
        loop {
            // To reclaim for a task that does so itself would recurse: it waits for others.
            let asked = ReclaimRequest { gfp, order, attempt };
            let freed = if request.frees_memory() {
                0
            } else {
                // What caches keep and nobody uses is had before anything in use is. For a large
                // block all of it: it has to merge.
                let some = attempt == 0 && order.pages() < REAP;
                let wanted = if some { REAP } else { u64::MAX };
                self.drain_stacks();
                let kept = self.vm_unmap_aliases() + self.shrink(wanted);
                kept + self.reclaim.reclaim(self, &asked)
            };
            // What was freed, here or by others, may be on lists.
            self.drain_all_pages();
            if let Some(pfn) = self.attempt(request, priority) {
                return Some(pfn);
            }
            attempt = attempt.saturating_add(1);
            in_vain = if freed == 0 { in_vain.saturating_add(1) } else { 0 };
            if gfp.contains(Gfp::NOFAIL) {
                self.wait_for_memory(request, attempt);
            } else if in_vain > retries || attempt >= PROGRESS_LIMIT || gfp.contains(Gfp::NORETRY) {
                return None;
            }
        }
    }

    /// Lets others free something before a request that must not fail tries again.
    fn wait_for_memory(&self, request: &Request<'_>, attempt: u32) {
        if attempt.is_multiple_of(NOFAIL_WARNING) {
            let Request { gfp, order, .. } = *request;
            self.platform.log(
                Level::Warning,
                format_args!("page allocation of order {order}, {gfp}: {attempt} tries in vain"),
            );
        }
        match self.platform.sleep() {
            Some(sleep) => {
                let key = core::ptr::from_ref(self).addr();
                sleep.wait(key, &|| false, NOFAIL_PAUSE_NANOSECONDS);
            }
            None => self.platform.relax(),
        }
    }

    /// The nodes that a request which prefers `node` may use.
    pub(super) fn allowed_nodes(&self, gfp: Gfp, node: NodeId) -> NodeMask {
        if gfp.contains(Gfp::THISNODE) && gfp.contains(Gfp::HARDWALL) {
            NodeMask::of(node).intersection(self.platform.allowed_nodes())
        } else if gfp.contains(Gfp::THISNODE) {
            NodeMask::of(node)
        } else if gfp.contains(Gfp::HARDWALL) {
            self.platform.allowed_nodes()
        } else {
            NodeMask::ALL
        }
    }

    /// Looks at every zone that the request may use, best first.
    fn attempt(&self, request: &Request<'_>, priority: Priority) -> Option<Pfn> {
        let Request { tables, node, local, gfp, .. } = *request;
        let highest = gfp.highest_zone();
        let allowed = self.allowed_nodes(gfp, node);
        let zonelist = tables.zonelist(node, highest).zones();
        let zones = zonelist.iter().map(|index| tables.zone(*index));
        for zone in zones.filter(|zone| allowed.contains(zone.node())) {
            let floor = Floor::new(&zone.watermarks(), zone.lowmem_reserve(highest), priority);
            let preferred = zonelist.first().map_or(zone, |first| tables.zone(*first));
            let met =
                Met { preferred: zone.node() == preferred.node(), local: zone.node() == local };
            if let Some(pfn) = self.take(request, zone, floor, met) {
                if !met.preferred {
                    preferred.counters().add(ZoneEvent::NumaForeign, 1);
                }
                return Some(pfn);
            }
        }
        None
    }

    /// Takes a block of a zone, leaving its floor: from this CPU's list, or from the free areas.
    fn take(&self, request: &Request<'_>, zone: &Zone, floor: Floor, met: Met) -> Option<Pfn> {
        let Request { tables, gfp, order, .. } = *request;
        if order <= PCP_LARGEST
            && let Some(pfn) = self.take_from_list(request, zone, floor)
        {
            met.count(zone);
            zone.counters().add(ZoneEvent::Allocated, order.pages());
            return Some(pfn);
        }
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        zone.take(&self.platform, &tables.memmap, order, migrate_type, floor, met)
    }

    fn take_from_list(&self, request: &Request<'_>, zone: &Zone, floor: Floor) -> Option<Pfn> {
        let Request { tables, gfp, order, .. } = *request;
        if floor.allows(zone.free_pages()) == 0 {
            return None;
        }
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        let mut entered = unsafe { area.section.enter() }?;
        loop {
            let (set, slot) = area.set(&mut entered, zone.index())?;
            let popped = if gfp.contains(Gfp::COLD) {
                set.pop_cold(order, migrate_type)
            } else {
                set.pop_hot(order, migrate_type)
            };
            let pfn = match popped {
                Some(pfn) => pfn,
                None => self.refill(area, &mut entered, zone.index(), order, gfp, floor)?,
            };
            let descriptor = tables.memmap.at(pfn);
            if descriptor.is_on_lists(order, area.cpu()) {
                descriptor.mark().set_held();
                descriptor.set_count(1);
                // Counted here as having left the list, and by the zone as allocated.
                slot.counters().count_drained(order.pages());
                return Some(pfn);
            }
            slot.counters().count_drained(order.pages());
            self.report_stray(pfn, order);
        }
    }
}

impl<P: Platform, R: Reclaim> PageSource for Mm<P, R> {
    unsafe fn free_pages(&self, page: Page, order: u32) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.__free_pages(page, order) }
    }

    fn free_page_count(&self) -> u64 {
        Mm::free_page_count(self)
    }

    fn caches(&self) -> &dyn Shrinker {
        self
    }
}

//! What CPUs have of caches: how it comes and goes, and how it is emptied.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::super::Mm;
use super::super::tables::Tables;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{
    Asked, Cache, CpuCache, Entry, Kind, Magazine, NodeSlabs, PinnedCache, Shared, State, flush,
};
use crate::sync::Entered;
use crate::{AllocError, CpuId, GFP_NOWAIT, Gfp, NodeId, VirtAddr};

/// How many objects a CPU keeps at most: what the slots take, 256 KiB, is to be had in one block.
const LARGEST_MAGAZINE: u32 = 16 << 10;

/// How many objects a node's quarantine of a cache holds to begin with.
const QUARANTINE: u32 = 256;

/// How many objects of other nodes a CPU collects before it brings them home.
const AWAY: u32 = 16;

/// How many objects a CPU keeps of a cache, by their size: 16 KiB of them, but at most 64, which is
/// 1 KiB of slots, and at least 4.
fn slots(stride: u32) -> u32 {
    ((16 << 10) / stride).clamp(4, 64).next_power_of_two().min(64)
}

/// How many objects a depot holds, by their size: what four CPUs keep at least, and of small ones more,
/// 64 KiB of them, so that a CPU which frees what another allocates may fall behind by some.
fn depot_slots(stride: u32) -> u32 {
    ((64 << 10) / stride).clamp(4 * slots(stride), 1024.max(4 * slots(stride)))
}

/// How many objects move at once.
pub(super) fn batch(stride: u32) -> u32 {
    slots(stride) / 2
}

/// A CPU's part of a cache with its magazines behind it: the layout, and where the magazines begin.
fn layout(stride: u32, away: u32) -> Option<(Layout, usize, usize)> {
    let own = Layout::array::<Entry>(slots(stride) as usize).ok()?;
    let (layout, first) = Layout::new::<CpuCache>().extend(own).ok()?;
    let (layout, second) = layout.extend(Layout::array::<Entry>(away as usize).ok()?).ok()?;
    Some((layout.pad_to_align(), first, second))
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives the running CPU its part of a cache, if there is memory for it. The CPU may be another
    /// one when this returns.
    #[cold]
    #[inline(never)]
    pub(super) fn make_cpu_cache(&self, tables: &Tables, cache: &Cache, kind: &Kind) {
        let cpu = {
            let pinned = Pinned::new(&self.platform);
            pinned.cpu()
        };
        // A machine that wants no lists of pages wants none of objects. Where objects are looked at
        // one by one, they do not go through magazines.
        let Some(state) = State::of(cpu) else { return };
        if !self.is_online(cpu) || !tables.has_pagesets() || kind.debug.is_some() {
            return;
        }
        let Some(cell) = tables.cpu_cache_cell(cpu, cache) else { return };
        if !cell.load(Ordering::Acquire).is_null() {
            return;
        }
        // What one CPU puts down another takes: with one CPU there is nobody else.
        if tables.cpus > 1 {
            self.make_depot(tables, cache, kind, tables.node_of(cpu));
        }
        let (home, departures) = (tables.node_of(cpu), cache.departures().announced());
        let made = self.new_cpu_cache(tables, state, home, kind.geometry.stride, departures);
        let Some(made) = made else { return };
        // Release pairs with the Acquire in `Tables::cpu_cache`.
        let null = core::ptr::null_mut();
        let put = self.alone_on_node_of(tables, cache, self.shared(tables, kind), cpu, || {
            // Once more: with the lock held it is seen here that the CPU goes, or there what it has.
            self.is_online(cpu)
                && cell
                    .compare_exchange(null, made.as_ptr(), Ordering::Release, Ordering::Relaxed)
                    .is_ok()
        });
        if put != Some(true) {
            self.free_internal(tables, made.as_ptr().expose_provenance());
        }
    }

    /// Does something with the lock of a CPU's node held. `None` in an NMI handler that does not get
    /// it.
    fn alone_on_node_of<T>(
        &self,
        tables: &Tables,
        cache: &Cache,
        of: Shared<'_, P>,
        cpu: CpuId,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        cache.nodes().get(tables.node_of(cpu).index())?.alone(of, work)
    }

    /// Looks at what a CPU, another one perhaps, has of a cache, if it has something. `None` in an NMI
    /// handler that does not get the lock that keeps it there.
    pub(super) fn with_cpu_cache<T>(
        &self,
        tables: &Tables,
        cache: &Cache,
        of: Shared<'_, P>,
        cpu: CpuId,
        look: impl FnOnce(&CpuCache) -> T,
    ) -> Option<Option<T>> {
        self.alone_on_node_of(tables, cache, of, cpu, || tables.cpu_cache(cpu, cache).map(look))
    }

    /// Gives this CPU twice as many slots for the objects of a cache, if it runs both dry and over
    /// with those that it has: it then refills and flushes, at several times the cost of the common
    /// way, what it could keep.
    ///
    /// Answers whether it did. What all CPUs keep of a cache comes to a 64th of the memory at most.
    /// Where memory is sought a CPU goes back to the slots that it began with.
    #[cold]
    #[inline(never)]
    pub(super) fn grow_magazine(&self, tables: &Tables, cache: &Cache, kind: &Kind) -> bool {
        if self.platform.in_nmi() {
            return false;
        }
        let pages = self.managed_pages();
        let share = (pages << P::PAGE_SHIFT) / 64 / u64::from(kind.geometry.stride * tables.cpus);
        let most = share.min(LARGEST_MAGAZINE.into()) as u32;
        let room = self.with_own(tables, cache, |own, entered| {
            if own.has_run_dry() { own.own(entered).high() } else { u32::MAX }
        });
        let Some(wanted) = room.and_then(|room| room.checked_mul(2)).filter(|twice| *twice <= most)
        else {
            return false;
        };
        let Some(magazine) = self.new_magazine(tables, wanted) else { return false };
        let mut made = Some(magazine);
        // Another CPU, perhaps: then it has more.
        let left = self.with_own(tables, cache, |own, entered| {
            made.take().map(|made| own.set_own(entered, made))
        });
        let grown = left.is_some();
        for left in [left.flatten(), made].into_iter().flatten() {
            self.free_magazine(tables, left);
        }
        grown
    }

    /// What this CPU has of a cache, entered, if it can be.
    pub(super) fn with_own<T>(
        &self,
        tables: &Tables,
        cache: &Cache,
        work: impl FnOnce(&CpuCache, &mut Entered<'_>) -> T,
    ) -> Option<T> {
        let pinned = Pinned::new(&self.platform);
        let own = tables.cpu_cache(pinned.cpu(), cache)?;
        // SAFETY: this code is pinned to the CPU that the magazines belong to.
        let mut entered = unsafe { own.section.enter() }?;
        Some(work(own, &mut entered))
    }

    /// Gives a node a depot for a cache, or a quarantine, if it has none and there is memory for it.
    pub(in crate::mm) fn make_depot(
        &self,
        tables: &Tables,
        cache: &Cache,
        kind: &Kind,
        node: NodeId,
    ) {
        let of = self.shared(tables, kind);
        let Some(slabs) = cache.nodes().get(node.index()) else { return };
        if self.platform.in_nmi() || slabs.depot_room(of) != Some(0) {
            return;
        }
        let quarantine = kind.debug.is_some_and(|debug| debug.has_quarantine());
        let count = if quarantine { QUARANTINE } else { depot_slots(kind.geometry.stride) };
        if let Some(depot) = self.new_magazine(tables, count) {
            self.free_magazine(tables, slabs.set_depot(of, depot));
        }
    }

    /// A magazine with so many slots, if there is memory for them.
    fn new_magazine(&self, tables: &Tables, count: u32) -> Option<Magazine> {
        let slots = self.internal_memory(tables, count as usize * size_of::<Entry>())?;
        // SAFETY: there is room for so many, and nobody else knows it.
        Some(unsafe { Magazine::new(slots.cast(), count) })
    }

    /// Memory for the slab layer itself: not of a magazine, since it may be for one.
    fn internal_memory(&self, tables: &Tables, size: usize) -> Option<NonNull<u8>> {
        let gfp = GFP_NOWAIT | Gfp::NOWARN;
        match tables.classes.class(size) {
            Some(class) => {
                let asked = Asked::internal(size);
                let room = self.object_shared(tables, class as u16, gfp, None, asked).ok()?;
                NonNull::new(core::ptr::with_exposed_provenance_mut(room))
            }
            None => self.large_memory(size, gfp).ok(),
        }
    }

    /// Frees the slots of a magazine that nobody uses, and that is empty.
    pub(super) fn free_magazine(&self, tables: &Tables, magazine: Magazine) {
        if let Some(slots) = magazine.slots() {
            self.free_internal(tables, slots.as_ptr().expose_provenance());
        }
    }

    fn new_cpu_cache(
        &self,
        tables: &Tables,
        state: State,
        home: NodeId,
        stride: u32,
        departures: u64,
    ) -> Option<NonNull<CpuCache>> {
        let away = if tables.several_nodes { AWAY } else { 0 };
        let (layout, own, other) = layout(stride, away)?;
        // A class that is a multiple of a line, at whose multiples its objects lie.
        let room = self.internal_memory(tables, layout.size().next_multiple_of(layout.align()))?;
        if !room.as_ptr().addr().is_multiple_of(layout.align()) {
            self.free_internal(tables, room.as_ptr().expose_provenance());
            return None;
        }
        // SAFETY: within the room, and aligned, by the layout.
        let (own, other) = unsafe { (room.add(own).cast(), room.add(other).cast()) };
        // SAFETY: the room has so many slots, and nobody else knows it.
        let own = unsafe { Magazine::new(own, slots(stride)) };
        let other = match away {
            0 => Magazine::NONE,
            // SAFETY: as above.
            away => unsafe { Magazine::new(other, away) },
        };
        let made = room.cast();
        // SAFETY: room for it, aligned.
        unsafe { made.write(CpuCache::new(state, home, own, other, departures)) };
        Some(made)
    }

    /// Takes what a CPU has of caches away, and gives its objects back to their slabs. Answers `false`
    /// where it is at some of that after all, which then stays its own.
    ///
    /// The CPU does nothing, or this is the last that it does.
    #[must_use]
    pub(in crate::mm) fn take_cpu_caches(&self, tables: &Tables, cpu: CpuId) -> bool {
        let mut all = true;
        // From the last: what is taken of the others goes back to kmalloc's, which are the first.
        for (number, place) in tables.caches().iter().enumerate().rev() {
            // What is of one that is being destroyed goes with that, done or refused.
            let Some(cache) = place.pin() else { continue };
            let Some(cell) = tables.cpu_cache_cell(cpu, place) else { continue };
            let (kind, of) = (cache.kind(), self.shared(tables, cache.kind()));
            let there =
                self.alone_on_node_of(tables, &cache, of, cpu, || cell.load(Ordering::Acquire));
            // SAFETY: only this takes it away, and nobody else does that for this CPU.
            let Some(own) = there.and_then(|at| unsafe { at.as_ref() }) else { continue };
            // SAFETY: the CPU does nothing; or it is this one, in this call.
            let Some(mut entered) = (unsafe { own.section.enter() }) else {
                all = false;
                continue;
            };
            self.flush_all(tables, &cache, kind, own, &mut entered);
            // Whoever finds nothing there knows that nothing is left in the magazines.
            let taken = self.alone_on_node_of(tables, &cache, of, cpu, || {
                cell.swap(core::ptr::null_mut(), Ordering::AcqRel)
            });
            let left = own.reset_own(&mut entered);
            drop(entered);
            self.free_magazine(tables, left);
            let Some(at) = taken else { continue };
            let (allocated, freed) = (own.counters().allocated(), own.counters().freed());
            cache.count_all(allocated, freed);
            self.free_internal(tables, at.expose_provenance());
            self.free_departed_place(tables, number as u16);
        }
        all
    }

    /// Whether code of this CPU is at the magazines that it has of some cache. Pinned.
    pub(in crate::mm) fn is_at_magazines(&self, tables: &Tables, cpu: CpuId) -> bool {
        tables.caches().iter().any(|place| {
            // Pinned, the cache stays, and what the CPU has of it.
            let Some(_cache) = place.pin() else { return false };
            let Some(cell) = tables.cpu_cache_cell(cpu, place) else { return false };
            // SAFETY: only this CPU's going takes it away, or the cache's.
            let own = unsafe { cell.load(Ordering::Acquire).as_ref() };
            own.is_some_and(|own| own.section.is_entered())
        })
    }

    /// Takes what CPUs have of a cache away from a cache that is closed, and whose magazines are empty.
    pub(super) fn free_cpu_caches(&self, tables: &Tables, cache: &Cache) {
        for cpu in (0..tables.cpus).filter_map(CpuId::new) {
            let Some(cell) = tables.cpu_cache_cell(cpu, cache) else { continue };
            let at = cell.swap(core::ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: it lived as long as it was there, and nobody uses the cache.
            let Some(own) = (unsafe { at.as_ref() }) else { continue };
            // SAFETY: as above.
            if let Some(mut entered) = unsafe { own.section.enter() } {
                self.free_magazine(tables, own.reset_own(&mut entered));
            }
            cache.count_all(own.counters().allocated(), own.counters().freed());
            self.free_internal(tables, at.expose_provenance());
        }
    }

    /// Gives what this CPU has of a cache back: what is in its magazines goes to the slabs and the
    /// depot. In an interrupt handler that arrived while the CPU was at them, later.
    pub(super) fn drain_cpu_cache(&self, tables: &Tables, cache: &PinnedCache<'_>) {
        {
            let pinned = Pinned::new(&self.platform);
            if let Some(own) = tables.cpu_cache(pinned.cpu(), cache) {
                own.section.request();
            }
        }
        let _ = self.drain_if_requested(tables, cache, cache.kind());
    }

    /// Gives what this CPU has of a cache back if somebody has asked for it, and the pages of slabs that
    /// waited for that.
    pub(super) fn honour_cache_request(&self, tables: &Tables, cache: &Cache, kind: &Kind) {
        if self.drain_if_requested(tables, cache, kind) && !self.platform.in_nmi() {
            self.free_departed_place(tables, kind.number);
        }
    }

    /// Drains what this CPU has of a cache if somebody has asked for it, and acknowledges the
    /// departures of slabs that there were. Answers whether it did.
    fn drain_if_requested(&self, tables: &Tables, cache: &Cache, kind: &Kind) -> bool {
        let drained = self.with_own(tables, cache, |own, entered| {
            own.section.take_request().then(|| {
                let announced = cache.departures().announced();
                self.flush_all(tables, cache, kind, own, entered);
                let is_drained = own.acknowledge(entered, announced);
                if !is_drained || self.platform.in_nmi() {
                    // An NMI handler does not wait for a lock, and frees no slab: whoever comes next
                    // does.
                    own.section.request();
                }
                (is_drained, own.reset_own(entered))
            })
        });
        let Some((is_drained, left)) = drained.flatten() else { return false };
        self.free_magazine(tables, left);
        is_drained
    }

    /// Gives all that a CPU has of a cache back.
    pub(super) fn flush_all(
        &self,
        tables: &Tables,
        cache: &Cache,
        kind: &Kind,
        own: &CpuCache,
        entered: &mut Entered<'_>,
    ) {
        let (state, home, all) = (own.state, Some(own.home), u32::MAX);
        self.flush(tables, cache, kind, state, home, own.own(entered), all);
        self.flush(tables, cache, kind, state, None, own.away(entered), all);
    }

    /// Gives a part of a magazine back: see [`flush`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn flush(
        &self,
        tables: &Tables,
        cache: &Cache,
        kind: &Kind,
        state: State,
        home: Option<NodeId>,
        magazine: &mut Magazine,
        most: u32,
    ) {
        let stray = |entry| self.report_stray_object(kind.number, entry);
        flush(self.shared(tables, kind), cache.nodes(), home, state, magazine, most, stray);
    }

    /// Gives what is in a node's depot back to the slabs. Answers the depot itself.
    #[track_caller]
    pub(super) fn empty_depot(&self, slabs: &NodeSlabs, of: Shared<'_, P>) -> Magazine {
        let stray = |entry| self.report_stray_object(of.cache, entry);
        let site = core::panic::Location::caller();
        slabs.empty_depot(of, stray, |wrong| self.report_overwritten(wrong, site))
    }

    /// An entry whose object is not there: two CPUs freed it at one moment. By who has the entry, perhaps
    /// with the node's lock held.
    #[cold]
    #[inline(never)]
    pub(super) fn report_stray_object(&self, cache: u16, entry: Entry) {
        let object = VirtAddr::new(entry.object);
        let there = There::Object { object, cache, free: entry.get() != State::HELD };
        let (kind, passed) = (MisuseKind::ConcurrentFree, Passed::Object(object));
        self.report(&Misuse { kind, passed, there, site: core::panic::Location::caller() });
    }
}

/// Why an object was not to be had, for a caller that has no other way.
pub(super) fn no_object(kind: &Kind, gfp: Gfp) -> AllocError {
    AllocError::NoMemory { order: kind.geometry.order, gfp }
}

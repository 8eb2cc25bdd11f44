//! What CPUs have of caches: how it comes and goes, and how it is emptied.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::super::Mm;
use super::super::tables::Tables;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{Cache, CpuCache, Entry, Kind, Magazine, State, flush};
use crate::{AllocError, CpuId, GFP_NOWAIT, Gfp, VirtAddr};

/// How many objects of other nodes a CPU collects before it brings them home.
const AWAY: u32 = 16;

/// How many objects a CPU keeps of a cache, by their size: 16 KiB of them, but at most 64, which is
/// 1 KiB of slots, and at least 4.
fn slots(stride: u32) -> u32 {
    ((16 << 10) / stride).clamp(4, 64).next_power_of_two().min(64)
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
    pub(super) fn make_cpu_cache(&self, tables: &Tables, number: u16, kind: &Kind) {
        let cpu = {
            let pinned = Pinned::new(&self.platform);
            pinned.cpu()
        };
        // A machine that wants no lists of pages wants none of objects.
        if State::of(cpu).is_none() || !self.is_online(cpu) || !tables.has_pagesets() {
            return;
        }
        let Some(cell) = tables.cpu_cache_cell(cpu, number) else { return };
        if !cell.load(Ordering::Acquire).is_null() {
            return;
        }
        self.make_depot(tables, cpu, number, kind);
        let away = if tables.several_nodes { AWAY } else { 0 };
        let Some(made) = self.new_cpu_cache(tables, kind.geometry.stride, away) else { return };
        // Release pairs with the Acquire in `Tables::cpu_cache`.
        let null = core::ptr::null_mut();
        let put = cell.compare_exchange(null, made.as_ptr(), Ordering::Release, Ordering::Relaxed);
        if put.is_err() {
            // SAFETY: just allocated, and nobody knows of it.
            unsafe { self.kfree(made.as_ptr().cast()) };
        }
    }

    /// Gives the node of a CPU a depot for a cache, if it has none: room for what four CPUs put down.
    fn make_depot(&self, tables: &Tables, cpu: CpuId, number: u16, kind: &Kind) {
        let cache = &tables.caches()[usize::from(number)];
        let of = self.shared(tables, kind);
        let Some(slabs) = cache.nodes().get(tables.node_of(cpu).index()) else { return };
        let count = 4 * slots(kind.geometry.stride);
        if tables.cpus < 2 || slabs.has_depot(of) {
            return;
        }
        let class = tables.classes.class(count as usize * size_of::<Entry>());
        let gfp = GFP_NOWAIT | Gfp::NOWARN;
        let room = class.and_then(|class| self.object_shared(tables, class as u16, gfp, None).ok());
        let room = room.and_then(|room| NonNull::new(core::ptr::with_exposed_provenance_mut(room)));
        if let Some(room) = room {
            // SAFETY: the room has so many slots, and nobody else knows it.
            self.free_magazine(slabs.set_depot(of, unsafe { Magazine::new(room, count) }));
        }
    }

    /// Frees the slots of a magazine that nobody uses, and that is empty.
    pub(super) fn free_magazine(&self, magazine: Magazine) {
        if let Some(slots) = magazine.slots() {
            // SAFETY: allocated by `make_depot`.
            unsafe { self.kfree(slots.as_ptr().cast()) };
        }
    }

    fn new_cpu_cache(&self, tables: &Tables, stride: u32, away: u32) -> Option<NonNull<CpuCache>> {
        let (layout, own, other) = layout(stride, away)?;
        // A class that is a multiple of a line, at whose multiples its objects lie.
        let size = layout.size().next_multiple_of(layout.align());
        let class = tables.classes.class(size)?;
        // From the shared slabs: a magazine for magazines would want a magazine.
        let gfp = GFP_NOWAIT | Gfp::NOWARN;
        let room = self.object_shared(tables, class as u16, gfp, None).ok()?;
        if !room.is_multiple_of(layout.align()) {
            // SAFETY: just allocated.
            unsafe { self.kfree(core::ptr::with_exposed_provenance(room)) };
            return None;
        }
        let room: NonNull<u8> = NonNull::new(core::ptr::with_exposed_provenance_mut(room))?;
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
        unsafe { made.write(CpuCache::new(own, other)) };
        Some(made)
    }

    /// Takes what a CPU has of caches away, and gives its objects back to their slabs.
    ///
    /// The CPU does nothing, or this is the last that it does.
    pub(in crate::mm) fn take_cpu_caches(&self, tables: &Tables, cpu: CpuId) {
        // From the last: what is taken of the others goes back to kmalloc's, which are the first.
        for number in (0..tables.caches().len() as u16).rev() {
            let Some(cache) = tables.caches()[usize::from(number)].pin() else { continue };
            let Some(cell) = tables.cpu_cache_cell(cpu, number) else { continue };
            // Taken away first, so that it is not used for what is given back below.
            let at = cell.swap(core::ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: it lived as long as it was there, and nobody else knows it any more.
            let (Some(kind), Some(own)) = (cache.kind(), unsafe { at.as_ref() }) else { continue };
            // SAFETY: the CPU does nothing; or it is this one, in this call.
            let Some(mut entered) = (unsafe { own.section.enter() }) else {
                // It is at its magazines after all: they stay its own.
                cell.store(at, Ordering::Release);
                continue;
            };
            self.flush_all(tables, &cache, kind, cpu, own.own(&mut entered));
            self.flush_all(tables, &cache, kind, cpu, own.away(&mut entered));
            drop(entered);
            let (allocated, freed) = (own.counters().allocated(), own.counters().freed());
            cache.count_all(allocated, freed);
            // SAFETY: it was allocated by `new_cpu_cache`, and nobody uses it.
            unsafe { self.kfree(at.cast()) };
        }
    }

    /// Takes what CPUs have of a cache away from a cache that is closed, and whose magazines are empty.
    pub(super) fn free_cpu_caches(&self, tables: &Tables, number: u16) {
        for cpu in (0..tables.cpus).filter_map(CpuId::new) {
            let Some(cell) = tables.cpu_cache_cell(cpu, number) else { continue };
            let at = cell.swap(core::ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: it was allocated by `new_cpu_cache`; nobody uses the cache.
            unsafe { self.kfree(at.cast()) };
        }
    }

    /// Gives what this CPU has of a cache back: what is in its magazines goes to the slabs and the
    /// depot. In an interrupt handler that arrived while the CPU was at them, later.
    pub(super) fn drain_cpu_cache(&self, tables: &Tables, cache: &Cache, number: u16) {
        let Some(kind) = cache.kind() else { return };
        let pinned = Pinned::new(&self.platform);
        let cpu = pinned.cpu();
        let Some(own) = tables.cpu_cache(cpu, number) else { return };
        // SAFETY: this code is pinned to the CPU that the magazines belong to.
        match unsafe { own.section.enter() } {
            Some(mut entered) => {
                own.section.take_request();
                self.flush_all(tables, cache, kind, cpu, own.own(&mut entered));
                self.flush_all(tables, cache, kind, cpu, own.away(&mut entered));
            }
            None => own.section.request(),
        }
    }

    /// Gives all of a magazine back.
    pub(super) fn flush_all(
        &self,
        tables: &Tables,
        cache: &Cache,
        kind: &Kind,
        cpu: CpuId,
        magazine: &mut Magazine,
    ) {
        let Some(state) = State::of(cpu) else { return };
        let of = self.shared(tables, kind);
        let stray = |entry| self.report_stray_object(entry);
        flush(of, cache.nodes(), tables.node_of(cpu), state, magazine, u32::MAX, stray);
    }

    /// An entry whose object is not there: two CPUs freed it at one moment.
    #[cold]
    #[inline(never)]
    pub(super) fn report_stray_object(&self, entry: Entry) {
        let address = VirtAddr::new(entry.object);
        let site = core::panic::Location::caller();
        let there = self.object_there(address).unwrap_or(There::Nothing);
        let (kind, passed) = (MisuseKind::ConcurrentFree, Passed::Object(address));
        self.report(&Misuse { kind, passed, there, site });
    }
}

/// Why an object was not to be had, for a caller that has no other way.
pub(super) fn no_object(kind: &Kind, gfp: Gfp) -> AllocError {
    AllocError::NoMemory { order: kind.geometry.order, gfp }
}

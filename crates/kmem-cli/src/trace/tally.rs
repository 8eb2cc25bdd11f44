//! What a trace comes to: allocations and frees, matched.
//!
//! Four kinds of memory are told of, and lie one in the other: a new slab is pages too. So they are counted
//! apart, and never added up.
//!
//! A trace does not see all: frees of what was allocated before it began, frees that no event tells of, events
//! that were lost. What is freed without having been seen is counted as such; what is allocated where
//! something is live ends what was there.

use std::collections::{BTreeMap, HashMap};

use super::line::Event;

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Blocks of pages.
    Pages,
    /// Objects of caches and of kmalloc.
    Objects,
    /// Areas of mapped addresses.
    Areas,
    /// Per-CPU data.
    PerCpu,
}

impl Layer {
    pub const ALL: [Layer; 4] = [Layer::Pages, Layer::Objects, Layer::Areas, Layer::PerCpu];

    pub const fn name(self) -> &'static str {
        match self {
            Layer::Pages => "pages",
            Layer::Objects => "objects",
            Layer::Areas => "areas",
            Layer::PerCpu => "percpu",
        }
    }
}

/// What was allocated by somebody, or of some kind. Bytes are those that memory takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub allocations: u64,
    pub bytes: u64,
    /// Allocations that are live, and their bytes.
    pub live: u64,
    pub live_bytes: u64,
}

impl Use {
    fn allocate(&mut self, bytes: u64) {
        self.allocations += 1;
        self.bytes += bytes;
        self.live += 1;
        self.live_bytes += bytes;
    }

    fn free(&mut self, bytes: u64) {
        self.live -= 1;
        self.live_bytes -= bytes;
    }
}

/// What is known of a kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfLayer {
    pub total: Use,
    /// Bytes that were asked for.
    pub asked: u64,
    /// The most bytes that were live.
    pub peak: u64,
    /// Allocations that failed.
    pub failed: u64,
    /// Frees of what had been seen.
    pub freed: u64,
    /// Frees of what had not.
    pub freed_unseen: u64,
    /// Frees of null.
    pub freed_null: u64,
    /// Allocations where something was live.
    pub reused: u64,
}

/// An allocation that is live.
#[derive(Clone, Copy)]
struct Live {
    bytes: u64,
    caller: u32,
}

/// All of it.
pub struct Tally {
    /// Bytes of a page.
    page: u64,
    layers: [OfLayer; Layer::ALL.len()],
    /// How often each event was.
    pub events: BTreeMap<String, u64>,
    /// Blocks of pages by order. What is live is in pages, as blocks are freed in parts too.
    pub orders: BTreeMap<u32, Use>,
    callers: Vec<(String, Layer, Use)>,
    caller_numbers: [HashMap<String, u32>; Layer::ALL.len()],
    objects: HashMap<u64, Live>,
    /// Pages that are live, and the order of the block that each was allocated in.
    pages: HashMap<u64, u32>,
    areas: HashMap<u64, Live>,
    percpu: HashMap<(u64, u64), Live>,
    /// Events that lack a field, or have one that makes no sense.
    pub unreadable: u64,
}

impl Tally {
    /// Of nothing. `page` is the size of a page in bytes.
    pub fn new(page: u64) -> Tally {
        Tally {
            page,
            layers: Default::default(),
            events: BTreeMap::new(),
            orders: BTreeMap::new(),
            callers: Vec::new(),
            caller_numbers: Default::default(),
            objects: HashMap::new(),
            pages: HashMap::new(),
            areas: HashMap::new(),
            percpu: HashMap::new(),
            unreadable: 0,
        }
    }

    /// What is known of a kind of memory.
    pub fn layer(&self, layer: Layer) -> OfLayer {
        self.layers[layer as usize]
    }

    /// Who allocated: the call, the kind of memory, how much. The most bytes come first.
    pub fn callers(&self) -> Vec<(&str, Layer, Use)> {
        let mut callers: Vec<_> =
            self.callers.iter().map(|(caller, layer, of)| (caller.as_str(), *layer, *of)).collect();
        callers.sort_by(|one, other| {
            let key = |of: &Use| (of.live_bytes, of.bytes, of.allocations);
            key(&other.2).cmp(&key(&one.2)).then_with(|| one.0.cmp(other.0))
        });
        callers
    }

    /// Adds an event.
    pub fn add(&mut self, event: &Event<'_>) {
        match self.events.get_mut(event.name) {
            Some(count) => *count += 1,
            None => _ = self.events.insert(event.name.to_owned(), 1),
        }
        if self.follow(event).is_none() {
            self.unreadable += 1;
        }
    }

    fn follow(&mut self, event: &Event<'_>) -> Option<()> {
        match event.name {
            "kmalloc" | "kmem_cache_alloc" => self.object(event)?,
            "kfree" | "kmem_cache_free" => {
                let pointer = event.pointer("ptr")?;
                let found = self.objects.remove(&pointer);
                self.freed(Layer::Objects, found, pointer == 0);
            }
            "mm_page_alloc" => self.block(event)?,
            // Those that were freed in one call are told of once more by `mm_page_free_batched`.
            "mm_page_free" => self.free_block(event)?,
            "alloc_vmap_area" => {
                let (start, size) = (event.number("va_start")?, event.number("size")?);
                if event.number("failed").unwrap_or(0) != 0 {
                    self.of(Layer::Areas).failed += 1;
                } else {
                    let replaced = self.areas.remove(&start);
                    let live = self.allocated(Layer::Areas, size, size, replaced, None);
                    self.areas.insert(start, live);
                }
            }
            "free_vmap_area_noflush" => {
                let found = self.areas.remove(&event.number("va_start")?);
                self.freed(Layer::Areas, found, false);
            }
            "percpu_alloc_percpu" => {
                let (size, caller) = (event.number("size")?, event.get("call_site"));
                let bytes = event.number("bytes_alloc").unwrap_or(size);
                let place = (event.pointer("base_addr")?, event.number("off")?);
                let replaced = self.percpu.remove(&place);
                let live = self.allocated(Layer::PerCpu, size, bytes, replaced, caller);
                self.percpu.insert(place, live);
            }
            "percpu_alloc_percpu_fail" => self.of(Layer::PerCpu).failed += 1,
            "percpu_free_percpu" => {
                let place = (event.pointer("base_addr")?, event.number("off")?);
                let found = self.percpu.remove(&place);
                self.freed(Layer::PerCpu, found, false);
            }
            _ => {}
        }
        Some(())
    }

    fn object(&mut self, event: &Event<'_>) -> Option<()> {
        let (pointer, asked) = (event.pointer("ptr")?, event.number("bytes_req")?);
        let bytes = event.number("bytes_alloc")?;
        if pointer == 0 {
            self.of(Layer::Objects).failed += 1;
            return Some(());
        }
        let replaced = self.objects.remove(&pointer);
        let caller = event.get("call_site")?;
        let live = self.allocated(Layer::Objects, asked, bytes, replaced, Some(caller));
        self.objects.insert(pointer, live);
        Some(())
    }

    fn of(&mut self, layer: Layer) -> &mut OfLayer {
        &mut self.layers[layer as usize]
    }

    fn allocated(
        &mut self,
        layer: Layer,
        asked: u64,
        bytes: u64,
        replaced: Option<Live>,
        caller: Option<&str>,
    ) -> Live {
        if let Some(before) = replaced {
            self.of(layer).reused += 1;
            self.end(layer, before);
        }
        let of = self.of(layer);
        of.asked += asked;
        of.total.allocate(bytes);
        of.peak = of.peak.max(of.total.live_bytes);
        let caller = caller.map_or(NOBODY, |caller| self.caller(caller, layer));
        if let Some((_, _, of)) = self.callers.get_mut(caller as usize) {
            of.allocate(bytes);
        }
        Live { bytes, caller }
    }

    fn freed(&mut self, layer: Layer, found: Option<Live>, is_null: bool) {
        match found {
            Some(live) => {
                self.of(layer).freed += 1;
                self.end(layer, live);
            }
            None if is_null => self.of(layer).freed_null += 1,
            None => self.of(layer).freed_unseen += 1,
        }
    }

    /// Something is live no more.
    fn end(&mut self, layer: Layer, live: Live) {
        self.of(layer).total.free(live.bytes);
        if let Some((_, _, of)) = self.callers.get_mut(live.caller as usize) {
            of.free(live.bytes);
        }
    }

    fn caller(&mut self, caller: &str, layer: Layer) -> u32 {
        let numbers = &mut self.caller_numbers[layer as usize];
        if let Some(number) = numbers.get(caller) {
            return *number;
        }
        let number = self.callers.len() as u32;
        self.callers.push((caller.to_owned(), layer, Use::default()));
        numbers.insert(caller.to_owned(), number);
        number
    }

    /// A block of pages: they are followed one by one, as a block may be freed in parts.
    fn block(&mut self, event: &Event<'_>) -> Option<()> {
        let (page, first) = (event.pointer("page")?, event.number("pfn")?);
        let order = u32::try_from(event.number("order")?).ok().filter(|order| *order < ORDERS)?;
        if page == 0 {
            self.of(Layer::Pages).failed += 1;
            return Some(());
        }
        let frames = first..first.checked_add(1 << order)?;
        let bytes = self.page << order;
        for frame in frames {
            if let Some(before) = self.pages.insert(frame, order) {
                self.of(Layer::Pages).reused += 1;
                self.end_page(before);
            }
        }
        let of = self.of(Layer::Pages);
        of.asked += bytes;
        of.total.allocations += 1;
        of.total.bytes += bytes;
        of.total.live += 1 << order;
        of.total.live_bytes += bytes;
        of.peak = of.peak.max(of.total.live_bytes);
        let of_order = self.orders.entry(order).or_default();
        of_order.allocations += 1;
        of_order.bytes += bytes;
        of_order.live += 1 << order;
        of_order.live_bytes += bytes;
        Some(())
    }

    fn free_block(&mut self, event: &Event<'_>) -> Option<()> {
        let (first, order) = (event.number("pfn")?, event.number("order")?);
        let order = u32::try_from(order).ok().filter(|order| *order < ORDERS)?;
        let mut seen = false;
        for frame in first..first.checked_add(1 << order)? {
            if let Some(page) = self.pages.remove(&frame) {
                seen = true;
                self.end_page(page);
            }
        }
        let of = self.of(Layer::Pages);
        match seen {
            true => of.freed += 1,
            false => of.freed_unseen += 1,
        }
        Some(())
    }

    /// A page of a block is live no more.
    fn end_page(&mut self, order: u32) {
        let page = self.page;
        self.of(Layer::Pages).total.free(page);
        if let Some(of) = self.orders.get_mut(&order) {
            of.free(page);
        }
    }
}

/// The number of a caller who is not told of.
const NOBODY: u32 = u32::MAX;

/// Orders that can be believed: a block of more pages is a mistake of the file's.
const ORDERS: u32 = 21;

#[cfg(test)]
mod tests;

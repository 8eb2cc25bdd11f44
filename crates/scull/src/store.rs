//! What a device holds: a list of items, each with a set of quanta.

use core::fmt;
use core::ptr::NonNull;

use kmem::{AllocError, Mm, Page, Platform, Reclaim};

use crate::memory::Small;
use crate::quota::Account;
use crate::{ScullError, Source};

/// Owns one quantum. It does not know its size: the store does.
struct Quantum(NonNull<u8>);

/// One link of the list. A set that nothing was written to is not there.
struct Item {
    next: Option<Small<Item>>,
    set: Option<Small<Option<Quantum>>>,
}

/// How a device cuts its bytes up.
#[derive(Clone, Copy)]
pub(crate) struct Shape<S> {
    /// Where its quanta come from.
    pub(crate) source: S,
    /// How many quanta a set has.
    pub(crate) qset: usize,
}

/// The bytes of one device.
///
/// # Invariants
///
/// - Items and sets come from `mm`, quanta from `shape.source` with it; each is in the list once.
/// - Every set has `shape.qset` places.
/// - Every quantum was cleared. `shape` does not change while there is one.
pub(crate) struct Store<'m, S, P, R> {
    mm: &'m Mm<P, R>,
    first: Option<Small<Item>>,
    size: u64,
    shape: Shape<S>,
    account: Account,
}

// SAFETY: a store owns its quanta; the manager it refers to is shared by all CPUs.
unsafe impl<'m, S: Send, P, R> Send for Store<'m, S, P, R> where &'m Mm<P, R>: Send {}

/// Where a position falls.
struct Place {
    item: u64,
    slot: usize,
    offset: usize,
}

impl<'m, S: Source, P: Platform, R: Reclaim> Store<'m, S, P, R> {
    /// An empty one.
    pub(crate) fn new(mm: &'m Mm<P, R>, shape: Shape<S>, account: Account) -> Self {
        Store { mm, first: None, size: 0, shape, account }
    }

    /// The number of bytes up to the end of what was written farthest.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes that its quanta, sets and items have.
    pub(crate) fn held(&self) -> u64 {
        self.account.held()
    }

    /// Copies bytes from `position` on and answers how many: at most to the end of a quantum, and
    /// 0 at the end. Where nothing was written there are zeroes.
    pub(crate) fn read(&self, position: u64, out: &mut [u8]) -> usize {
        let Some(left) = self.size.checked_sub(position).filter(|left| *left > 0) else { return 0 };
        let place = self.place(position);
        let count = out
            .len()
            .min(self.quantum_bytes() - place.offset)
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let quantum = self
            .items()
            .nth(place.item as usize)
            .and_then(|item| item.set.as_ref())
            .and_then(|set| set[place.slot].as_ref());
        match quantum {
            // SAFETY: a quantum of this store, which is borrowed, has `quantum_bytes` bytes, which were
            // cleared; by pointer, since a user who has it mapped may write to it at any time.
            Some(quantum) => unsafe {
                out.as_mut_ptr().copy_from(quantum.0.as_ptr().add(place.offset), count);
            },
            None => out[..count].fill(0),
        }
        count
    }

    /// The page that a position is in, if something was written there.
    pub(crate) fn page(&self, position: u64) -> Option<Page> {
        if position >= self.size {
            return None;
        }
        let place = self.place(position);
        let item = self.items().nth(place.item as usize)?;
        let quantum = item.set.as_ref()?[place.slot].as_ref()?;
        self.shape.source.page(self.mm, quantum.0, place.offset)
    }

    /// Whether its memory may be mapped.
    pub(crate) fn is_mappable(&self) -> bool {
        self.shape.source.is_mappable()
    }

    /// Copies `data` to `position` and answers how many bytes: at most to the end of a quantum.
    /// Allocates the quantum, its set and the items up to it where they are missing.
    ///
    /// # Errors
    ///
    /// Without memory, and beyond the quota, the store is left as it was: what this call had
    /// allocated is given back.
    pub(crate) fn write(&mut self, position: u64, data: &[u8]) -> Result<usize, ScullError> {
        if data.is_empty() {
            return Ok(0);
        }
        let place = self.place(position);
        let count = data.len().min(self.quantum_bytes() - place.offset);
        let end = position.checked_add(count as u64).ok_or(ScullError::TooFar { position })?;
        let quantum = self.find_or_allocate(&place)?;
        // SAFETY: as in `read`, and this store is borrowed mutably.
        unsafe { quantum.as_ptr().add(place.offset).copy_from(data.as_ptr(), count) };
        self.size = self.size.max(end);
        Ok(count)
    }

    /// Gives all memory back, and has another shape from now on.
    pub(crate) fn trim(&mut self, shape: Shape<S>) {
        let first = self.first.take();
        self.free_items(first);
        self.size = 0;
        self.account.clear();
        self.shape = shape;
    }

    /// Makes the store end at `size`, in bytes: what lies behind is given back, and where there was nothing
    /// there is a hole. Its shape stays.
    pub(crate) fn resize(&mut self, size: u64) {
        if size < self.size {
            let freed = self.cut(size);
            self.account.sub(freed);
        }
        self.size = size;
    }

    /// Gives back the quanta that lie behind `size`, with the sets and items that have no others, and
    /// answers how many bytes those had.
    fn cut(&mut self, size: u64) -> u64 {
        let quantum_bytes = self.quantum_bytes();
        let Place { item, slot, offset } = self.place(size);
        // The store may grow again, and must not show then what is forgotten now.
        if offset > 0
            && let Some(Item { set: Some(set), .. }) = item_mut(&mut self.first, item)
            && let Some(quantum) = &set[slot]
        {
            // SAFETY: as in `write`: the quantum has so many bytes, and this store is borrowed mutably.
            unsafe { quantum.0.as_ptr().add(offset).write_bytes(0, quantum_bytes - offset) };
        }
        let (kept, qset) = (size.div_ceil(quantum_bytes as u64), self.shape.qset as u64);
        let (kept_items, kept_slots) = (kept.div_ceil(qset), (kept % qset) as usize);
        let Some(last) = kept_items.checked_sub(1) else {
            let all = self.first.take();
            return self.free_items(all);
        };
        let rest = item_mut(&mut self.first, last).and_then(|item| item.next.take());
        let mut freed = self.free_items(rest);
        // With none of its slots beyond, the last set is kept whole.
        let set = item_mut(&mut self.first, last).filter(|_| kept_slots > 0);
        if let Some(mut set) = set.and_then(|item| item.set.take()) {
            for slot in &mut set[kept_slots..] {
                if let Some(quantum) = slot.take() {
                    self.free_quantum(quantum);
                    freed += quantum_bytes as u64;
                }
            }
            if let Some(item) = item_mut(&mut self.first, last) {
                item.set = Some(set);
            }
        }
        freed
    }

    /// Writes what `/proc` shows of the device with this number: its shape and size, where its items
    /// are, and where the quanta of the last one are. A list of all would be too long to read, and
    /// the last item is the one that grows.
    pub(crate) fn write_mem(&self, number: usize, out: &mut dyn fmt::Write) -> fmt::Result {
        const DIGITS: usize = size_of::<usize>() * 2;
        let Shape { source, qset } = &self.shape;
        let (label, quantum, size) = (S::KIND.label, source.size(), self.size);
        writeln!(out, "\nDevice {number}: qset {qset}, {label} {quantum}, sz {size}")?;
        let mut link = &self.first;
        while let Some(row) = link {
            let item = &row[0];
            let set = item.set.as_ref().map_or(0, Small::address);
            writeln!(out, "  item at {:0DIGITS$x}, qset at {set:0DIGITS$x}", row.address())?;
            if item.next.is_none() {
                let quanta = item.set.iter().flat_map(|set| set.iter().enumerate());
                for (index, quantum) in quanta {
                    if let Some(Quantum(address)) = quantum {
                        writeln!(out, "{index:>8}:{:0DIGITS$x}", address.addr())?;
                    }
                }
            }
            link = &item.next;
        }
        Ok(())
    }

    fn quantum_bytes(&self) -> usize {
        self.shape.source.bytes()
    }

    fn place(&self, position: u64) -> Place {
        let (quantum, qset) = (self.quantum_bytes() as u64, self.shape.qset as u64);
        let number = position / quantum;
        Place {
            item: number / qset,
            slot: (number % qset) as usize,
            offset: (position % quantum) as usize,
        }
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        let mut link = &self.first;
        core::iter::from_fn(move || {
            let item = &link.as_ref()?[0];
            link = &item.next;
            Some(item)
        })
    }

    fn find_or_allocate(&mut self, place: &Place) -> Result<NonNull<u8>, ScullError> {
        // The usual case: only the quantum, or nothing at all, is missing.
        if let Some(Item { set: Some(set), .. }) = item_mut(&mut self.first, place.item) {
            let slot = &mut set[place.slot];
            if let Some(quantum) = slot {
                return Ok(quantum.0);
            }
            let bytes = self.shape.source.bytes() as u64;
            self.account.allows(bytes)?;
            let quantum = allocate_quantum(self.mm, &self.shape.source)?;
            let address = quantum.0;
            *slot = Some(quantum);
            self.account.add(bytes);
            return Ok(address);
        }
        let items = (place.item + 1).saturating_sub(self.items().count() as u64);
        let small = Small::<Option<Quantum>>::bytes_of(self.shape.qset) + self.quantum_bytes();
        let bytes = items.saturating_mul(size_of::<Item>() as u64).saturating_add(small as u64);
        self.account.allows(bytes)?;
        let address = self.allocate_set(place, items)?;
        self.account.add(bytes);
        Ok(address)
    }

    /// Allocates quantum, set and so many items, in this order, and puts them in the list when all
    /// are there, so that a failure finds the list untouched.
    fn allocate_set(&mut self, place: &Place, items: u64) -> Result<NonNull<u8>, AllocError> {
        let mm = self.mm;
        let quantum = allocate_quantum(mm, &self.shape.source)?;
        let address = quantum.0;
        let mut quantum = Some(quantum);
        let set =
            Small::new(
                mm,
                self.shape.qset,
                |slot| {
                    if slot == place.slot { quantum.take() } else { None }
                },
            );
        let set = match set {
            Ok(set) => set,
            Err(error) => {
                if let Some(quantum) = quantum {
                    self.free_quantum(quantum);
                }
                return Err(error);
            }
        };
        if let Some(item) = item_mut(&mut self.first, place.item) {
            item.set = Some(set);
            return Ok(address);
        }
        let mut set = Some(set);
        let mut chain: Option<Small<Item>> = None;
        for _ in 0..items {
            // The chain grows at its head, so the first item made is the last of the list.
            let (mut held_set, mut next) = (set.take(), chain.take());
            let made = Small::new(mm, 1, |_| Item { next: next.take(), set: held_set.take() });
            match made {
                Ok(item) => chain = Some(item),
                Err(error) => {
                    self.free_items(next);
                    if let Some(set) = held_set {
                        self.free_set(set);
                    }
                    return Err(error);
                }
            }
        }
        let mut link = &mut self.first;
        while let Some(item) = link {
            link = &mut item[0].next;
        }
        *link = chain;
        Ok(address)
    }

    /// Frees items with all that they have, and answers how many bytes that was.
    fn free_items(&self, first: Option<Small<Item>>) -> u64 {
        let (mut link, mut freed) = (first, 0);
        while let Some(mut item) = link {
            link = item[0].next.take();
            freed += size_of::<Item>() as u64;
            if let Some(set) = item[0].set.take() {
                freed += self.free_set(set);
            }
            // SAFETY: items come from this manager.
            unsafe { item.free(self.mm) };
        }
        freed
    }

    /// Frees each quantum, and then the set (A307); answers how many bytes that was.
    fn free_set(&self, mut set: Small<Option<Quantum>>) -> u64 {
        let mut freed = Small::<Option<Quantum>>::bytes_of(set.len()) as u64;
        for slot in set.iter_mut() {
            if let Some(quantum) = slot.take() {
                self.free_quantum(quantum);
                freed += self.quantum_bytes() as u64;
            }
        }
        // SAFETY: sets come from this manager.
        unsafe { set.free(self.mm) };
        freed
    }

    fn free_quantum(&self, quantum: Quantum) {
        // SAFETY: by the invariants the quantum is from this source, and nothing else uses it.
        unsafe { self.shape.source.free(self.mm, quantum.0) };
    }
}

/// A quantum as the texts allocate it: memory, then cleared (A306, A310).
fn allocate_quantum<S: Source, P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    source: &S,
) -> Result<Quantum, AllocError> {
    let quantum = source.allocate(mm)?;
    // SAFETY: the quantum is ours and has this many bytes.
    unsafe { quantum.write_bytes(0, source.bytes()) };
    Ok(Quantum(quantum))
}

fn item_mut(first: &mut Option<Small<Item>>, number: u64) -> Option<&mut Item> {
    let mut link = first;
    for _ in 0..number {
        link = &mut link.as_mut()?[0].next;
    }
    Some(&mut link.as_mut()?[0])
}

impl<S, P, R> Drop for Store<'_, S, P, R> {
    fn drop(&mut self) {
        // The module trims before it lets go; a store cannot do it here without the bounds.
        debug_assert!(self.first.is_none(), "a store is trimmed before it is dropped");
    }
}

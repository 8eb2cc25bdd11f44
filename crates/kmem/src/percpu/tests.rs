//! Maps and lists of chunks, beside a naive model.

use std::collections::{BTreeMap, HashMap};
use std::ptr::NonNull;
use std::vec;
use std::vec::Vec;

use super::chunk::{Chunk, Chunks};
use super::map::{Cut, Map, NotAllocated, Rooms, Wanted};
use crate::CpuId;

#[allow(dead_code, clippy::duplicate_mod, reason = "shared, and not all of it is needed here")]
#[path = "../../tests/common/rng.rs"]
mod rng;
use rng::Rng;

/// What a map is made of.
struct Parts(Cut, Rooms, [Vec<u64>; 2], Vec<u8>);

impl Parts {
    fn new(page: usize) -> Parts {
        let cut = Cut::new(page);
        let words = usize::from(cut.words);
        let mut parts = Parts(cut, [7; 7], [vec![7; words], vec![7; words]], vec![9; words]);
        parts.map().init();
        parts
    }

    fn map(&mut self) -> Map<'_> {
        let [used, first] = &mut self.2;
        Map::new(self.0, &mut self.1, used, first, &mut self.3)
    }

    fn is_empty(&mut self) -> bool {
        self.map().class() == self.0.whole()
    }
}

/// A page, byte by byte: which objects there are.
#[derive(Default)]
struct Model(BTreeMap<usize, usize>);

impl Model {
    fn is_free(&self, from: usize, bytes: usize) -> bool {
        let before = self.0.range(..from + bytes).next_back();
        before.is_none_or(|(start, size)| start + size <= from)
    }

    /// Whether there is a free block of that size at a multiple of itself.
    fn has_block(&self, page: usize, block: usize) -> bool {
        block <= page && (0..page).step_by(block).any(|at| self.is_free(at, block))
    }
}

fn below(rng: &mut Rng, limit: usize) -> usize {
    rng.below(limit as u64) as usize
}

fn sizes(rng: &mut Rng, page: usize) -> (usize, usize) {
    let size = match below(rng, 10) {
        0 => 1 + below(rng, page),
        1..4 => 1 + below(rng, page / 8),
        _ => 1 + below(rng, 100),
    };
    let align = 1 << below(rng, page.ilog2() as usize + 1);
    (size, if below(rng, 4) == 0 { align } else { align.min(64) })
}

#[test]
fn a_map_does_what_a_list_of_objects_does() {
    let mut rng = Rng::new();
    for (page, granule) in [(1024, 8), (4096, 8), (32768, 8), (65536, 16), (1 << 21, 512)] {
        let (mut parts, mut model) = (Parts::new(page), Model::default());
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut map = parts.map();
            if below(&mut rng, 100) < 55 {
                let (size, align) = sizes(&mut rng, page);
                let wanted = Wanted::new(size, align, page).unwrap();
                let bytes = size.next_multiple_of(granule);
                match map.alloc(wanted) {
                    Some(at) => {
                        assert!(
                            at.is_multiple_of(align) && at + bytes <= page,
                            "{size} {align} {at}"
                        );
                        assert!(model.is_free(at, bytes), "{size} at {at} is in use");
                        model.0.insert(at, bytes);
                        taken += 1;
                    }
                    None => {
                        let block = size.max(align).max(granule).next_power_of_two();
                        assert!(!model.has_block(page, block), "there was room for {size} {align}");
                        refused += 1;
                    }
                }
            } else if let Some((&at, &bytes)) = model.0.range(below(&mut rng, page)..).next() {
                assert_eq!(map.free(at), Ok(bytes));
                model.0.remove(&at);
                assert_eq!(map.free(at), Err(NotAllocated::Free));
            }
            // Any address at all.
            let at = below(&mut rng, page);
            let there =
                model.0.range(..=at).next_back().filter(|(start, size)| *start + *size > at);
            let expected = match there {
                Some((&start, &bytes)) if start == at => Ok(bytes),
                Some((&start, _)) => Err(NotAllocated::Inside(start)),
                None => Err(NotAllocated::Free),
            };
            assert_eq!(map.find(at), expected, "{at}");
            if expected.is_err() {
                assert_eq!(map.free(at), expected);
            }
            assert!(map.is_consistent());
            assert_eq!(parts.is_empty(), model.0.is_empty());
        }
        assert!(taken > 1000 && refused > 10, "{taken} {refused}");
        for at in model.0.into_keys() {
            parts.map().free(at).unwrap();
        }
        assert!(parts.is_empty());
    }
}

#[test]
fn objects_that_are_no_power_of_two_lie_side_by_side() {
    let mut parts = Parts::new(4096);
    let wanted = Wanted::new(40, 8, 4096).unwrap();
    let got: Vec<_> = (0..12).map(|_| parts.map().alloc(wanted).unwrap()).collect();
    assert_eq!(got, (0..12).map(|n| n * 40).collect::<Vec<_>>());
    let all = std::iter::from_fn(|| parts.map().alloc(wanted)).count();
    // Twelve in each of the eight words, and 32 bytes left of 512 in each.
    assert_eq!(all, 7 * 12);
}

#[test]
fn what_cannot_be_is_refused() {
    for (size, align) in [(0, 8), (4097, 8), (8, 3), (8, 0), (8, 8192), (usize::MAX, 8)] {
        assert!(Wanted::new(size, align, 4096).is_none(), "{size} {align}");
    }
    let mut parts = Parts::new(4096);
    let page = Wanted::new(4096, 4096, 4096).unwrap();
    assert_eq!(parts.map().alloc(page), Some(0));
    assert_eq!(parts.map().alloc(Wanted::new(1, 1, 4096).unwrap()), None);
    assert_eq!(parts.map().free(8), Err(NotAllocated::Inside(0)));
    assert_eq!(parts.map().free(0), Ok(4096));
    // The alignment alone may be a page.
    assert_eq!(parts.map().alloc(Wanted::new(8, 1, 4096).unwrap()), Some(0));
    assert_eq!(parts.map().alloc(Wanted::new(8, 4096, 4096).unwrap()), None);
}

/// Takes bits out of a map behind its back: the check finds each.
#[test]
fn the_check_finds_what_does_not_agree() {
    let mut parts = Parts::new(4096);
    for size in [8, 100, 600] {
        parts.map().alloc(Wanted::new(size, 8, 4096).unwrap()).unwrap();
    }
    assert!(parts.map().is_consistent());
    for (word, bit) in [(0, 63), (1, 0)] {
        for change in 0..4 {
            let mut wrong = Parts(parts.0, parts.1, parts.2.clone(), parts.3.clone());
            match change {
                0 => wrong.2[0][word] ^= 1,
                1 => wrong.2[1][word] ^= 1 << bit,
                2 => wrong.1[word] ^= 1,
                _ => wrong.3[word] ^= 1,
            }
            assert!(!wrong.map().is_consistent(), "word {word}, change {change}");
        }
    }
}

/// The memory of a chunk, which nobody but its lists touches.
struct Room(Vec<u64>);

fn chunk(rooms: &mut Vec<Room>, page: usize) -> NonNull<Chunk> {
    let cpus = 3;
    let mut room = Room(vec![u64::MAX; Chunk::bytes(cpus, page).div_ceil(8)]);
    let memory = NonNull::new(room.0.as_mut_ptr().cast::<u8>()).unwrap();
    let number = rooms.len();
    rooms.push(room);
    // Addresses of pages that nobody reads.
    let base = |cpu: CpuId| {
        let address = (number * cpus as usize + cpu.index() + 1) * page;
        NonNull::new(std::ptr::without_provenance_mut(address)).unwrap()
    };
    // SAFETY: the room is as large as it says, and stays where it is.
    unsafe { Chunk::init(memory, cpus, page, base) }
}

#[test]
fn chunks_are_used_up_before_new_ones_and_go_when_they_are_empty() {
    let mut rng = Rng::new();
    let page = 4096;
    let mut rooms = Vec::new();
    let mut chunks = Chunks::new();
    // By address: the chunk and the size of each object, and how many each chunk has.
    let mut held: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut all: HashMap<usize, usize> = HashMap::new();
    let (mut grown, mut gone) = (0, 0);
    for step in 0..60_000 {
        // Waves, so that chunks come and go.
        let more = if step / 4000 % 2 == 0 { 60 } else { 40 };
        if below(&mut rng, 100) < more {
            let (size, align) = sizes(&mut rng, page);
            let wanted = Wanted::new(size, align, page).unwrap();
            let memory = chunks.alloc(wanted).unwrap_or_else(|| {
                grown += 1;
                let new = chunk(&mut rooms, page);
                all.insert(new.as_ptr().addr(), 0);
                // SAFETY: just made; its room stays.
                unsafe { chunks.insert(new) };
                chunks.alloc(wanted).expect("a new chunk has room for all that may be asked")
            });
            // SAFETY: the memory is a chunk's header before its bases.
            let of = unsafe { memory.bases.cast::<Chunk>().sub(1) };
            // SAFETY: the chunk is there.
            assert_eq!(unsafe { Chunk::memory(of, memory.offset) }.bases, memory.bases);
            let key = (of.as_ptr().addr(), memory.offset);
            assert_eq!(held.insert(key, size.next_multiple_of(8)), None, "handed out twice");
            *all.get_mut(&key.0).expect("it is one of the chunks") += 1;
            // SAFETY: the chunk is there.
            let bases = unsafe { Chunk::bases(of) };
            assert_eq!(bases.len(), 3);
            // SAFETY: it has three CPUs.
            let copy = unsafe { memory.copy(CpuId::new(2).unwrap()) };
            assert_eq!(copy.as_ptr().addr(), bases[2].as_ptr().addr() + memory.offset);
        } else if !held.is_empty() {
            let key = *held.keys().nth(below(&mut rng, held.len())).unwrap();
            held.remove(&key);
            let at = NonNull::new(std::ptr::with_exposed_provenance_mut(key.0)).unwrap();
            let at: NonNull<Chunk> = rooms
                .iter_mut()
                .map(|room| NonNull::new(room.0.as_mut_ptr().cast::<Chunk>()).unwrap())
                .find(|room| *room == at)
                .unwrap();
            // SAFETY: the chunk is there.
            let spare = unsafe { chunks.free(at, key.1) }.unwrap();
            *all.get_mut(&key.0).unwrap() -= 1;
            if let Some(spare) = spare {
                assert_eq!(spare, at);
                assert_eq!(all.remove(&key.0), Some(0), "it is empty");
                gone += 1;
            }
        }
        assert!(all.values().filter(|count| **count == 0).count() <= 1, "one empty chunk stays");
        if step % 64 == 0 {
            assert!(chunks.is_consistent());
        }
        let bytes: usize = if step % 64 == 0 { held.values().sum() } else { continue };
        assert_eq!(chunks.counts(), (all.len() as u64, held.len() as u64, bytes as u64));
    }
    assert!(grown > 20 && gone > 10, "{grown} {gone}");
}

#[test]
fn the_fullest_chunk_serves_and_an_empty_one_last() {
    let mut rooms = Vec::new();
    let mut chunks = Chunks::new();
    let [one, two] = [chunk(&mut rooms, 4096), chunk(&mut rooms, 4096)];
    for chunk in [one, two] {
        // SAFETY: just made; their rooms stay.
        unsafe { chunks.insert(chunk) };
    }
    let wanted = |size| Wanted::new(size, 8, 4096).unwrap();
    let of = |memory: super::Memory| memory.bases;
    let first = chunks.alloc(wanted(8)).unwrap();
    for size in [8, 100, 2000] {
        assert_eq!(of(chunks.alloc(wanted(size)).unwrap()), of(first), "{size}");
    }
    assert_ne!(of(chunks.alloc(wanted(4096)).unwrap()), of(first));
    assert!(chunks.alloc(wanted(4096)).is_none());
    assert!(chunks.take_empty().is_none(), "both are in use");
    assert!(chunks.is_consistent());
}

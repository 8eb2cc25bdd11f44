//! What CPUs share, under every interleaving that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p kmem --release --lib models`

use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::leaving::{Acknowledged, Departures, Visitors};
use crate::object_state::{ObjectState, State};
use crate::page::{Block, Descriptor, Mark, PageFlags, Place};
use crate::platform::{Context, Cpus};
use crate::sync::{Aside, CpuSection, SpinLock, ZoneLevel};
use crate::{CpuId, Order};

/// CPUs without interrupts that wait by letting the others run.
struct Threads;

// SAFETY: the tests give each number to one thread, and nothing interrupts a thread.
unsafe impl Cpus for Threads {
    fn pin(&self) {}

    fn unpin(&self) {}

    fn current(&self) -> CpuId {
        CpuId::BOOT
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

// SAFETY: there are no interrupts.
unsafe impl Context for Threads {
    type Saved = ();

    fn mask(&self) {}

    fn restore(&self, (): ()) {}

    fn in_atomic(&self) -> bool {
        false
    }

    fn in_nmi(&self) -> bool {
        false
    }
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// The checker's cell: it finds out by itself where two threads are at the value at once, or where
/// one does not see what the other wrote.
struct Counted(UnsafeCell<u32>);

// SAFETY: the lock under test is around it.
unsafe impl Send for Counted {}

impl Counted {
    fn add(&mut self) -> u32 {
        self.0.with_mut(|count| {
            // SAFETY: the checker proves that nobody else is at it.
            unsafe {
                *count += 1;
                *count
            }
        })
    }
}

/// One at a time, and each sees what the one before wrote.
#[test]
fn a_spin_lock_lets_in_one_at_a_time() {
    loom::model(|| {
        let lock = Arc::new(SpinLock::<ZoneLevel, _>::new(Counted(UnsafeCell::new(0))));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let lock = lock.clone();
                thread::spawn(move || {
                    lock.lock(&Threads).add();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(lock.lock(&Threads).add(), 3);
    });
}

/// Who does not wait gets in or not; where in, then alone and seeing what was written before.
#[test]
fn a_spin_lock_that_is_tried_lets_in_one_at_a_time() {
    loom::model(|| {
        let lock = Arc::new(SpinLock::<ZoneLevel, _>::new(Counted(UnsafeCell::new(0))));
        let tries = {
            let lock = lock.clone();
            thread::spawn(move || lock.try_lock(&Threads).map(|mut value| value.add()).is_some())
        };
        let waits = {
            let lock = lock.clone();
            thread::spawn(move || lock.lock(&Threads).add())
        };
        let (tried, waited) = (tries.join().unwrap(), waits.join().unwrap());
        assert!(waited <= 1 + u32::from(tried));
        assert_eq!(lock.lock(&Threads).add(), 2 + u32::from(tried));
    });
}

/// Two put frames aside while one takes what is there: each is found, or known to be somewhere.
#[test]
fn no_frame_that_is_put_aside_is_lost() {
    loom::model(|| {
        let aside = Arc::new(Aside::<1>::new());
        let threads: Vec<_> = (0..2)
            .map(|frame| {
                let aside = aside.clone();
                thread::spawn(move || aside.put(frame))
            })
            .collect();
        let mut found = [false; 2];
        let mut all = false;
        let mut take = || {
            if !aside.is_empty() {
                all |= aside.take(|frame| found[frame as usize] = true);
            }
        };
        take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        take();
        assert!(aside.is_empty());
        assert!(all || found == [true; 2], "{found:?}");
    });
}

/// What `__free_pages` does on a CPU's own list, without the list: looks, then marks. Answers
/// whether it put the block on the CPU's list.
fn free(mark: &Mark, cpu: CpuId) -> bool {
    let held = mark.is_held();
    if held {
        mark.set_on_lists(cpu);
    }
    held
}

/// What `alloc_pages` does with an entry of the CPU's own list. Answers whether the block may be
/// handed out.
fn take(mark: &Mark, cpu: CpuId) -> bool {
    let own = mark.is_on_lists_of(cpu);
    if own {
        mark.set_held();
    }
    own
}

/// Two CPUs free one block at one moment. When both have, each takes its entry: one of them may hand
/// the block out, and never both.
///
/// A062, A063
#[test]
fn of_two_frees_at_one_moment_one_is_good() {
    loom::model(|| {
        let mark = Arc::new(Mark::new());
        let other = {
            let mark = mark.clone();
            thread::spawn(move || free(&mark, cpu(1)))
        };
        let here = free(&mark, cpu(0));
        let there = other.join().unwrap();
        assert!(here || there, "both frees were refused");
        // From here on both see all that was written: as CPUs do that allocate later.
        let wins = u32::from(here && take(&mark, cpu(0))) + u32::from(there && take(&mark, cpu(1)));
        assert_eq!(wins, 1);
    });
}

/// The same, while the two CPUs take their entries at one moment too.
///
/// A062, A063
#[test]
fn of_two_entries_that_are_taken_at_one_moment_one_is_good() {
    loom::model(|| {
        let mark = Arc::new(Mark::new());
        let other = {
            let mark = mark.clone();
            thread::spawn(move || free(&mark, cpu(1)))
        };
        let here = free(&mark, cpu(0));
        let there = other.join().unwrap();
        let other = {
            let mark = mark.clone();
            thread::spawn(move || there && take(&mark, cpu(1)))
        };
        let here = here && take(&mark, cpu(0));
        let there = other.join().unwrap();
        assert!(here != there, "handed out {} times", u32::from(here) + u32::from(there));
    });
}

/// A late free has left an entry on CPU 1's list, and its number in the mark, of a block that is free.
/// CPU 0 takes the block from the zone, by way of its list or not, while CPU 1 takes its entry: the
/// entry is not good.
///
/// A062, A063
#[test]
fn a_block_that_leaves_the_zone_is_not_handed_out_for_a_spoilt_mark() {
    for through_list in [false, true] {
        loom::model(move || {
            let block = Arc::new(Descriptor::new());
            block.mark().set_on_lists(cpu(1));
            block.set_block(Block::Free(Order::ZERO));
            let entry = {
                let block = block.clone();
                thread::spawn(move || block.is_on_lists(Order::ZERO, cpu(1)))
            };
            if through_list {
                block.hand_to_lists(Order::ZERO, cpu(0));
                assert!(block.is_on_lists(Order::ZERO, cpu(0)));
                block.mark().set_held();
            } else {
                block.hand_out(Order::ZERO);
            }
            assert!(!entry.join().unwrap(), "handed out twice");
        });
    }
}

/// A second free that follows the first sees it.
///
/// A062
#[test]
fn a_free_that_follows_another_is_refused() {
    loom::model(|| {
        let mark = Arc::new(Mark::new());
        assert!(free(&mark, cpu(0)));
        let later = mark.clone();
        assert!(!thread::spawn(move || free(&later, cpu(1))).join().unwrap());
    });
}

/// What `Zone::give` does in an NMI handler that finds the lock taken.
fn put_aside(block: &(Descriptor, Aside<1>)) {
    if block.0.mark().put_aside() {
        block.1.put(0);
    }
}

/// What the next holder of the lock does. Answers how often it freed the block.
fn free_put_aside(block: &(Descriptor, Aside<1>)) -> u32 {
    let mut freed = 0;
    let mut look = |_| {
        if block.0.place() == Place::PutAside {
            block.0.mark().set_held();
            freed += 1;
        }
    };
    if !block.1.is_empty() && block.1.take(&mut look) {
        look(0);
    }
    freed
}

/// Two NMI handlers put one block aside at one moment: it is freed once.
#[test]
fn a_block_is_put_aside_once() {
    loom::model(|| {
        let block = Arc::new((Descriptor::new(), Aside::<1>::new()));
        let other = {
            let block = block.clone();
            thread::spawn(move || put_aside(&block))
        };
        put_aside(&block);
        other.join().unwrap();
        assert_eq!(block.0.place(), Place::PutAside);
        assert_eq!(free_put_aside(&block), 1);
    });
}

/// A block that is put aside again while an earlier name of it is looked at is freed by that look or
/// the next: never both, never neither.
#[test]
fn a_block_that_is_put_aside_meanwhile_is_freed_once() {
    loom::model(|| {
        let block = Arc::new((Descriptor::new(), Aside::<1>::new()));
        put_aside(&block);
        // Another CPU freed it at the same moment and handed it out again.
        block.0.mark().set_held();
        let nmi = {
            let block = block.clone();
            thread::spawn(move || put_aside(&block))
        };
        let early = free_put_aside(&block);
        nmi.join().unwrap();
        let late = free_put_aside(&block);
        assert_eq!(early + late, 1);
    });
}

/// Of those who drop references one is the last, and sees what the others did to the page.
///
/// A007, A008
#[test]
fn the_last_of_the_references_sees_what_the_others_did() {
    struct Shared(Descriptor, [UnsafeCell<u32>; 2]);
    // SAFETY: each holder writes its own cell; the checker watches who reads them.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}
    loom::model(|| {
        let page = Shared(Descriptor::new(), [UnsafeCell::new(0), UnsafeCell::new(0)]);
        page.0.hand_out(Order::ZERO);
        assert!(page.0.increment_count());
        let page = Arc::new(page);
        let drop_one = |page: &Shared, who: usize| {
            // SAFETY: a holder's own cell; the checker watches.
            page.1[who].with_mut(|cell| unsafe { *cell = 1 });
            let last = page.0.decrement_count() == Some(0);
            if last {
                for cell in &page.1 {
                    // SAFETY: nobody else holds the page any more; the checker watches.
                    cell.with(|cell| assert_eq!(unsafe { *cell }, 1));
                }
            }
            last
        };
        let other = {
            let page = page.clone();
            thread::spawn(move || drop_one(&page, 1))
        };
        let here = drop_one(&page, 0);
        assert!(here != other.join().unwrap(), "one of them is the last");
        assert_eq!(page.0.decrement_count(), None);
    });
}

/// States that two CPUs change at one moment do not undo each other.
///
/// A006
#[test]
fn states_set_at_one_moment_are_all_there() {
    loom::model(|| {
        let page = Arc::new(Descriptor::new());
        page.set(PageFlags::Locked);
        let other = {
            let page = page.clone();
            thread::spawn(move || page.set(PageFlags::Dirty))
        };
        assert!(page.clear(PageFlags::Locked));
        assert!(!other.join().unwrap());
        assert!(page.has(PageFlags::Dirty) && !page.has(PageFlags::Locked));
    });
}

/// A request is seen by its CPU at its next look, or later; with it, what was written before.
#[test]
fn a_request_to_a_section_is_not_lost() {
    struct Wish(UnsafeCell<u32>);
    // SAFETY: the request under test says who may look.
    unsafe impl Send for Wish {}
    // SAFETY: as above.
    unsafe impl Sync for Wish {}
    loom::model(|| {
        let section = Arc::new((CpuSection::new(), Wish(UnsafeCell::new(0))));
        let asker = {
            let section = section.clone();
            thread::spawn(move || {
                // SAFETY: nobody looks before the request; the checker watches.
                section.1.0.with_mut(|wish| unsafe { *wish = 1 });
                section.0.request();
            })
        };
        let look = || {
            // SAFETY: this thread is the section's CPU.
            let entered = unsafe { section.0.enter() };
            let taken = entered.is_some() && section.0.take_request();
            if taken {
                // SAFETY: the request was taken; the checker watches.
                section.1.0.with(|wish| assert_eq!(unsafe { *wish }, 1));
            }
            taken
        };
        let early = look();
        asker.join().unwrap();
        let late = look();
        assert!(early != late, "a request was lost, or taken twice");
        assert!(!section.0.is_requested());
    });
}

/// The object's byte, and the state of an object in the magazine of a CPU.
fn object(state: State) -> Arc<ObjectState> {
    Arc::new(ObjectState::new(state))
}

fn of(number: u32) -> State {
    State::of(cpu(number)).unwrap()
}

/// As a free does, once it has looked at the object.
fn free_object(byte: &ObjectState, magazine: State) -> bool {
    let held = byte.get() == State::HELD;
    if held {
        byte.set(magazine);
    }
    held
}

/// As an allocation does with an entry of its CPU's magazine: whether the object is handed out.
fn take_object(byte: &ObjectState, magazine: State) -> bool {
    let there = byte.get() == magazine;
    if there {
        byte.set(State::HELD);
    }
    there
}

/// Of two CPUs that free one object at one moment, one has an entry that is good; so have they when
/// they take their entries at one moment.
#[test]
fn of_two_frees_of_an_object_at_one_moment_one_is_good() {
    loom::model(|| {
        let byte = object(State::HELD);
        let frees = [1, 2].map(|number| {
            let byte = byte.clone();
            thread::spawn(move || free_object(&byte, of(number)))
        });
        let entries = frees.map(|free| free.join().unwrap());
        let takes = [1, 2].map(|number| {
            let byte = byte.clone();
            let entry = entries[number as usize - 1];
            thread::spawn(move || entry && take_object(&byte, of(number)))
        });
        let handed_out = takes.map(|take| take.join().unwrap());
        assert_eq!(handed_out.iter().filter(|out| **out).count(), 1, "{entries:?}");
    });
}

/// A free that comes late, of a CPU that had looked at the object before another one freed it, meets
/// it on its way: into the depot or its slab, or out of there into a magazine. It is handed out once.
#[test]
fn an_object_that_is_freed_late_is_handed_out_once() {
    let ways =
        [(of(1), State::DEPOT), (of(1), State::FREE), (State::DEPOT, of(1)), (State::FREE, of(1))];
    for (from, to) in ways {
        loom::model(move || {
            let byte = object(from);
            let late = {
                let byte = byte.clone();
                thread::spawn(move || {
                    byte.set(of(2));
                    take_object(&byte, of(2))
                })
            };
            let mut entry = byte.change(from, to);
            let by_late = late.join().unwrap();
            if entry && to != of(1) {
                // It leaves the depot, or its slab, again.
                entry = byte.change(to, of(1));
            }
            let by_other = entry && take_object(&byte, of(1));
            assert!(!(by_late && by_other));
        });
    }
}

/// A slab with one object, and its pages, which its byte lies in: the checker finds out where somebody is
/// at them when they are somebody else's.
struct Slab {
    frame: Descriptor,
    byte: ObjectState,
    pages: UnsafeCell<()>,
    departures: Departures,
    acknowledged: Acknowledged,
    visitors: Visitors,
}

// SAFETY: the checker watches the pages; the rest is atomics.
unsafe impl Sync for Slab {}
// SAFETY: as above.
unsafe impl Send for Slab {}

impl Slab {
    fn new() -> Arc<Slab> {
        let frame = Descriptor::new();
        frame.set(PageFlags::Objects);
        Arc::new(Slab {
            frame,
            byte: ObjectState::new(State::HELD),
            pages: UnsafeCell::new(()),
            departures: Departures::new(),
            acknowledged: Acknowledged::new(0),
            visitors: Visitors::new(),
        })
    }

    /// What is done to the byte is done to the pages.
    fn byte<T>(&self, at: impl FnOnce(&ObjectState) -> T) -> T {
        self.pages.with(|_| at(&self.byte))
    }

    /// The pages are somebody else's from here on, who writes to them.
    fn free_pages(&self) {
        self.pages.with_mut(|_| ());
    }
}

/// CPU 0 frees an object, and its slab goes, as far as CPU 1 has acknowledged that. CPU 1, which had the
/// object too, frees it at the same moment, comes by, and frees it once more.
///
/// A148, A186
#[test]
fn a_slab_goes_when_the_cpus_have_acknowledged_its_departure() {
    for acknowledges in [1, 2] {
        loom::model(move || {
            let slab = Slab::new();
            let other = {
                let slab = slab.clone();
                thread::spawn(move || {
                    let mut entry = false;
                    let mut free = |entry: &mut bool| {
                        let marked = slab.frame.slab_in_use(slab.frame.slab_word()).is_some();
                        if marked && slab.byte(|byte| free_object(byte, of(1))) {
                            *entry = true;
                        }
                    };
                    free(&mut entry);
                    for _ in 0..acknowledges {
                        let announced = slab.departures.announced();
                        if core::mem::take(&mut entry) {
                            // Back to the slab, if the byte says that it is here.
                            slab.byte(|byte| byte.change(of(1), State::FREE));
                        }
                        slab.acknowledged.set(announced);
                    }
                    free(&mut entry);
                })
            };
            if slab.byte(|byte| free_object(byte, of(0))) {
                slab.byte(|byte| byte.change(of(0), State::FREE));
            }
            slab.frame.set(PageFlags::Leaving);
            let departure = slab.departures.announce();
            if slab.acknowledged.get() >= departure && slab.byte(|byte| byte.get() == State::FREE) {
                slab.free_pages();
            }
            other.join().unwrap();
        });
    }
}

/// A slab goes while an NMI handler, on a CPU without magazines, puts its object aside: it has, and then
/// the slab stays, or it sees that there is no slab any more.
///
/// A163, A186
#[test]
fn a_slab_goes_when_no_nmi_handler_is_at_its_objects() {
    for state in [State::HELD, State::FREE] {
        loom::model(move || {
            let slab = Slab::new();
            slab.byte.set(state);
            let handler = {
                let slab = slab.clone();
                thread::spawn(move || {
                    slab.visitors.visit(|| {
                        slab.frame.has(PageFlags::Objects)
                            && slab.byte(|byte| byte.change(State::HELD, State::ASIDE))
                    })
                })
            };
            if state == State::HELD {
                // The other of two frees at one moment.
                slab.byte(|byte| byte.change(State::HELD, State::FREE));
            }
            slab.frame.clear(PageFlags::Objects);
            slab.visitors.wait(thread::yield_now);
            let goes = slab.byte(|byte| byte.get() == State::FREE);
            if goes {
                slab.free_pages();
            }
            assert!(handler.join().unwrap() != goes);
        });
    }
}

/// A CPU meets a request to drain when slabs are marked, and it is asked again: it has acknowledged the
/// departure, or knows that it was asked.
#[test]
fn a_request_to_drain_that_comes_meanwhile_is_not_lost() {
    loom::model(|| {
        let slab = Arc::new((CpuSection::new(), Departures::new()));
        slab.0.request();
        let drains = {
            let slab = slab.clone();
            thread::spawn(move || {
                let acknowledged = Acknowledged::new(0);
                if slab.0.take_request() {
                    acknowledged.set(slab.1.announced());
                }
                acknowledged.get()
            })
        };
        let departure = slab.1.announce();
        slab.0.request();
        let acknowledged = drains.join().unwrap();
        assert!(acknowledged >= departure || slab.0.is_requested());
    });
}

//! Looking at all objects of a cache.

use super::node::NodeSlabs;
use super::shared::Shared;
use super::state::State;
use crate::platform::{Caller, Overwritten, Platform};

/// What a look at all objects of a cache found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validated {
    /// How many objects the cache has; of one that is debugged all were looked at.
    pub objects: u64,
    /// With how many something was wrong: each was reported.
    pub wrong: u64,
    /// How many slabs have a record that contradicts itself.
    pub records: u64,
}

impl NodeSlabs {
    /// Looks at all objects of the slabs: those that are free, and around those that are not. Under
    /// the node's lock.
    pub(crate) fn validate<P: Platform>(
        &self,
        of: Shared<'_, P>,
        mut wrong: impl FnMut(Overwritten),
    ) -> Validated {
        let mut done = Validated::default();
        let Some(inner) = self.locked(of) else { return done };
        for (head, record) in inner.lists.all(of.map) {
            done.records += u64::from(!record.is_consistent());
            let first = of.first(head, of.map.at(head).slab().colour);
            for object in 0..record.objects() {
                let address = of.entry(first, record, object).object;
                let state = record.state(object).get();
                let is_free = state == State::FREE || state == State::DEPOT;
                let right = !is_free && state != State::HELD
                    || of.look_at(record, object, address, is_free, state, &mut wrong);
                done.objects += 1;
                done.wrong += u64::from(!right);
            }
        }
        done
    }

    /// Calls `look` for each object of a cache that keeps owners, that is with a caller, and whose
    /// owner is known: the object, how many bytes were asked for, and the owner. Under the node's lock.
    pub(crate) fn each_owned<P: Platform>(
        &self,
        of: Shared<'_, P>,
        mut look: impl FnMut(usize, u32, Caller),
    ) {
        let Some(inner) = self.locked(of) else { return };
        for (head, record) in inner.lists.in_use(of.map) {
            let first = of.first(head, of.map.at(head).slab().colour);
            for object in 0..record.objects() {
                if record.state(object).get() != State::HELD {
                    continue;
                }
                // SAFETY: records of caches that keep owners have tracks.
                let track = unsafe { record.track(object) };
                if let (Some(owner), _) = track.owners() {
                    look(of.entry(first, record, object).object, track.asked(), owner);
                }
            }
        }
    }
}

//! Caches that are debugged: looking at all of their objects, and at who has them.

use core::panic::Location;

use super::super::Mm;
use super::super::tables::Tables;
use super::create::CacheError;
use crate::platform::{
    Caller, Level, Misuse, MisuseKind, Overwritten, Passed, Pinned, Platform, There,
};
use crate::reclaim::Reclaim;
use crate::slab::{CacheId, CacheName, Validated};
use crate::{CacheFlags, VirtAddr};

/// An object with a caller, of a cache that keeps owners ([`CacheFlags::STORE_USER`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its cache.
    pub cache: CacheName,
    /// Its address.
    pub object: VirtAddr,
    /// How many bytes were asked for.
    pub asked: u32,
    /// Who allocated it.
    pub caller: Caller,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Looks at all objects of a cache: whether those that are free, and the zones around the others,
    /// are as they were left. What is not is reported to
    /// [`Hooks::misuse`](crate::platform::Hooks::misuse), and put right.
    ///
    /// Of a cache that is not debugged ([`CacheFlags::DEBUG`]) only the records of its slabs are looked
    /// at.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoSuchCache`], [`CacheError::NotBooted`].
    ///
    /// # Context
    ///
    /// Any but NMI; does not sleep. Cost: all bytes of all free objects, with the lock of a node held:
    /// for people who look for a bug.
    #[track_caller]
    pub fn kmem_cache_validate(&self, id: CacheId) -> Result<Validated, CacheError> {
        let site = Location::caller();
        let tables = self.tables().ok_or(CacheError::NotBooted)?;
        let none = CacheError::NoSuchCache;
        let cache = tables.cache(id).and_then(|cache| cache.pin()).ok_or(none)?;
        let kind = cache.kind();
        let of = self.shared(tables, kind);
        let mut all = Validated::default();
        for slabs in cache.nodes() {
            let node = slabs.validate(of, |wrong| self.report_overwritten(wrong, site));
            all.objects += node.objects;
            all.wrong += node.wrong;
            all.records += node.records;
        }
        Ok(all)
    }

    /// Calls `look` for each object that is with a caller and whose owner is known (A162): of caches
    /// with [`CacheFlags::STORE_USER`].
    ///
    /// `look` is called with a lock held: it must not call the manager. Any context but NMI.
    pub fn each_owned(&self, mut look: impl FnMut(&Owned)) {
        let Some(tables) = self.tables() else { return };
        for place in tables.caches() {
            let Some(cache) = place.pin() else { continue };
            let kind = cache.kind();
            if !keeps_owners(kind.flags) {
                continue;
            }
            let of = self.shared(tables, kind);
            for slabs in cache.nodes() {
                slabs.each_owned(of, |object, asked, caller| {
                    let object = VirtAddr::new(object);
                    look(&Owned { cache: kind.name, object, asked, caller });
                });
            }
        }
    }

    /// A call, for a cache that keeps who makes it.
    pub(super) fn caller(&self, site: &'static Location<'static>) -> Caller {
        let pinned = Pinned::new(&self.platform);
        Caller { site, cpu: pinned.cpu(), time: self.platform.now() }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn report_overwritten(&self, wrong: Overwritten, site: &'static Location<'static>) {
        let (kind, there) = (MisuseKind::Overwritten, There::Overwritten(wrong));
        self.report(&Misuse { kind, passed: Passed::Object(wrong.object), there, site });
    }

    /// Says in the log who had an object with which something is wrong, where that is known.
    pub(super) fn log_owners(&self, tables: &Tables, address: usize) {
        let Ok(found) = self.find_object(tables, address) else { return };
        if !keeps_owners(found.kind().flags) {
            return;
        }
        let (allocated, freed) = found.seen.owners;
        let object = VirtAddr::new(address);
        let log = |what, owner| {
            let name = found.kind().name;
            let message =
                format_args!("the object of cache {name} at {object} was {what} at {owner}");
            self.platform.log(Level::Error, message);
        };
        if let Some(owner) = allocated {
            log("allocated", owner);
        }
        if let Some(owner) = freed {
            log("freed", owner);
        }
    }
}

fn keeps_owners(flags: CacheFlags) -> bool {
    flags.contains(CacheFlags::STORE_USER)
}

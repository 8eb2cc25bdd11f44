//! Caches, by hand.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kmem::platform::DirectMap;
use kmem::{CacheError, CacheFlags, CacheId, GFP_KERNEL};

use super::objects::{OwnCache, address, free_wrongly, pointer};
use super::pages::gfp;
use super::{Command, print, size, usage, word};
use crate::{Count, Failure, Shell, Sink, System, go_on};

pub(super) const fn cache<S: System>() -> Command<S> {
    Command {
        name: "cache",
        usage: "cache create|alloc|free|destroy|shrink|validate|list [ARGUMENT]...",
        about: "make a cache, take objects of it and give them back\n\
                cache create NAME SIZE [align=BYTES] [FLAG]...    make a cache\n\
                cache alloc NAME [COUNT [FLAGS]]                  take objects and hold them\n\
                cache free NAME ADDRESS|all                       give objects back\n\
                cache destroy NAME                                end a cache with no object in use\n\
                cache list                                        the caches that were made here\n\
                cache shrink NAME|all                             give the pages of empty slabs back\n\
                cache validate NAME|all                           look for overwritten bytes\n\
                shrink and validate take any cache of the machine, such as kmalloc-64; `validate all`\n\
                looks at those that were made here. The others take these alone.\n\
                FLAG is hwalign (objects begin at cache lines), dma, reclaim (the pages count as\n\
                reclaimable), noreap (`cache shrink all` passes it over) or panic (creation must not\n\
                fail); and to find bugs poison (free objects have known bytes), redzone (and so has\n\
                what is beside objects), owner (who took and freed an object is kept) or quarantine\n\
                (freed objects are not used again at once). `slabtop` shows all caches.",
        example: "cache create dogs 100 hwalign",
        run: run_cache,
    }
}

fn run_cache<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["create", name, size, ref more @ ..] => create(shell, name, size, more),
        ["alloc", name] => alloc(shell, name, "1", None, out),
        ["alloc", name, count] => alloc(shell, name, count, None, out),
        ["alloc", name, count, flags] => alloc(shell, name, count, Some(flags), out),
        ["free", name, what] => free(shell, name, what),
        ["destroy", name] => destroy(shell, name),
        ["shrink", name] => shrink(shell, name, out),
        ["validate", name] => validate(shell, name, out),
        ["list"] => list(shell, out),
        _ => Err(usage(&cache::<S>())),
    }
}

/// The words for flags.
const FLAGS: [(&str, CacheFlags); 9] = [
    ("hwalign", CacheFlags::HWCACHE_ALIGN),
    ("dma", CacheFlags::CACHE_DMA),
    ("reclaim", CacheFlags::RECLAIM_ACCOUNT),
    ("noreap", CacheFlags::NO_REAP),
    ("panic", CacheFlags::PANIC),
    ("poison", CacheFlags::POISON),
    ("redzone", CacheFlags::RED_ZONE),
    ("owner", CacheFlags::STORE_USER),
    ("quarantine", CacheFlags::QUARANTINE),
];

fn create<S: System>(
    shell: &mut Shell<'_, S>,
    name: &str,
    asked: &str,
    more: &[&str],
) -> Result<(), Failure> {
    let bytes = size(asked)?;
    let (mut align, mut flags) = (0, CacheFlags::NONE);
    for option in more {
        match (option.strip_prefix("align="), FLAGS.iter().find(|(name, _)| name == option)) {
            (Some(bytes), _) => align = size(bytes)?,
            (None, Some((_, flag))) => flags |= *flag,
            (None, None) => {
                let flags = FLAGS.map(|(name, _)| name).join(", ");
                let message = format!("'{option}' is no option: there are align=BYTES, {flags}");
                return Err(Failure::Usage(message));
            }
        }
    }
    let made = shell.system.mm().kmem_cache_create(name, bytes, align, flags, None, None);
    let id = made.map_err(|error| match error {
        CacheError::Name(_)
        | CacheError::Size { .. }
        | CacheError::Align(_)
        | CacheError::MapAlign(_) => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })?;
    let new = OwnCache { name: name.into(), id, size: bytes, objects: BTreeSet::new() };
    shell.objects.caches.push(new);
    Ok(())
}

/// The place on the list of a cache that was made here.
fn find<S: System>(shell: &Shell<'_, S>, name: &str) -> Result<usize, Failure> {
    let caches = &shell.objects.caches;
    caches.iter().position(|cache| cache.name == name).ok_or_else(|| {
        let others = shell.system.mm().caches().any(|cache| cache.name.as_str() == name);
        if others {
            let message =
                format!("cache {name} was not made here: only shrink and validate take it");
            Failure::Failed(message)
        } else {
            no_such_cache(name)
        }
    })
}

/// The handle of a cache, whoever made it.
///
/// # Safety
///
/// It is used to shrink and to validate the cache, and for nothing else.
unsafe fn any<S: System>(shell: &Shell<'_, S>, name: &str) -> Result<CacheId, Failure> {
    // SAFETY: the caller's promise.
    unsafe { shell.system.mm().find_cache(name) }.ok_or_else(|| no_such_cache(name))
}

fn no_such_cache(name: &str) -> Failure {
    Failure::Failed(format!("there is no cache {name}: `cache create {name} SIZE` makes it"))
}

/// How many new objects are shown one by one; of more, the first and the last.
const SHOWN: usize = 8;

/// After how many objects the progress is told: they take some milliseconds.
const TOLD: usize = 1 << 14;

fn alloc<S: System>(
    shell: &mut Shell<'_, S>,
    name: &str,
    count: &str,
    flags: Option<&str>,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let count: usize = word(count, "number of objects")?;
    let gfp = flags.map_or(Ok(GFP_KERNEL), gfp)?;
    let index = find(shell, name)?;
    let mm = shell.system.mm();
    // Memory is out after so many at the latest.
    let room = mm.free_page_count() << <S::Platform as DirectMap>::PAGE_SHIFT;
    let total = (count as u64).min(room / shell.objects.caches[index].size as u64);
    let mut new = Vec::new();
    let mut failed = None;
    while new.len() < count && failed.is_none() {
        if new.len() % TOLD == TOLD - 1 {
            shell.system.progress("objects", new.len() as u64, total);
            // What there is so far stays the user's.
            go_on(shell.system)?;
        }
        match mm.kmem_cache_alloc(shell.objects.caches[index].id, gfp) {
            Ok(object) => {
                let address = object.as_ptr().expose_provenance();
                shell.objects.hold(address);
                shell.objects.caches[index].objects.insert(address);
                new.push(address);
            }
            Err(error) => failed = Some(error),
        }
    }
    let got = Count(new.len() as u64, "object");
    match new[..] {
        [first, .., last] if new.len() > SHOWN => {
            print(out, format_args!("{got} from {first:#x} to {last:#x}\n"))?;
        }
        _ => new.iter().try_for_each(|at| print(out, format_args!("address {at:#x}\n")))?,
    }
    match failed {
        None => Ok(()),
        Some(error) => {
            let held = if new.is_empty() { "" } else { "; those are held" };
            Err(Failure::Failed(format!("{got} of {count}{held}: {error}")))
        }
    }
}

fn free<S: System>(shell: &mut Shell<'_, S>, name: &str, what: &str) -> Result<(), Failure> {
    let all = what == "all";
    let address = if all { 0 } else { address(what)? };
    let index = find(shell, name)?;
    let mm = shell.system.mm();
    let id = shell.objects.caches[index].id;
    if !all && !shell.objects.caches[index].objects.contains(&address) {
        // SAFETY: it is refused: the address is no object of the cache that is in use.
        let free = |mm: &kmem::Mm<_, _>| unsafe { mm.kmem_cache_free(id, pointer(address)) };
        return Err(free_wrongly(shell, address, free));
    }
    let one = if all { None } else { Some(address) };
    while let Some(next) = one.or_else(|| shell.objects.caches[index].objects.first().copied()) {
        shell.objects.caches[index].free(mm, next);
        shell.objects.forget(next);
        if one.is_some() {
            break;
        }
    }
    Ok(())
}

fn destroy<S: System>(shell: &mut Shell<'_, S>, name: &str) -> Result<(), Failure> {
    let index = find(shell, name)?;
    // SAFETY: nobody else knows the cache, and the shell does one thing at a time.
    let destroyed = unsafe { shell.system.mm().kmem_cache_destroy(shell.objects.caches[index].id) };
    match destroyed {
        Ok(()) => {
            shell.objects.caches.swap_remove(index);
            Ok(())
        }
        Err(CacheError::InUse(objects)) => Err(Failure::Failed(format!(
            "{name}: still in use: {}; `cache free {name} all` gives all back",
            Count(objects, "object")
        ))),
        Err(error) => Err(Failure::Failed(format!("{name}: {error}"))),
    }
}

fn shrink<S: System>(
    shell: &mut Shell<'_, S>,
    name: &str,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let mm = shell.system.mm();
    let pages = match name {
        "all" => mm.shrink_caches(),
        // SAFETY: the cache is shrunk.
        name => mm.kmem_cache_shrink(unsafe { any(shell, name) }?),
    };
    print(out, format_args!("gave {} back\n", Count(pages, "page")))
}

fn validate<S: System>(
    shell: &mut Shell<'_, S>,
    name: &str,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    if name != "all" {
        // SAFETY: the cache is validated.
        return validate_one(shell, name, unsafe { any(shell, name) }?, out);
    }
    let own = &shell.objects.caches;
    own.iter().try_for_each(|OwnCache { name, id, .. }| validate_one(shell, name, *id, out))
}

fn validate_one<S: System>(
    shell: &Shell<'_, S>,
    name: &str,
    id: CacheId,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let found = shell.system.mm().kmem_cache_validate(id);
    let found = found.map_err(|error| format!("{name}: {error}"))?;
    let objects = Count(found.objects, "object");
    if found.wrong + found.records == 0 {
        return print(out, format_args!("{name}: {objects}, nothing is wrong\n"));
    }
    let records = Count(found.records, "slab record");
    let wrong = format!("{} of {objects} and {records} were overwritten", found.wrong);
    let last = shell.system.last_misuse().unwrap_or_default();
    Err(Failure::Failed(format!("{name}: {wrong}; the latest: {last}")))
}

fn list<S: System>(shell: &Shell<'_, S>, out: &mut dyn Sink) -> Result<(), Failure> {
    print(out, format_args!("{:<31} {:>8} {:>8} FLAGS\n", "NAME", "SIZE", "HELD"))?;
    let infos: Vec<_> = shell.system.mm().caches().collect();
    shell.objects.caches.iter().try_for_each(|cache| {
        let info = infos.iter().find(|info| info.name.as_str() == cache.name);
        let flags = info.map_or(CacheFlags::NONE, |info| info.flags);
        let (name, held) = (&cache.name, cache.objects.len());
        print(out, format_args!("{name:<31} {:>8} {held:>8} {flags}\n", cache.size))
    })
}

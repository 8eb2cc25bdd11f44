//! Mistakes on purpose, to see them caught: wrong frees (A062, A063), and a leak.

use alloc::format;
use alloc::string::String;

use kmem::{CacheFlags, CacheId, GFP_KERNEL, Gfp, Mm, Platform, Reclaim, VirtAddr};

use super::{Command, exactly, print, word};
use crate::{Failure, FreeLists, OnPurpose, Shell, Sink, System};

pub(super) const fn wrong_free<S: System>() -> Command<S> {
    Command {
        name: "wrong_free",
        usage: "wrong_free double|order|interior|tail|misaligned|foreign|object|inside|cache",
        about: "free a block or an object wrongly, and see what the manager says\n\
                object    an object of kmalloc's twice\n\
                inside    an address inside one\n\
                cache     an object of another cache\n\
                The others are wrong frees of pages.",
        example: "wrong_free double",
        run: run_wrong_free,
    }
}

fn run_wrong_free<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [kind] = exactly(&wrong_free::<S>(), arguments)?;
    let system = shell.system;
    let mm = system.mm();
    // What the CPU keeps of kmalloc's for its next requests comes with the first one.
    object(mm, |mm, object| {
        // SAFETY: it is this function's.
        unsafe { mm.kfree(object) };
        Ok(())
    })?;
    let _on_purpose = OnPurpose::new(system);
    let (lists, reports) = (FreeLists::take(mm), system.misuses());
    match kind.as_str() {
        "double" => double(mm),
        "order" => within(mm, GFP_KERNEL, |_, address| (address, 0)),
        "interior" => within(mm, GFP_KERNEL, |page, address| (address + page, 0)),
        "tail" => within(mm, GFP_KERNEL | Gfp::COMP, |page, address| (address + page, 0)),
        "misaligned" => within(mm, GFP_KERNEL, |_, address| (address + 8, ORDER)),
        "foreign" => {
            foreign(mm);
            Ok(())
        }
        "object" => object(mm, |mm, object| {
            // SAFETY: the first free is right. The second is reported and changes nothing.
            unsafe {
                mm.kfree(object);
                mm.kfree(object);
            }
            Ok(())
        }),
        "inside" => object(mm, |mm, object| {
            // SAFETY: the first free is reported and changes nothing. The second is right.
            unsafe {
                mm.kfree(object.wrapping_add(8));
                mm.kfree(object);
            }
            Ok(())
        }),
        "cache" => object(mm, |mm, object| {
            let other = Made::new(mm, "wrong_free", CacheFlags::NONE)?;
            // SAFETY: the first free is reported and changes nothing. The second is right.
            unsafe {
                mm.kmem_cache_free(other.id, object);
                mm.kfree(object);
            }
            Ok(())
        }),
        _ => return Err(Failure::Usage(format!("usage: {}", wrong_free::<S>().usage))),
    }?;
    let found = system.misuses() - reports;
    let after = FreeLists::take(mm);
    if found != 1 {
        return Err(Failure::Failed(format!("one wrong free was made, and reported: {found}")));
    }
    if let Some(difference) = lists.difference(&after) {
        return Err(Failure::Failed(format!("the wrong free did harm: {difference}")));
    }
    let report = system.last_misuse().unwrap_or_default();
    print_report(system, out, &report)
}

/// Prints a report, which is longer than most terminals are wide.
pub(super) fn print_report<S: System>(
    system: &S,
    out: &mut dyn Sink,
    report: &str,
) -> Result<(), Failure> {
    print(out, format_args!("{}\n", wrapped(report, system.columns())))
}

/// A text in lines of at most `width` characters, unless a word is longer; all but the first are
/// indented.
fn wrapped(text: &str, width: usize) -> String {
    const INDENT: &str = "\n    ";
    let (mut lines, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        if column > 0 {
            let fits = column + 1 + word.len() <= width;
            lines += if fits { " " } else { INDENT };
            column = if fits { column + 1 } else { INDENT.len() - 1 };
        }
        lines += word;
        column += word.len();
    }
    lines
}

/// Frees a page twice. Nothing else runs meanwhile that could be given the page in between.
fn double<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Result<(), String> {
    let page = mm.alloc_page(GFP_KERNEL).map_err(|error| format!("{error}"))?;
    // SAFETY: the first free is right. The second is reported and changes nothing: the page is
    // free, and nobody has it.
    unsafe {
        mm.__free_page(page);
        mm.__free_page(page);
    }
    Ok(())
}

/// The order of the block that is freed wrongly.
const ORDER: u32 = 2;

/// Allocates a block, frees it wrongly, then rightly. `wrong` is given the size of a page and the
/// block's address.
fn within<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    gfp: Gfp,
    wrong: impl FnOnce(usize, usize) -> (usize, u32),
) -> Result<(), String> {
    let address = mm.__get_free_pages(gfp, ORDER).map_err(|error| format!("{error}"))?;
    let (wrong_address, wrong_order) = wrong(1 << P::PAGE_SHIFT, address.get());
    // SAFETY: the first free is reported and changes nothing: the block is still this function's,
    // and nobody reads or writes it. The second is right.
    unsafe {
        mm.free_pages(VirtAddr::new(wrong_address), wrong_order);
        mm.free_pages(address, ORDER);
    }
    Ok(())
}

/// Frees an address where there is no RAM: below the direct map.
fn foreign<P: Platform, R: Reclaim>(mm: &Mm<P, R>) {
    let address = mm.platform().base().get().wrapping_sub(1 << P::PAGE_SHIFT);
    // SAFETY: it is reported and changes nothing: no memory of the manager is there.
    unsafe { mm.free_pages(VirtAddr::new(address), 0) };
}

/// Allocates an object of kmalloc's, for `wrong` to free.
fn object<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    wrong: impl FnOnce(&Mm<P, R>, *mut u8) -> Result<(), String>,
) -> Result<(), String> {
    let object = mm.kmalloc(SIZE, GFP_KERNEL).map_err(|error| format!("{error}"))?;
    wrong(mm, object.as_ptr())
}

/// The size of the objects that mistakes are made with, in bytes.
const SIZE: usize = 64;

/// A cache for one mistake. It is destroyed when it goes: its objects are free then.
struct Made<'m, P: Platform, R: Reclaim> {
    mm: &'m Mm<P, R>,
    id: CacheId,
}

impl<'m, P: Platform, R: Reclaim> Made<'m, P, R> {
    fn new(mm: &'m Mm<P, R>, name: &str, flags: CacheFlags) -> Result<Self, String> {
        let id = mm.kmem_cache_create(name, SIZE, 0, flags, None, None);
        Ok(Made { mm, id: id.map_err(|error| format!("{error}"))? })
    }
}

impl<P: Platform, R: Reclaim> Drop for Made<'_, P, R> {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the cache. One with an object out stays, and the log says so.
        let _ = unsafe { self.mm.kmem_cache_destroy(self.id) };
    }
}

pub(super) const fn overrun<S: System>() -> Command<S> {
    Command {
        name: "overrun",
        usage: "overrun before|behind|freed",
        about: "write a byte where it should not be, and see what the manager says\n\
                A cache is made for it that is debugged, and destroyed afterwards.\n\
                before, behind  beside an object of 64 bytes\n\
                freed           into one that was freed",
        example: "overrun behind",
        run: run_overrun,
    }
}

fn run_overrun<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [kind] = exactly(&overrun::<S>(), arguments)?;
    let (offset, freed) = match kind.as_str() {
        "before" => (-1, false),
        "behind" => (SIZE as isize, false),
        "freed" => (SIZE as isize / 2, true),
        _ => return Err(Failure::Usage(format!("usage: {}", overrun::<S>().usage))),
    };
    let system = shell.system;
    let mm = system.mm();
    let _on_purpose = OnPurpose::new(system);
    let reports = system.misuses();
    let cache = Made::new(mm, "overrun", CacheFlags::DEBUG)?;
    let object = mm.kmem_cache_alloc(cache.id, GFP_KERNEL).map_err(|error| format!("{error}"))?;
    // SAFETY: the object is this function's. The byte is in it, or in the zones that a cache with red
    // zones has around it: in its slab, where nobody else reads or writes.
    let write = || unsafe { object.offset(offset).write_volatile(0x2a) };
    if !freed {
        write();
    }
    // SAFETY: it is this function's.
    unsafe { mm.kmem_cache_free(cache.id, object.as_ptr()) };
    if freed {
        write();
        // It looks at all objects.
        mm.kmem_cache_validate(cache.id).map_err(|error| format!("{error}"))?;
    }
    let found = system.misuses() - reports;
    if found != 1 {
        return Err(Failure::Failed(format!("one byte was overwritten, and reported: {found}")));
    }
    let report = system.last_misuse().unwrap_or_default();
    print_report(system, out, &report)
}

pub(super) const fn leak<S: System>() -> Command<S> {
    Command {
        name: "leak",
        usage: "leak ORDER",
        about: "allocate 2^ORDER pages and forget them: the check at shutdown finds them",
        example: "leak 3",
        run: run_leak,
    }
}

fn run_leak<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [order] = exactly(&leak::<S>(), arguments)?;
    let order = word(order, "order: give a whole number")?;
    let page = shell.system.mm().alloc_pages(GFP_KERNEL, order);
    page.map(|_| ()).map_err(|error| Failure::Failed(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("aa bb cc", 100), "aa bb cc");
        assert_eq!(wrapped("aa bb cc", 5), "aa bb\n    cc");
        assert_eq!(wrapped("longer-than-that a", 5), "longer-than-that\n    a");
        assert_eq!(wrapped("", 5), "");
    }
}

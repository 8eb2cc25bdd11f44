//! Mistakes on purpose, to see them caught: wrong frees (A062, A063), and a leak.

use alloc::format;
use alloc::string::String;

use kmem::{GFP_KERNEL, Gfp, Mm, Platform, Reclaim, VirtAddr};

use super::{Command, exactly, print, word};
use crate::{Failure, FreeLists, Shell, Sink, System};

pub(super) const fn wrong_free<S: System>() -> Command<S> {
    Command {
        name: "wrong_free",
        usage: "wrong_free double|order|interior|tail|misaligned|foreign",
        about: "free a block wrongly, and see what the manager says",
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
    print(out, format_args!("{}\n", wrapped(&report, REPORT_WIDTH)))
}

/// Reports are longer than most terminals are wide.
const REPORT_WIDTH: usize = 98;

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

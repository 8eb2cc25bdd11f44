//! G7: what a mask of flags is.

use core::mem::size_of;

use kmem::gfp::numeric::{self, Era};
use kmem::{
    GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOIO, GFP_NOWAIT, GFP_USER, Gfp, Order, Page, PhysAddr,
};

use crate::failure::{check, equal, some};
use crate::hold::Block;
use crate::pages::anywhere;
use crate::pressure::press;
use crate::zones::dma;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "a mask is an unsigned integer of 32 bits",
                &["A093"],
                anywhere,
                an_unsigned_integer,
            ),
            Case::new(
                "modifiers that are joined let reclaim do what each of them permits",
                &["A097"],
                anywhere,
                modifiers_join,
            ),
            Case::new(
                "every call takes every type flag, and clears with __GFP_ZERO",
                &["A098", "A128"],
                anywhere,
                every_call_clears,
            ),
            Case::new(
                "every call takes from DMA with __GFP_DMA",
                &["A098", "A128", "A126"],
                dma,
                every_call_takes_dma,
            ),
            Case::new(
                "zone modifiers are the lowest bits, and have two eras' values",
                &["A100"],
                anywhere,
                zone_bits,
            ),
        ]
    }
}

fn an_unsigned_integer<M: Machine>(_: &M) -> Result<(), Failure> {
    equal(size_of::<Gfp>() as u64, size_of::<u32>() as u64, "the size of a mask in bytes")?;
    let bits: u32 = GFP_KERNEL.bits();
    check(Gfp::from_bits(bits) == Ok(GFP_KERNEL), "a mask and its integer are the same")?;
    check(Gfp::from_bits(u32::MAX).is_err(), "an integer that is no mask is refused")
}

fn modifiers_join<M: Machine>(machine: &M) -> Result<(), Failure> {
    check(Gfp::WAIT | Gfp::IO | Gfp::FS == GFP_KERNEL, "WAIT, IO and FS are GFP_KERNEL")?;
    let mm = machine.mm();
    let _pressed = press(machine, Gfp::NONE);
    let quiet = Gfp::NOWARN | Gfp::NORETRY;
    for joined in [Gfp::WAIT, Gfp::WAIT | Gfp::IO, Gfp::WAIT | Gfp::IO | Gfp::FS] {
        mm.reclaim().answer_from(u64::MAX);
        check(mm.alloc_page(joined | quiet).is_err(), "there is no memory")?;
        let asked = some(mm.reclaim().request(0), "the allocator may block: reclaim is asked")?;
        check(asked.gfp == joined | quiet, "and is told what it may do")?;
    }
    Ok(())
}

/// Calls `judge` with a page that each of the calls has given for `gfp`.
fn each_call<M: Machine>(
    machine: &M,
    gfp: Gfp,
    judge: impl Fn(Page) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_of = |address| some(mm.virt_to_page(address), "an address leads to its page");

    judge(Block::new(machine, gfp, 0)?.page())?;
    judge(Block::new(machine, gfp, 4)?.page())?;
    judge(mm.pages(gfp, 1)?.page())?;

    let page = mm.alloc_pages_node(machine.mm().zones().first().map(|z| z.node()), gfp, 0)?;
    // SAFETY: just allocated.
    let block = unsafe { Block::own(machine, page, 0) };
    judge(block.page())?;

    let address = mm.__get_free_pages(gfp, 2)?;
    let judged = judge(page_of(address)?);
    // SAFETY: just allocated with this order.
    unsafe { mm.free_pages(address, 2) };
    judged?;

    let size = 3 * machine.facts().page_bytes() as usize;
    let address = mm.alloc_pages_exact(size, gfp)?;
    let judged = judge(page_of(address)?);
    // SAFETY: just allocated with this size.
    unsafe { mm.free_pages_exact(address, size) };
    judged?;

    let mut pages = [None; 3];
    equal(mm.alloc_pages_bulk(gfp, &mut pages) as u64, 3, "three pages at once")?;
    for page in pages.into_iter().flatten() {
        // SAFETY: just allocated.
        let block = unsafe { Block::own(machine, page, 0) };
        judge(block.page())?;
    }

    let all = PhysAddr::new(0)..PhysAddr::new(machine.facts().end);
    let page = mm.alloc_contig_pages(3, Order::ZERO, all, gfp)?;
    let judged = judge(page);
    // SAFETY: just allocated with this count.
    unsafe { mm.free_contig_pages(page, 3) };
    judged
}

fn every_call_clears<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for gfp in [GFP_KERNEL, GFP_ATOMIC, GFP_NOWAIT, GFP_NOIO, GFP_NOFS, GFP_USER] {
        let bytes = machine.facts().page_bytes() as usize;
        // What the calls give next has been written to, as far as it lies on top.
        for order in [0, 0, 0, 1, 2, 3, 4] {
            mm.pages(gfp, order)?.bytes_mut().fill(0xa5);
        }
        each_call(machine, gfp | Gfp::ZERO, |page| {
            let address = some(mm.page_address(page), "an address")?;
            // SAFETY: the page is held meanwhile, and was cleared.
            let bytes = unsafe { core::slice::from_raw_parts(address.as_ptr::<u8>(), bytes) };
            check(bytes.iter().all(|byte| *byte == 0), "the call clears its pages")
        })?;
    }
    Ok(())
}

fn every_call_takes_dma<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let limit = machine.facts().dma_limit.unwrap_or(0);
    for gfp in [GFP_KERNEL, GFP_ATOMIC] {
        each_call(machine, gfp | Gfp::DMA, |page| {
            check(mm.page_to_phys(page).get() < limit, "the call takes its pages from DMA")
        })?;
    }
    Ok(())
}

fn zone_bits<M: Machine>(_: &M) -> Result<(), Failure> {
    let modifiers = [Gfp::DMA, Gfp::HIGHMEM, Gfp::DMA32, Gfp::MOVABLE];
    for (modifier, value) in modifiers.into_iter().zip([0x01, 0x02, 0x04, 0x08]) {
        equal(modifier.bits().into(), value, "a zone modifier's bit")?;
        equal(numeric::encode(Era::Today, modifier).into(), value, "is that of Linux today")?;
    }
    for (modifier, value) in modifiers.into_iter().zip([0x01, 0x02, 0x04, 0x10_0000]) {
        equal(numeric::encode(Era::Texts, modifier).into(), value, "the texts' value")?;
        let read = numeric::decode(Era::Texts, value as u32 | 0x50);
        check(read == (modifier, 0x50), "a number of a trace is read, and the rest kept")?;
    }
    check(GFP_KERNEL.zone_bits() == 0, "no other flag uses the lowest four bits")?;
    let others = Gfp::HIGH | Gfp::IO | Gfp::FS | Gfp::ZERO | Gfp::RECLAIMABLE | Gfp::COMP;
    equal(others.zone_bits().into(), 0, "no other flag uses the lowest four bits")
}

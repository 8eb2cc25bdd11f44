//! The sample module `allocator`, on a PC of about the year 2000.

use std::sync::Arc;

use kmem::boot::CarveoutError;
use kmem::platform::DirectMap;
use kmem::{GFP_KERNEL, Gfp, PhysAddr, VirtAddr, report};
use kmem_host::{Description, Machine};
use scull::{Allocator, ISA_LIMIT};

fn boot(command_line: &str) -> Arc<Machine> {
    let mut description = Description::preset("ldd2-i386").unwrap();
    description.set(&format!("command_line={command_line}")).unwrap();
    Machine::boot(&description).unwrap_or_else(|error| panic!("{error}"))
}

/// The example of the text: 2 MiB of 128 are left to a module, which may use all of them.
///
/// A257, A258, A320
#[test]
fn ram_above_mem_is_there_for_the_module_allocator() {
    let machine = boot("root=/dev/hda1 mem=126M");
    let mm = machine.mm();
    assert_eq!(mm.frames().unwrap().span().end << 12, 126 << 20);
    let mut text = String::new();
    machine.run(|| report::iomem(mm, &mut text)).unwrap();
    assert!(text.contains("07e00000-07ffffff : RAM above mem=\n"), "{text}");
    machine.run(|| {
        let free = mm.free_page_count();
        // SAFETY: nobody else uses it.
        let allocator = unsafe { Allocator::load(mm, ISA_LIMIT) }.unwrap();
        assert_eq!(allocator.usage().unwrap().pages, 511, "all but its table");
        let refused = allocator.allocate_dma(64, Gfp::DMA);
        assert!(matches!(refused, Err(CarveoutError::NotForDma { .. })), "{refused:?}");
        let buffer = allocator.allocate_dma(1500, GFP_KERNEL).unwrap();
        let seen = VirtAddr::from_ptr(buffer.as_ptr());
        assert_eq!(mm.platform().virt_to_phys(seen), Some(PhysAddr::new(126 << 20)));
        // SAFETY: so many bytes were allocated; then the test's own.
        unsafe {
            buffer.write_bytes(7, 1500 << 10);
            assert_eq!(buffer.add((1500 << 10) - 1).read(), 7);
            allocator.free_dma(buffer);
        }
        assert!(allocator.allocate_dma(2048, GFP_KERNEL).is_err());
        assert!(allocator.allocate_dma(511 * 4, GFP_KERNEL).is_ok());
        assert_eq!(mm.free_page_count(), free);
    });
    let end = machine.shutdown();
    assert!(end.is_clean(), "{end}");
    // Without mem= there is no such RAM.
    let machine = boot("");
    machine.run(|| {
        // SAFETY: there is none.
        let refused = unsafe { Allocator::load(machine.mm(), ISA_LIMIT) };
        assert!(matches!(refused.err(), Some(CarveoutError::Nothing)));
    });
}

//! scullp: quanta that are whole pages.

mod common;

use common::*;
use scull::{Errno, Mode, Pages};

/// A310: each quantum takes 2^order pages, and gives them back with the same order.
#[test]
fn quanta_are_blocks_of_the_order() {
    on_tiny(|mm| {
        for order in 0..6 {
            let module = load::<Pages>(mm, order);
            let (loaded, slabs) = (mm.free_page_count(), slab_pages(mm));
            let mut file = module.open(0, Mode::Write).unwrap();
            file.write_all(&vec![1; (PAGE << order) * 10]).unwrap();
            let taken = loaded - mm.free_page_count();
            // The quantum set and the item are objects of kmalloc's.
            assert_eq!(taken - (slab_pages(mm) - slabs), 10 << order, "order {order}");
        }
    });
}

/// A310
#[test]
fn the_order_is_set_at_load_time_alone() {
    on_tiny(|mm| {
        let module = load::<Pages>(mm, 1);
        assert_eq!(module.set_size(2).unwrap_err().errno(), Errno::Eacces);
        drop(module.open(0, Mode::Write).unwrap());
        assert_eq!(module.open(0, Mode::Write).unwrap().write(&[1; 10_000]).unwrap(), 8192);
    });
}

//! scull: quanta from kmalloc, whose size may change.

mod common;

use common::*;
use scull::{Errno, Kmalloc, Mode};

/// A303: 4000 bytes are less than a page, and so is what they are given.
#[test]
fn a_quantum_of_4000_bytes_fits_a_page() {
    on_tiny(|mm| {
        assert!(mm.kmalloc_size_roundup(4000) <= PAGE);
        assert!(mm.kmalloc_size_roundup(4097) > PAGE);
        let module = load::<Kmalloc>(mm, 4000);
        let before = slab_pages(mm);
        module.open(0, Mode::Write).unwrap().write_all(&pattern(4000 * 100, 1)).unwrap();
        // Two pages for the set, and one each at most for the item and for the slabs' records; CPUs
        // keep some objects at hand.
        let pages = slab_pages(mm) - before;
        assert!((102..=110).contains(&pages), "{pages} pages");
    });
}

/// The texts' ioctl: the module's quantum and quantum set change at once, a device's when it is
/// trimmed; until then what it holds stays readable.
#[test]
fn a_changed_quantum_holds_from_the_next_trim() {
    on_tiny(|mm| {
        let module = load::<Kmalloc>(mm, 4000);
        let data = pattern(100_000, 3);
        module.open(0, Mode::Write).unwrap().write_all(&data).unwrap();
        module.set_size(6000).unwrap();
        module.set_qset(7).unwrap();
        assert_eq!((module.parameters().size, module.parameters().qset), (6000, 7));
        let line = |device: usize| {
            let mut text = String::new();
            module.write_mem(&mut text).unwrap();
            let mut lines = text.lines().filter(|line| line.starts_with("Device"));
            lines.nth(device).unwrap().to_owned()
        };
        assert_eq!(line(0), "Device 0: qset 1000, q 4000, sz 100000");
        assert!(read_all(&module, 0) == data);
        let mut file = module.open(0, Mode::ReadWrite).unwrap();
        assert_eq!(file.write(&data).unwrap(), 4000);
        let mut file = module.open(0, Mode::Write).unwrap();
        assert_eq!(file.write(&data).unwrap(), 6000);
        file.write_all(&data[6000..]).unwrap();
        assert_eq!(line(0), "Device 0: qset 7, q 6000, sz 100000");
        assert_eq!(line(1), "Device 1: qset 1000, q 4000, sz 0");
        assert!(read_all(&module, 0) == data);
        // 17 quanta in three sets.
        assert_eq!(module.held(0).unwrap(), 17 * 6000 + 3 * (7 * 8 + 32));
        assert_eq!(module.set_size(0).unwrap_err().errno(), Errno::Einval);
        assert_eq!(module.parameters().size, 6000);
    });
}

//! A device's memory in a user's address space.

mod common;

use common::*;
use kmem::VirtAddr;
use kmem::platform::UserMap;
use scull::{Areas, Errno, Kmalloc, Mode, Pages, ScullError, SlabCache, Source};

fn user(mm: &TestMm) -> &dyn UserMap {
    mm.platform()
}

/// The address of a page of the user's.
fn at(mm: &TestMm, page: usize) -> VirtAddr {
    VirtAddr::new(user(mm).range().start.get() + page * PAGE)
}

/// A072, A312: the same frames from both sides, page by page, as they are touched.
#[test]
fn a_user_sees_the_devices_own_pages() {
    fn of<S: Source>(size: u64) {
        on_tiny(|mm| {
            let module = load::<S>(mm, size);
            let data = pattern(20 * PAGE - 100, 3);
            module.open(1, Mode::Write).unwrap().write_all(&data).unwrap();
            let mapped = module.mmap(1, user(mm), at(mm, 5), 20, 0).unwrap();
            assert_eq!(mapped.addresses(), at(mm, 5)..at(mm, 25));
            let free = mm.free_page_count();
            // One page, when it is touched, and once more, which changes nothing.
            mapped.fault(VirtAddr::new(at(mm, 8).get() + 77)).unwrap();
            mapped.fault(at(mm, 8)).unwrap();
            let third = at(mm, 8).as_ptr::<u8>();
            // SAFETY: the page is mapped, and the device is this test's.
            unsafe {
                assert_eq!(third.add(77).read_volatile(), data[3 * PAGE + 77]);
                third.add(78).write_volatile(!data[3 * PAGE + 78]);
            }
            assert_eq!(read_all(&module, 1)[3 * PAGE + 78], !data[3 * PAGE + 78]);
            assert_eq!(mapped.populate().unwrap(), 20);
            assert_eq!(mm.free_page_count(), free, "nothing is copied");
            // What the device is written later is seen too, and the end of the last page is clear.
            let mut file = module.open(1, Mode::ReadWrite).unwrap();
            file.seek(10 * PAGE as u64);
            file.write_all(b"later").unwrap();
            // SAFETY: all pages are mapped.
            let seen = unsafe { std::slice::from_raw_parts(at(mm, 5).as_ptr::<u8>(), 20 * PAGE) };
            assert_eq!(&seen[10 * PAGE..10 * PAGE + 5], b"later");
            assert!(seen[20 * PAGE - 100..].iter().all(|byte| *byte == 0));
            drop(file);
        });
    }
    of::<Pages>(0);
    of::<Areas>(4);
    of::<Areas>(0);
}

/// A312: where memory is no page of its own there is nothing to map.
#[test]
fn scull_and_scullc_and_large_blocks_are_not_mapped() {
    fn of<S: Source>(size: u64) {
        on_tiny(|mm| {
            let module = load::<S>(mm, size);
            module.open(0, Mode::Write).unwrap().write_all(&[1; 10]).unwrap();
            let refused = module.mmap(0, user(mm), at(mm, 0), 1, 0).err().unwrap();
            assert_eq!(refused.errno(), Errno::Enodev);
            assert_eq!(refused, ScullError::NotMappable { module: S::KIND.name });
        });
    }
    of::<Kmalloc>(4000);
    of::<SlabCache>(4096);
    of::<Pages>(1);
}

#[test]
fn a_device_is_not_trimmed_while_it_is_mapped() {
    on_tiny(|mm| {
        let module = load::<Areas>(mm, 2);
        module.open(0, Mode::Write).unwrap().write_all(&[7; 3 * PAGE]).unwrap();
        let one = module.mmap(0, user(mm), at(mm, 0), 3, 0).unwrap();
        let other = module.mmap(0, user(mm), at(mm, 10), 2, PAGE as u64).unwrap();
        assert_eq!((one.populate().unwrap(), other.populate().unwrap()), (3, 2));
        let refused = module.open(0, Mode::Write).err().unwrap();
        assert_eq!(refused, ScullError::Mapped { mappings: 2 });
        assert_eq!(refused.errno(), Errno::Ebusy);
        assert_eq!(module.open_files(), 0);
        drop(one);
        assert!(module.open(0, Mode::Write).is_err());
        assert_eq!(module.size(0).unwrap(), 3 * PAGE as u64);
        drop(other);
        module.open(0, Mode::Write).unwrap();
        assert_eq!(module.size(0).unwrap(), 0);
    });
}

#[test]
fn what_is_not_there_is_not_mapped() {
    on_tiny(|mm| {
        let module = load::<Pages>(mm, 0);
        let mut file = module.open(0, Mode::Write).unwrap();
        file.write_all(&[7; PAGE]).unwrap();
        file.seek(3 * PAGE as u64);
        file.write_all(&[8; 1]).unwrap();
        let mapped = module.mmap(0, user(mm), at(mm, 0), 6, 0).unwrap();
        let nothing = |page: usize| ScullError::NothingThere { position: (page * PAGE) as u64 };
        // A hole, the end, and addresses of others.
        assert_eq!(mapped.fault(at(mm, 1)), Err(nothing(1)));
        assert_eq!(mapped.fault(at(mm, 4)), Err(nothing(4)));
        assert_eq!(mapped.fault(at(mm, 6)).unwrap_err().errno(), Errno::Efault);
        assert_eq!(mapped.populate().unwrap(), 2);
        let end = user(mm).range().end;
        for (address, pages, offset) in [
            (at(mm, 0), 1, 100),
            (VirtAddr::new(at(mm, 0).get() + 8), 1, 0),
            (at(mm, 0), 0, 0),
            (end, 1, 0),
            (VirtAddr::new(0), 1, 0),
            (at(mm, 0), usize::MAX, 0),
        ] {
            assert!(module.mmap(0, user(mm), address, pages, offset).is_err(), "{address} {pages}");
        }
        assert!(matches!(
            module.mmap(9, user(mm), at(mm, 0), 1, 0),
            Err(ScullError::NoSuchDevice { .. })
        ));
        drop(mapped);
        assert!(module.open(0, Mode::Write).is_ok(), "a refused mapping is none");
    });
}

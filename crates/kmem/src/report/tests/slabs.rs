//! slabinfo: caches as they are.

use std::string::String;
use std::vec::Vec;

use super::{MIB, pc, ram};
use crate::report::slabinfo;
use crate::{CacheFlags, GFP_KERNEL};

/// The fields of a cache's line: its name, then the numbers.
fn line(text: &str, name: &str) -> Vec<u64> {
    let of = |line: &&str| line.split_whitespace().next() == Some(name);
    let line = text.lines().find(of).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace().filter_map(|field| field.parse().ok()).collect()
}

/// A190, A213: the line of version, the names of the columns, and a line for each cache.
#[test]
fn slabinfo_counts_objects_and_slabs() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let look = || {
        let mut text = String::new();
        slabinfo(&mm, &mut text).unwrap();
        text
    };
    let text = look();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("slabinfo - version: 2.1"));
    assert_eq!(
        lines.next(),
        Some(
            "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : \
             tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> \
             <sharedavail>"
        )
    );
    assert!(lines.next().unwrap().starts_with("kmalloc-8 "), "{text}");
    assert_eq!(line(&text, "kmalloc-4k"), [0, 0, 4096, 1, 1, 0, 0, 0, 0, 0, 0]);

    let id = mm.kmem_cache_create("inode_cache", 500, 0, CacheFlags::NONE, None, None).unwrap();
    let held: Vec<_> = (0..20).map(|_| mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap()).collect();
    let [active, objects, size, each, pages, .., in_use, slabs, _] =
        line(&look(), "inode_cache")[..]
    else {
        panic!("{}", look());
    };
    assert_eq!((active, size, each, pages), (20, 504, 8, 1));
    assert_eq!((objects, in_use), (slabs * each, slabs));
    assert!((3..=5).contains(&slabs), "{slabs} slabs");
    // The columns are as wide as Linux's.
    let text = look();
    let row = text.lines().find(|line| line.starts_with("inode_cache ")).unwrap();
    assert!(row.starts_with("inode_cache           20 "), "{row:?}");
    assert!(row.contains("    504    8    1 : tunables    0    0    0 : slabdata "), "{row:?}");

    for object in held {
        // SAFETY: the test's own.
        unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
    }
    mm.kmem_cache_shrink(id);
    assert_eq!(line(&look(), "inode_cache"), [0, 0, 504, 8, 1, 0, 0, 0, 0, 0, 0]);
    // SAFETY: nobody uses it.
    unsafe { mm.kmem_cache_destroy(id) }.unwrap();
    assert!(!look().contains("inode_cache"));
}

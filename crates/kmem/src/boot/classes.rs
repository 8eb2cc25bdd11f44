//! The sizes that kmalloc has.

/// The largest object of a cache, in bytes. Larger ones are blocks of pages.
pub const LARGEST_OBJECT: usize = 128 << 10;

/// The largest record of a slab that is not on it, in bytes.
pub(crate) const LARGEST_RECORD: usize = 152;

/// Objects below this size have the records of their slabs on them: an eighth of the smallest page.
pub(crate) const SMALL_OBJECT: usize = 512;

/// The most sizes that there are.
pub const MAX_CLASSES: usize = 96;

/// Sizes up to this are found in steps of [`FINE`].
const FINE_END: usize = 1 << 10;
/// Sizes up to this are found in steps of [`MIDDLE`], larger ones in steps of [`COARSE`].
const MIDDLE_END: usize = 16 << 10;
const FINE: usize = 8;
const MIDDLE: usize = 128;
const COARSE: usize = 2 << 10;
/// Of a cell whose sizes are of several classes, or of none.
const SEVERAL: u8 = u8::MAX;
const _: () = assert!(MAX_CLASSES < SEVERAL as usize);

/// The sizes of the caches that serve kmalloc, smallest first (A154, A158).
///
/// # Invariants
///
/// `sizes[..count]` rises, and its last is at most [`LARGEST_OBJECT`]; a table's cell says which
/// class holds the sizes of the cell, or `SEVERAL` where not all are of one class.
#[derive(Clone)]
pub struct Classes {
    sizes: [u32; MAX_CLASSES],
    count: u8,
    fine: [u8; FINE_END / FINE],
    middle: [u8; MIDDLE_END / MIDDLE],
    coarse: [u8; LARGEST_OBJECT / COARSE],
}

/// Why a list of sizes cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassesError {
    /// There is none, or there are more than [`MAX_CLASSES`].
    Count(usize),
    /// A size is not larger than the one before it, or 0.
    Order(usize),
    /// A size is larger than [`LARGEST_OBJECT`].
    TooLarge(usize),
}

impl core::fmt::Display for ClassesError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ClassesError::Count(count) => {
                write!(f, "{count} kmalloc sizes: give from 1 to {MAX_CLASSES}")
            }
            ClassesError::Order(size) => {
                write!(f, "kmalloc size {size} is not larger than the one before: let them rise")
            }
            ClassesError::TooLarge(size) => {
                write!(f, "kmalloc size {size} is too large: the largest is {LARGEST_OBJECT}")
            }
        }
    }
}

impl core::error::Error for ClassesError {}

impl Classes {
    /// The sizes of today's Linux: powers of two from 8 to 8192, 96 and 192 (A154, A155).
    pub const LINUX: Classes =
        match Classes::new(&[8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192]) {
            Ok(classes) => classes,
            Err(_) => panic!(),
        };

    /// The sizes of the second edition's kernels: powers of two from 32 bytes to 128 KiB (A154 to
    /// A156).
    pub const TEXTS: Classes = match Classes::new(&[
        32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072,
    ]) {
        Ok(classes) => classes,
        Err(_) => panic!(),
    };

    /// Eight sizes for each doubling from 64 bytes to 64 KiB, and multiples of 8 below: at most an
    /// eighth over what was asked for.
    pub const FINE: Classes = {
        let mut sizes = [0; MAX_CLASSES];
        let (mut count, mut size) = (0, 8usize);
        while size <= 64 << 10 {
            sizes[count] = size;
            count += 1;
            // The largest power of two up to the size, in eight steps, of 8 bytes at least.
            let step = (1 << size.ilog2()) / 8;
            size += if step < 8 { 8 } else { step };
        }
        match Classes::new(sizes.split_at(count).0) {
            Ok(classes) => classes,
            Err(_) => panic!(),
        }
    };

    /// The classes of these sizes.
    ///
    /// # Errors
    ///
    /// See [`ClassesError`].
    pub const fn new(sizes: &[usize]) -> Result<Classes, ClassesError> {
        if sizes.is_empty() || sizes.len() > MAX_CLASSES {
            return Err(ClassesError::Count(sizes.len()));
        }
        let mut classes = Classes {
            sizes: [0; MAX_CLASSES],
            count: sizes.len() as u8,
            fine: [0; FINE_END / FINE],
            middle: [0; MIDDLE_END / MIDDLE],
            coarse: [0; LARGEST_OBJECT / COARSE],
        };
        let mut class = 0;
        while class < sizes.len() {
            let size = sizes[class];
            if size > LARGEST_OBJECT {
                return Err(ClassesError::TooLarge(size));
            }
            if size == 0 || class > 0 && size <= sizes[class - 1] {
                return Err(ClassesError::Order(size));
            }
            classes.sizes[class] = size as u32;
            class += 1;
        }
        fill(&mut classes.fine, FINE, sizes);
        fill(&mut classes.middle, MIDDLE, sizes);
        fill(&mut classes.coarse, COARSE, sizes);
        Ok(classes)
    }

    /// Whether one of the sizes is for the records of slabs that are not on their slabs: large enough
    /// for any of them, and small enough that its own slabs have theirs on them (A183). A machine
    /// without one is refused.
    pub fn has_size_for_records(&self) -> bool {
        let size = self.class(LARGEST_RECORD).and_then(|class| self.size(class));
        size.is_some_and(|size| size < SMALL_OBJECT)
    }

    /// The classes up to a size; the first at least.
    pub(crate) fn up_to(mut self, largest: usize) -> Classes {
        let count = self.sizes().filter(|size| *size <= largest).count();
        self.count = count.max(1) as u8;
        self
    }

    /// The class for a size in bytes: the smallest that holds it. `None` above the largest.
    pub fn class(&self, size: usize) -> Option<usize> {
        self.sizes().position(|class| size <= class)
    }

    /// The class for a size in bytes, if one look says which it is. Not for 0.
    #[inline(always)]
    pub(crate) fn at_hand(&self, size: usize) -> Option<usize> {
        // 0 wraps, and is larger than any.
        let last = size.wrapping_sub(1);
        let class = usize::from(if last < FINE_END {
            self.fine[last / FINE]
        } else if last < MIDDLE_END {
            self.middle[last / MIDDLE]
        } else {
            *self.coarse.get(last / COARSE)?
        });
        (class < usize::from(self.count)).then_some(class)
    }

    /// How large the objects of [`Classes::at_hand`] are, in bytes.
    #[inline]
    pub(crate) fn size_at_hand(&self, size: usize) -> Option<usize> {
        self.sizes.get(self.at_hand(size)?).map(|size| *size as usize)
    }

    /// The size of a class in bytes, for a class that there is.
    pub fn size(&self, class: usize) -> Option<usize> {
        self.sizes().nth(class)
    }

    /// The sizes, smallest first.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.sizes[..usize::from(self.count)].iter().map(|size| *size as usize)
    }
}

/// Says of each cell of a table, which stands for the sizes above `cell * step` up to the next cell's,
/// which class holds them.
const fn fill(table: &mut [u8], step: usize, sizes: &[usize]) {
    let (mut cell, mut class) = (0, 0);
    while cell < table.len() {
        while class < sizes.len() && sizes[class] < cell * step + 1 {
            class += 1;
        }
        let all = class < sizes.len() && (cell + 1) * step <= sizes[class];
        table[cell] = if all { class as u8 } else { SEVERAL };
        cell += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn check(classes: &Classes) {
        let sizes: Vec<usize> = classes.sizes().collect();
        for size in 0..=LARGEST_OBJECT + 1 {
            let expected = sizes.iter().position(|class| *class >= size);
            assert_eq!(classes.class(size), expected, "{size}");
            let at_hand = classes.at_hand(size);
            assert!(at_hand.is_none_or(|class| Some(class) == expected && size > 0), "{size}");
        }
        assert_eq!((classes.class(usize::MAX), classes.at_hand(usize::MAX)), (None, None));
    }

    /// A149, A154
    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        check(&Classes::LINUX);
        check(&Classes::TEXTS);
        check(&Classes::FINE);
        // As the 2.0 kernels had them: less by a header than a power of two (A157).
        check(&Classes::new(&[20, 52, 116, 244, 500, 1012, 2036, 4052, 8180, 16372]).unwrap());
        check(&Classes::new(&[3, 4, 5, 6, 7, 1025, 1026, 1027, 131_071, 131_072]).unwrap());
    }

    /// A152: from 64 bytes up an eighth; from 8 bytes up never more than twice.
    #[test]
    fn fine_classes_waste_at_most_an_eighth() {
        for asked in 8..=64usize << 10 {
            let got =
                Classes::FINE.class(asked).and_then(|class| Classes::FINE.size(class)).unwrap();
            assert!(got <= 2 * asked, "{asked} got {got}");
            if asked >= 64 {
                assert!((got - asked) * 8 <= asked, "{asked} got {got}");
            }
        }
    }

    #[test]
    fn the_classes_of_the_presets_are_found_with_one_look() {
        for classes in [&Classes::LINUX, &Classes::TEXTS, &Classes::FINE] {
            let largest = classes.sizes().last().unwrap();
            assert!((1..=largest).all(|size| classes.at_hand(size).is_some()));
        }
    }

    #[test]
    fn powers_of_two_are_classes() {
        for classes in [&Classes::LINUX, &Classes::FINE] {
            for shift in 3..=13 {
                let class = classes.class(1 << shift).and_then(|class| classes.size(class));
                assert_eq!(class, Some(1 << shift));
            }
        }
    }

    #[test]
    fn lists_of_sizes_that_make_no_sense_are_refused() {
        let error = |sizes: &[usize]| Classes::new(sizes).err();
        assert_eq!(error(&[]), Some(ClassesError::Count(0)));
        assert_eq!(error(&[8; MAX_CLASSES + 1]), Some(ClassesError::Count(MAX_CLASSES + 1)));
        assert_eq!(error(&[0, 8]), Some(ClassesError::Order(0)));
        assert_eq!(error(&[8, 8]), Some(ClassesError::Order(8)));
        assert_eq!(error(&[16, 8]), Some(ClassesError::Order(8)));
        assert_eq!(error(&[LARGEST_OBJECT + 1]), Some(ClassesError::TooLarge(LARGEST_OBJECT + 1)));
    }
}

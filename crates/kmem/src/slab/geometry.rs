//! How the objects of a cache lie in a slab.

use super::record::Record;
use crate::boot::{LARGEST_OBJECT, SMALL_OBJECT};
use crate::{Order, get_order};

/// The most objects that a slab has: an object's number fits two bytes, and so does the count.
pub(crate) const MAX_OBJECTS: u32 = 4096;

/// Objects are this apart at least: what a pointer takes.
pub const SMALLEST_OBJECT: usize = 8;

/// The largest order that a slab has for the sake of little waste. Larger blocks are hard to get.
const COMMON_ORDER: u32 = 4;

/// Colours differ by a line of the processor's cache, or by the objects' alignment if that is more.
const LINE: u32 = 64;

/// How the objects of a cache lie in its slabs.
///
/// ```text
///   record on the slab                             record elsewhere
///   +--------+-----+-----+-----+-------+--------+  +--------+------+------+------+-------+
///   | colour | obj | obj | ... | slack | record |  | colour | obj  | obj  | ...  | slack |
///   +--------+-----+-----+-----+-------+--------+  +--------+------+------+------+-------+
/// ```
///
/// The record is at the end, so that objects whose size is a power of two can begin at the start of
/// the page, which gives them their natural alignment for nothing (A183).
///
/// # Invariants
///
/// `objects * stride`, the largest colour and, where it is on the slab, the record together fit into
/// the slab; `stride` and every colour are multiples of `align`, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// From one object to the next, in bytes.
    pub(crate) stride: u32,
    /// The alignment of objects, in bytes.
    pub(crate) align: u32,
    /// How many pages a slab has.
    pub(crate) order: Order,
    /// How many objects a slab has.
    pub(crate) objects: u32,
    /// Where the record begins, in bytes from the slab's start; `None` where it is elsewhere.
    pub(crate) record: Option<u32>,
    /// How many different places the first object has in turn (A176).
    pub(crate) colours: u32,
    /// How far one is from the next, in bytes.
    pub(crate) colour_step: u32,
    /// How an object's number is found from its place.
    division: Division,
}

/// Division by one number of those that it divides, and the knowledge which those are, in one
/// multiplication.
///
/// Let the number be `odd << shift`. Multiplying by the inverse of `odd` modulo 2^32 maps the
/// multiples of `odd` to their quotients, and all else to numbers above every quotient; turning the
/// low `shift` bits to the top does the same for `1 << shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) inverse: u32,
    pub(crate) shift: u32,
}

impl Division {
    /// By a number that is not 0.
    const fn by(number: u32) -> Division {
        let shift = number.trailing_zeros();
        let odd = number >> shift;
        // Newton: each step doubles the bits that are right, of which there are three to begin with.
        let mut inverse = odd;
        let mut bits = 3;
        while bits < u32::BITS {
            inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
            bits *= 2;
        }
        Division { inverse, shift }
    }

    /// The quotient if it is whole; otherwise a number above every whole quotient of 32 bits.
    #[inline(always)]
    pub(crate) fn exact(self, number: u32) -> u32 {
        number.wrapping_mul(self.inverse).rotate_right(self.shift)
    }
}

impl Geometry {
    /// The best geometry for objects of `size` bytes at multiples of `align`, a power of two, in
    /// slabs of at most `largest` order. `None` where not even one object fits.
    pub fn new(size: usize, align: usize, page_shift: u32, largest: Order) -> Option<Geometry> {
        Self::with_tracks(size, align, 0, page_shift, largest)
    }

    /// As [`Geometry::new`], where the record has `track` bytes more for each object: then it is on
    /// the slab.
    pub(crate) fn with_tracks(
        size: usize,
        align: usize,
        track: u32,
        page_shift: u32,
        largest: Order,
    ) -> Option<Geometry> {
        if size > LARGEST_OBJECT || align > LARGEST_OBJECT {
            return None;
        }
        let stride = size.max(SMALLEST_OBJECT).next_multiple_of(align) as u32;
        // From the order that holds one object: the first that wastes at most an eighth, or the one
        // that wastes the least part.
        // Blocks lie at multiples of their size, so an object can be aligned to that at most.
        let least = get_order((stride as usize).max(align), page_shift);
        let most = COMMON_ORDER.max(least).min(largest.get());
        // With a track even one object may not leave room for the record.
        let most = if track > 0 { (most + 1).min(largest.get()) } else { most };
        let orders = (least..=most).filter_map(Order::new);
        let mut best: Option<Geometry> = None;
        for geometry in
            orders.filter_map(|order| Self::of(stride, align as u32, track, page_shift, order))
        {
            let (slack, bytes) = (geometry.slack(page_shift), geometry.bytes(page_shift));
            if slack <= bytes / 8 {
                return Some(geometry);
            }
            // A smaller part of a larger slab.
            let part = |slack: u32, of: u32| (u64::from(slack) << 32) / u64::from(of);
            let is_less = |best: Geometry| {
                part(slack, bytes) < part(best.slack(page_shift), best.bytes(page_shift))
            };
            if best.is_none_or(is_less) {
                best = Some(geometry);
            }
        }
        best
    }

    /// The geometry in slabs of one order.
    fn of(stride: u32, align: u32, track: u32, page_shift: u32, order: Order) -> Option<Geometry> {
        let record_of = |objects: u32| Record::bytes(objects) + objects * track;
        let bytes = (order.pages() << page_shift) as u32;
        let without = (bytes / stride).min(MAX_OBJECTS);
        // With the record on the slab: as many as there is room for.
        let mut with = without;
        while with > 0 && with * stride + record_of(with) > bytes {
            // At least one less; each object and its part of the record take more than a stride.
            let over = with * stride + record_of(with) - bytes;
            with -= over.div_ceil(stride + track + 2).max(1);
        }
        // On the slab where that costs no object, or where objects are small (A183).
        let small = stride < ((1 << page_shift) / 8).max(SMALL_OBJECT as u32);
        let on_slab = track > 0 || with > 0 && (small || with == without);
        let objects = if on_slab { with } else { without };
        if objects == 0 {
            return None;
        }
        let record = on_slab.then(|| bytes - record_of(objects));
        let slack = record.unwrap_or(bytes) - objects * stride;
        let colour_step = align.max(LINE);
        Some(Geometry {
            stride,
            align,
            order,
            objects,
            record,
            colours: slack / colour_step + 1,
            colour_step,
            division: Division::by(stride),
        })
    }

    /// A slab's size in bytes.
    pub fn bytes(&self, page_shift: u32) -> u32 {
        (self.order.pages() << page_shift) as u32
    }

    /// What of a slab is neither object nor record, in bytes.
    fn slack(&self, page_shift: u32) -> u32 {
        self.record.unwrap_or(self.bytes(page_shift)) - self.objects * self.stride
    }

    /// What of a slab is no object, its record elsewhere included, in bytes.
    #[cfg(test)]
    pub fn waste(&self, page_shift: u32) -> u32 {
        let elsewhere = if self.record.is_none() { Record::bytes(self.objects) } else { 0 };
        self.bytes(page_shift) - self.objects * self.stride + elsewhere
    }

    /// Where the first object of the slab with this number is, in bytes from the slab's start: each
    /// colour in turn.
    pub(crate) fn colour(&self, number: u32) -> u32 {
        number % self.colours * self.colour_step
    }

    /// How an object's number is found from its place.
    pub(crate) fn division(&self) -> Division {
        self.division
    }

    /// The number of the object that begins `offset` bytes behind the first one; `None` where none
    /// does.
    #[inline]
    pub(crate) fn index(&self, offset: u32) -> Option<u32> {
        // An address before the first object wraps, to one that is far too large: slabs are below
        // 2^23 bytes, and have at most 2^12 objects of at most 2^17.
        let index = self.division.exact(offset);
        (index < self.objects).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn order(order: u32) -> Order {
        Order::new(order).unwrap()
    }

    /// Every size up to a page, and some above, at every alignment.
    fn all(page_shift: u32, mut check: impl FnMut(usize, usize, Geometry)) {
        let sizes = (0..=4097).chain((5000..=LARGEST_OBJECT).step_by(1777)).chain([LARGEST_OBJECT]);
        for size in sizes {
            for align in (3..=page_shift).step_by(3).map(|shift| 1 << shift) {
                let geometry = Geometry::new(size, align, page_shift, order(10));
                check(size, align, geometry.unwrap());
            }
        }
    }

    /// A171, A176, A183
    #[test]
    fn objects_and_record_lie_beside_each_other() {
        for page_shift in [12, 13, 14, 16] {
            all(page_shift, |size, align, geometry| {
                let Geometry { stride, objects, record, colours, .. } = geometry;
                assert!(stride as usize >= size.max(SMALLEST_OBJECT));
                assert!((stride as usize).is_multiple_of(align));
                let last = geometry.colour(colours - 1);
                assert!(last.is_multiple_of(align as u32), "{geometry:?}");
                let end = record.unwrap_or(geometry.bytes(page_shift));
                assert!(last + objects * stride <= end, "{geometry:?}");
                if let Some(record) = record {
                    assert!(record + Record::bytes(objects) <= geometry.bytes(page_shift));
                    assert!(record.is_multiple_of(8));
                }
                // No room for one more colour, nor, but for the limit, for one more object.
                assert!(last + geometry.colour_step + objects * stride > end);
                if record.is_none() && objects < MAX_OBJECTS {
                    assert!((objects + 1) * stride > geometry.bytes(page_shift));
                }
            });
        }
    }

    #[test]
    fn every_address_is_told_to_be_an_object_or_none() {
        for (size, align) in [(8, 8), (24, 8), (56, 8), (100, 4), (192, 64), (700, 4), (4096, 4096)]
        {
            let geometry = Geometry::new(size, align, 12, order(10)).unwrap();
            let stride = geometry.stride as usize;
            for offset in 0..geometry.bytes(12) as usize + stride {
                let (index, rest) = (offset / stride, offset % stride);
                let expected = (rest == 0 && index < geometry.objects as usize).then_some(index);
                let found = geometry.index(offset as u32);
                assert_eq!(found, expected.map(|index| index as u32), "{offset}");
            }
            // What lies before the first object, as far as a colour goes.
            for before in 1..=512 << 10 {
                assert_eq!(geometry.index(0u32.wrapping_sub(before)), None, "-{before}");
            }
        }
        // The largest slabs there are.
        for page_shift in [12, 16] {
            all(page_shift, |_, _, geometry| {
                for index in [0, geometry.objects / 2, geometry.objects - 1] {
                    let offset = index * geometry.stride;
                    assert_eq!(geometry.index(offset), Some(index), "{geometry:?}");
                    assert_eq!(geometry.index(offset + geometry.stride - 1), None);
                }
            });
        }
    }

    /// A217: beside what the record takes, little is left over.
    #[test]
    fn little_of_a_slab_is_wasted() {
        let wasteful: Vec<usize> = (8..=8192)
            .filter(|size| {
                let geometry = Geometry::new(*size, 8, 12, order(10)).unwrap();
                geometry.waste(12) * 100 > geometry.bytes(12) * 15
            })
            .collect();
        assert_eq!(wasteful, [0; 0]);
    }

    /// A183: records elsewhere are of a size whose own slabs have theirs on them.
    #[test]
    fn a_record_elsewhere_is_small() {
        for page_shift in [12, 13, 14, 16] {
            all(page_shift, |_, _, geometry| {
                if geometry.record.is_none() {
                    let bytes = Record::bytes(geometry.objects) as usize;
                    assert!(bytes <= crate::boot::LARGEST_RECORD, "{geometry:?}");
                    assert!(geometry.stride as usize >= SMALL_OBJECT);
                }
            });
        }
    }

    /// A178
    #[test]
    fn small_objects_have_slabs_of_one_page() {
        for size in [8, 16, 32, 64, 96, 128, 192, 256, 512] {
            assert_eq!(Geometry::new(size, 8, 12, order(10)).unwrap().order, Order::ZERO, "{size}");
        }
    }

    #[test]
    fn powers_of_two_lie_at_their_multiples() {
        for shift in 3..=17 {
            let geometry = Geometry::new(1 << shift, 1 << shift, 12, order(10)).unwrap();
            assert_eq!(geometry.stride, 1 << shift);
            assert_eq!(geometry.align, 1 << shift);
        }
    }

    #[test]
    fn what_no_slab_holds_has_no_geometry() {
        assert_eq!(Geometry::new(LARGEST_OBJECT + 1, 8, 12, order(10)), None);
        assert_eq!(Geometry::new(64, 8192, 12, Order::ZERO), None);
        assert_eq!(Geometry::new(64 << 10, 8, 12, order(3)), None);
        assert!(Geometry::new(64 << 10, 8, 12, order(4)).is_some());
        // With blocks of one page only.
        assert_eq!(Geometry::new(1500, 8, 12, Order::ZERO).unwrap().objects, 2);
    }
}

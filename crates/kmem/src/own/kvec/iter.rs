//! Values that leave a list one by one.

use core::iter::FusedIterator;
use core::ops::Range;
use core::ptr::NonNull;

use super::{Handle, KVec};

/// The values of a list, which has become this.
///
/// # Invariants
///
/// The values at `rest` are in the memory of `list`, which has no values itself.
pub struct IntoIter<T, H: Handle> {
    list: KVec<T, H>,
    rest: Range<usize>,
}

/// The values of a range of a list, which leave it. See [`KVec::drain`].
///
/// # Invariants
///
/// The list ends where the range begins. In its memory lie the values at `rest`, which are within the
/// range, and `behind` values from `end` on.
pub struct Drain<'v, T, H: Handle> {
    list: &'v mut KVec<T, H>,
    rest: Range<usize>,
    end: usize,
    behind: usize,
}

impl<'v, T, H: Handle> Drain<'v, T, H> {
    /// The range is within the list.
    pub(super) fn new(list: &'v mut KVec<T, H>, range: Range<usize>) -> Self {
        let behind = list.len - range.end;
        list.len = range.start;
        Drain { list, end: range.end, rest: range, behind }
    }
}

impl<T, H: Handle> IntoIterator for KVec<T, H> {
    type Item = T;
    type IntoIter = IntoIter<T, H>;

    fn into_iter(mut self) -> IntoIter<T, H> {
        let rest = 0..self.len;
        self.len = 0;
        IntoIter { list: self, rest }
    }
}

macro_rules! values {
    ([$($generics:tt)*] $name:ty) => {
        impl<$($generics)* T, H: Handle> Iterator for $name {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                let index = self.rest.next()?;
                // SAFETY: by the invariant a value, which is not at `rest` any more.
                Some(unsafe { self.list.place(index).read() })
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.rest.size_hint()
            }
        }

        impl<$($generics)* T, H: Handle> DoubleEndedIterator for $name {
            fn next_back(&mut self) -> Option<T> {
                let index = self.rest.next_back()?;
                // SAFETY: by the invariant a value, which is not at `rest` any more.
                Some(unsafe { self.list.place(index).read() })
            }
        }

        impl<$($generics)* T, H: Handle> ExactSizeIterator for $name {}
        impl<$($generics)* T, H: Handle> FusedIterator for $name {}

        impl<$($generics)* T, H: Handle> $name {
            /// The values that are left.
            pub fn as_slice(&self) -> &[T] {
                let first = self.list.place(self.rest.start);
                // SAFETY: by the invariant they are values.
                unsafe { core::slice::from_raw_parts(first.as_ptr(), self.rest.len()) }
            }

            fn drop_rest(&mut self) {
                let rest = core::mem::take(&mut self.rest);
                let values = NonNull::slice_from_raw_parts(self.list.place(rest.start), rest.len());
                // SAFETY: by the invariant they are values, and not at `rest` any more.
                unsafe { values.drop_in_place() };
            }
        }
    };
}

values!([] IntoIter<T, H>);
values!(['v,] Drain<'v, T, H>);

impl<T, H: Handle> Drop for IntoIter<T, H> {
    fn drop(&mut self) {
        self.drop_rest();
    }
}

impl<T, H: Handle> Drop for Drain<'_, T, H> {
    fn drop(&mut self) {
        self.drop_rest();
        let start = self.list.len;
        // SAFETY: the values behind the range close up to where it began; both are within the memory.
        unsafe { self.list.place(self.end).copy_to(self.list.place(start), self.behind) };
        self.list.len = start + self.behind;
    }
}

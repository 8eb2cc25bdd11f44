//! A list looks like its slice.

use core::borrow::{Borrow, BorrowMut};
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut};

use super::{Handle, KVec};

impl<T, H: Handle> Deref for KVec<T, H> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T, H: Handle> DerefMut for KVec<T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<T, H: Handle + Default> Default for KVec<T, H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, H: Handle> AsRef<[T]> for KVec<T, H> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T, H: Handle> AsMut<[T]> for KVec<T, H> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T, H: Handle> Borrow<[T]> for KVec<T, H> {
    fn borrow(&self) -> &[T] {
        self
    }
}

impl<T, H: Handle> BorrowMut<[T]> for KVec<T, H> {
    fn borrow_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: fmt::Debug, H: Handle> fmt::Debug for KVec<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<T: PartialEq<U>, U, H: Handle, I: Handle> PartialEq<KVec<U, I>> for KVec<T, H> {
    fn eq(&self, other: &KVec<U, I>) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: PartialEq<U>, U, H: Handle> PartialEq<[U]> for KVec<T, H> {
    fn eq(&self, other: &[U]) -> bool {
        self.as_slice() == other
    }
}

impl<T: PartialEq<U>, U, H: Handle> PartialEq<&[U]> for KVec<T, H> {
    fn eq(&self, other: &&[U]) -> bool {
        self.as_slice() == *other
    }
}

impl<T: PartialEq<U>, U, H: Handle, const N: usize> PartialEq<[U; N]> for KVec<T, H> {
    fn eq(&self, other: &[U; N]) -> bool {
        self.as_slice() == other
    }
}

impl<T: Eq, H: Handle> Eq for KVec<T, H> {}

impl<T: PartialOrd, H: Handle> PartialOrd for KVec<T, H> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.as_slice().partial_cmp(other)
    }
}

impl<T: Ord, H: Handle> Ord for KVec<T, H> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other)
    }
}

impl<T: Hash, H: Handle> Hash for KVec<T, H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.as_slice().hash(state);
    }
}

impl<'v, T, H: Handle> IntoIterator for &'v KVec<T, H> {
    type Item = &'v T;
    type IntoIter = core::slice::Iter<'v, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'v, T, H: Handle> IntoIterator for &'v mut KVec<T, H> {
    type Item = &'v mut T;
    type IntoIter = core::slice::IterMut<'v, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

//! A box looks like its value.

use core::borrow::{Borrow, BorrowMut};
use core::cmp::Ordering;
use core::error::Error;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut};

use super::{Handle, KBox};

impl<T: ?Sized, H: Handle> Deref for KBox<T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant it points to a value of this box's.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T: ?Sized, H: Handle> DerefMut for KBox<T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the box is borrowed mutably.
        unsafe { self.pointer.as_mut() }
    }
}

impl<T: ?Sized, H: Handle> AsRef<T> for KBox<T, H> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized, H: Handle> AsMut<T> for KBox<T, H> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized, H: Handle> Borrow<T> for KBox<T, H> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized, H: Handle> BorrowMut<T> for KBox<T, H> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Debug, H: Handle> fmt::Debug for KBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: ?Sized + fmt::Display, H: Handle> fmt::Display for KBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: ?Sized, H: Handle> fmt::Pointer for KBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.pointer, f)
    }
}

impl<T: ?Sized + Error, H: Handle> Error for KBox<T, H> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        T::source(self)
    }
}

impl<T: ?Sized + PartialEq<U>, U: ?Sized, H: Handle, I: Handle> PartialEq<KBox<U, I>>
    for KBox<T, H>
{
    fn eq(&self, other: &KBox<U, I>) -> bool {
        T::eq(self, other)
    }
}

impl<T: ?Sized + Eq, H: Handle> Eq for KBox<T, H> {}

impl<T: ?Sized + PartialOrd, H: Handle> PartialOrd for KBox<T, H> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        T::partial_cmp(self, other)
    }
}

impl<T: ?Sized + Ord, H: Handle> Ord for KBox<T, H> {
    fn cmp(&self, other: &Self) -> Ordering {
        T::cmp(self, other)
    }
}

impl<T: ?Sized + Hash, H: Handle> Hash for KBox<T, H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        T::hash(self, state);
    }
}

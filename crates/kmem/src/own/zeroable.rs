//! Types that are a value when all their bytes are 0.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::num::Wrapping;
use core::ptr::NonNull;
use core::sync::atomic;

/// A type of which bytes that are all 0 are a value, so that memory of zeros can be had as one.
///
/// # Safety
///
/// They are a valid value of the type, padding included, and one that safe code may have.
pub unsafe trait Zeroable {}

macro_rules! zeroable {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: 0, false, or the value of no bytes.
            unsafe impl Zeroable for $type {}
        )*
    };
}

zeroable!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, ());
zeroable!(atomic::AtomicBool, atomic::AtomicU8, atomic::AtomicU16, atomic::AtomicU32);
zeroable!(atomic::AtomicUsize, atomic::AtomicI8, atomic::AtomicI16, atomic::AtomicI32);
zeroable!(atomic::AtomicIsize);
#[cfg(target_has_atomic = "64")]
zeroable!(atomic::AtomicU64, atomic::AtomicI64);

// SAFETY: each element is a value.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}
// SAFETY: it has the bytes of `T`.
unsafe impl<T: Zeroable> Zeroable for Wrapping<T> {}
// SAFETY: it need not be initialised.
unsafe impl<T> Zeroable for MaybeUninit<T> {}
// SAFETY: it has no bytes.
unsafe impl<T: ?Sized> Zeroable for PhantomData<T> {}
// SAFETY: null.
unsafe impl<T> Zeroable for *const T {}
// SAFETY: null.
unsafe impl<T> Zeroable for *mut T {}
// SAFETY: null.
unsafe impl<T> Zeroable for atomic::AtomicPtr<T> {}
// SAFETY: `None`, which Rust guarantees to be null.
unsafe impl<T> Zeroable for Option<NonNull<T>> {}
// SAFETY: `None`, which Rust guarantees to be null.
unsafe impl<T> Zeroable for Option<&T> {}

//! What the kernel's code calls for others, if somebody wants that: so that it need not know them.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A function that is called at some event, while there is one.
pub struct Hook<A>(AtomicPtr<()>, PhantomData<fn(A)>);

impl<A> Hook<A> {
    /// Without a function.
    pub const fn new() -> Hook<A> {
        Hook(AtomicPtr::new(core::ptr::null_mut()), PhantomData)
    }

    /// Sets the function. Whoever sets it makes sure that what it needs is there when it is called.
    pub fn set(&self, function: fn(A)) {
        // Release pairs with the Acquire in `call`.
        self.0.store(function as *mut (), Ordering::Release);
    }

    /// Takes it away. A call of it that has begun goes on.
    pub fn clear(&self) {
        self.0.store(core::ptr::null_mut(), Ordering::Release);
    }

    /// Calls it; answers whether there is one. Any context.
    pub fn call(&self, argument: A) -> bool {
        let function = self.0.load(Ordering::Acquire);
        if function.is_null() {
            return false;
        }
        // SAFETY: `set` made it of such a function.
        let function = unsafe { core::mem::transmute::<*mut (), fn(A)>(function) };
        function(argument);
        true
    }
}

//! How much a device may hold.

use crate::ScullError;

/// The bytes that a device holds, and how many it may.
///
/// The texts' devices take all there is (A165, A319). A module is privileged code, so what should be
/// refused it must refuse itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    held: u64,
    /// 0: any number.
    quota: u64,
}

impl Account {
    pub(crate) const fn new(quota: u64) -> Self {
        Account { held: 0, quota }
    }

    /// Whether so many bytes more would be within the quota. Asked before they are allocated.
    ///
    /// # Errors
    ///
    /// [`ScullError::OverQuota`].
    pub(crate) fn allows(&self, needed: u64) -> Result<(), ScullError> {
        let Account { held, quota } = *self;
        if quota == 0 || held.checked_add(needed).is_some_and(|sum| sum <= quota) {
            Ok(())
        } else {
            Err(ScullError::OverQuota { held, needed, quota })
        }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.held += bytes;
    }

    pub(crate) fn sub(&mut self, bytes: u64) {
        self.held -= bytes;
    }

    /// The device holds nothing any more.
    pub(crate) fn clear(&mut self) {
        self.held = 0;
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }
}

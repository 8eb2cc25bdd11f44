//! Setting up static per-CPU variables.

use core::fmt;
use core::panic::Location;

use super::super::Mm;
use crate::percpu::PerCpuStatic;
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::{AllocError, GFP_KERNEL, VirtAddr};

/// Why static per-CPU variables were not set up. None of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupPerCpuError {
    /// The one at this place in the list is set up already, or stands there twice.
    Again(usize),
    /// There is no memory for the copies.
    Alloc(AllocError),
}

impl fmt::Display for SetupPerCpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupPerCpuError::Again(index) => {
                write!(f, "per-cpu variable {index} of the list is set up already: do so once")
            }
            SetupPerCpuError::Alloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetupPerCpuError {}

impl From<AllocError> for SetupPerCpuError {
    fn from(error: AllocError) -> Self {
        SetupPerCpuError::Alloc(error)
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Makes the other CPUs' copies of static per-CPU variables (A283, A286). A kernel calls it at boot
    /// with its own variables, and whoever loads a module with those of the module.
    ///
    /// Each of the copies begins with the value that the variable was defined with. The boot CPU's is
    /// what it was.
    ///
    /// # Errors
    ///
    /// See [`SetupPerCpuError`]; then none of them is set up.
    ///
    /// # Context
    ///
    /// May sleep. Some hundred bytes of stack for each variable of the list.
    #[track_caller]
    pub fn setup_per_cpu(
        &self,
        variables: &[&'static dyn PerCpuStatic],
    ) -> Result<(), SetupPerCpuError> {
        self.setup_from(0, variables)
    }

    /// Sets all variables up, the first of which is so far down the list. A variable's copies are there for
    /// all to use only when all that can fail has been done for all: what somebody uses is not taken back.
    fn setup_from(
        &self,
        index: usize,
        variables: &[&'static dyn PerCpuStatic],
    ) -> Result<(), SetupPerCpuError> {
        let Some((variable, others)) = variables.split_first() else { return Ok(()) };
        let claim = variable.claim().ok_or(SetupPerCpuError::Again(index))?;
        // A variable without bytes has a place all the same.
        let layout = variable.layout();
        match self.allocate_percpu(layout.size().max(1), layout.align(), GFP_KERNEL) {
            Ok(room) => match self.setup_from(index + 1, others) {
                Ok(()) => {
                    // SAFETY: just allocated, for this alone.
                    unsafe { variable.install(claim, room.owner, room.cpus, room.memory) };
                    Ok(())
                }
                Err(error) => {
                    // SAFETY: just allocated, and nobody knows of it.
                    unsafe { self.free_percpu(room.memory.copy(crate::CpuId::BOOT).as_ptr()) };
                    variable.abandon(claim);
                    Err(error)
                }
            },
            Err(error) => {
                variable.abandon(claim);
                Err(error.into())
            }
        }
    }

    /// Undoes [`Mm::setup_per_cpu`], for a module that goes: the copies of all CPUs but the boot CPU are
    /// dropped, and their memory is given back. The boot CPU's value stays.
    ///
    /// A variable that this manager has not set up is reported, and stays as it is.
    ///
    /// # Context
    ///
    /// Any but NMI, as far as dropping the values allows.
    ///
    /// # Safety
    ///
    /// No other CPU uses the variables any more, by a guard or by what [`Mm::per_cpu`] answered.
    #[track_caller]
    pub unsafe fn remove_per_cpu(&self, variables: &[&'static dyn PerCpuStatic]) {
        for variable in variables {
            match variable.reclaim(self.identity()) {
                Some(claim) => {
                    // SAFETY: nobody uses the copies, as the caller says.
                    if let Some(memory) = unsafe { variable.uninstall(claim) } {
                        // SAFETY: it was allocated for them.
                        unsafe { self.free_percpu(memory.copy(crate::CpuId::BOOT).as_ptr()) };
                    }
                }
                None => {
                    let at =
                        VirtAddr::from_ptr(core::ptr::from_ref(*variable).cast::<u8>().cast_mut());
                    let (kind, passed) = (MisuseKind::NoCopy, Passed::Object(at));
                    let (there, site) = (There::Nothing, Location::caller());
                    self.report(&Misuse { kind, passed, there, site });
                }
            }
        }
    }
}

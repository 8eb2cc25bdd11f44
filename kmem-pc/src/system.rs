//! The machine as the shell sees it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use cases::FreeOnDemand;
use kmem::{CpuId, Mm};
use kmem_shell::{Handler, Interrupts, Sink, Source, System};

use crate::cpu::Cpu;
use crate::platform::Pc;
use crate::serial::Serial;
use crate::{MM, clock, smp, task};

/// The PC.
pub struct Machine;

/// What there is instead of files of a host.
const NO_HOST: &str = "there is no host behind a PC: its files are in /dev and /proc";

impl System for Machine {
    type Platform = Pc;
    type Reclaim = FreeOnDemand;

    fn mm(&self) -> &Mm<Pc, FreeOnDemand> {
        &MM
    }

    fn print(&self, bytes: &[u8]) -> Result<(), String> {
        Serial.write_text(bytes);
        Ok(())
    }

    fn nanoseconds(&self) -> u64 {
        clock::nanoseconds()
    }

    fn sleep(&self, nanoseconds: u64) {
        task::sleep(nanoseconds);
    }

    fn on_each_cpu(&self, work: Handler<Self>) -> Result<(), String> {
        let mut tasks = Vec::new();
        for cpu in (0..smp::count()).filter_map(CpuId::new) {
            let work = work.clone();
            let made = task::spawn(cpu.get(), move || work(&Machine, cpu));
            tasks.push(made.map_err(|error| error.to_string())?);
        }
        tasks.iter().for_each(task::join);
        Ok(())
    }

    fn interrupts<'a>(
        &'a self,
        handler: Handler<Self>,
    ) -> Result<Box<dyn Interrupts + 'a>, String> {
        let handler = Box::into_raw(Box::new(handler));
        let first = HANDLED.load(Ordering::Relaxed);
        let none = core::ptr::null_mut();
        if HANDLER.compare_exchange(none, handler, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: it was made above, and nobody knows it.
            drop(unsafe { Box::from_raw(handler) });
            return Err("the timer's interrupts have a handler already".into());
        }
        Ok(Box::new(Ticks { first }))
    }

    fn take_log(&self) -> Vec<String> {
        MM.platform().log.take()
    }

    fn misuses(&self) -> u64 {
        MM.platform().misuses.count()
    }

    fn last_misuse(&self) -> Option<String> {
        let mut text = String::new();
        MM.platform().misuses.last(&mut text).ok().filter(|()| !text.is_empty())?;
        Some(text)
    }

    fn open(&self, _: &str) -> Result<Box<dyn Source>, String> {
        Err(NO_HOST.into())
    }

    fn create(&self, _: &str) -> Result<Box<dyn Sink>, String> {
        Err(NO_HOST.into())
    }

    fn list(&self, _: &str) -> Result<Vec<String>, String> {
        Err(NO_HOST.into())
    }
}

/// What the timer's interrupts run besides their own work.
static HANDLER: AtomicPtr<Handler<Machine>> = AtomicPtr::new(core::ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Runs that, on a CPU whose timer ticked.
pub fn tick() {
    // Acquire pairs with the Release where it is put there. SAFETY: it is freed when no CPU is in a
    // handler any more that may have seen it.
    if let Some(handler) = unsafe { HANDLER.load(Ordering::Acquire).as_ref() } {
        handler(&Machine, Cpu::id());
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The timer's interrupts, until it is dropped.
struct Ticks {
    first: u64,
}

impl Interrupts for Ticks {
    fn handled(&self) -> u64 {
        HANDLED.load(Ordering::Relaxed) - self.first
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        let handler = HANDLER.swap(core::ptr::null_mut(), Ordering::AcqRel);
        // An interrupt handler runs to its end before another of its CPU: when all have answered,
        // none is in the one that was.
        for cpu in (0..smp::count()).filter_map(CpuId::new) {
            let _ = smp::call_on(cpu, &|| {});
        }
        // SAFETY: it was made by `interrupts`, and nobody knows it any more.
        drop(unsafe { Box::from_raw(handler) });
    }
}

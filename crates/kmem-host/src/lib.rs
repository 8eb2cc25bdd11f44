//! A machine inside a Linux process, for the kmem memory manager.
//!
//! ```
//! use kmem::{CpuId, GFP_KERNEL};
//! use kmem_host::{Description, Machine};
//!
//! let machine = Machine::<12>::boot(&Description::preset("tiny")?)?;
//! machine.run_on(CpuId::BOOT, || {
//!     let mut pages = machine.mm().pages(GFP_KERNEL, 2).expect("64 MiB have four free pages");
//!     pages.bytes_mut()[0] = 1;
//! });
//! assert!(machine.shutdown().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What stands for what
//!
//! ```text
//!   a machine          a Linux process
//!   ----------------   ---------------------------------------------------------------------
//!   RAM                a memfd: sparse, so RAM that is not touched costs nothing
//!   direct map         the memfd mapped once, up to the machine's limit
//!   high memory        the rest of the memfd: mapped a frame at a time, or not at all
//!   page table entry   a MAP_FIXED mapping of the memfd in a range kept for that
//!   CPU                a number that one thread at a time holds
//!   task               a thread. It holds a CPU while it runs, and gives it away to sleep
//!   interrupt          a signal to the thread that holds the CPU
//!   interrupt mask     a word of that thread
//!
//!     tasks    T1        T2   T3   T4               storm, other CPUs
//!               │         │    :    :                    │ signal
//!              holds     holds └─ wait in line           ▼
//!               ▼         ▼                       ┌─────────────┐
//!             CPU 0     CPU 1   CPU 2 (idle) ◄────┤ controller  │ runs an idle CPU's interrupts
//!               │         │                       └─────────────┘
//!               └────┬────┘
//!                    ▼  loads and stores, no call in between
//!      direct map ┌─────────────────────┐     page mappings ┌──┬─────┬──────┐  PROT_NONE
//!                 │ 0 ...         limit │                   │  │▒▒▒▒▒│      │  in between
//!                 └──────────┬──────────┘                   └──┴──┬──┴──────┘
//!                            ▼                                    ▼
//!           memfd [ ram | hole | ram            | ram above the limit ... ]
//! ```
//!
//! Nothing is emulated: a page of the machine is a page of the host, an address is an address, and
//! the processor's own memory order is what CPUs see of each other.
//!
//! # Interrupts
//!
//! An interrupt arrives between any two instructions of the thread that holds the CPU, and is handled on
//! a stack that the thread has for that. Handlers run with interrupts masked. While the CPU's thread has them masked, what
//! arrives waits and is handled when it unmasks them; an NMI does not wait. An idle CPU's interrupts
//! are run by the machine's controller, a thread that takes the CPU for that.
//!
//! A handler may call whatever the manager allows in interrupt context, wake tasks, and raise
//! interrupt lines. It may not use the process's heap or a lock of the standard library: the code
//! that it interrupted may be in the middle of either. That includes `println!`, formatting into a
//! `String`, and dropping what was boxed. A panic in a handler ends the process.
//!
//! # Tasks
//!
//! Any number of tasks share a CPU. They are cooperative: one has the CPU until it ends, sleeps
//! ([`kmem::platform::Sleep`], [`Machine::sleep`]) or yields. The next is the one that has waited
//! longest. A thread that holds no CPU may look at the machine, but what works on a CPU's own lists
//! (allocating and freeing) panics and says so: use [`Machine::run_on`].
//!
//! # Folders
//!
//! ```text
//!   description/   what a machine is made of, as data; presets are in ../machines
//!   local.rs       what a thread knows about the CPU it holds: the mask, the context
//!   queue.rs       who has a CPU next
//!   lines.rs       the interrupts that wait for a CPU
//!   cpu.rs         CPUs: taking, leaving, sending; why no interrupt is lost
//!   signal.rs      interrupts as signals; fault.rs: faults, and the stack that signals have
//!   stack.rs       running on a kernel stack, and leaving it by force
//!   interrupt.rs   what raises them: cross calls, single ones, lines, storms
//!   task.rs        tasks, sleeping and waking
//!   memory.rs      the memfd and the direct map
//!   mapping.rs     page mappings and temporary ones
//!   edu.rs         a device that reads and writes memory by itself
//!   ring.rs        what handlers may write to
//!   journal.rs     the log
//!   trace/         trace events, as a file that Linux's tools read
//!   host.rs        all of this as kmem's platform
//!   machine.rs     the machine that a program holds; shutdown.rs, error.rs
//! ```

pub mod description;

mod cpu;
mod edu;
mod error;
mod fault;
mod host;
mod interrupt;
mod journal;
mod lines;
mod local;
mod machine;
mod mapping;
mod memory;
mod queue;
mod ring;
mod shutdown;
mod signal;
mod stack;
mod task;
pub mod trace;
mod user;

pub use description::{Description, DescriptionError};
pub use edu::{EduCounters, EduRegisters};
pub use error::HostError;
pub use host::Host;
pub use interrupt::{InterruptLine, NotRaised, Storm};
pub use local::Saved;
pub use machine::{Machine, PreemptGuard};
pub use shutdown::Shutdown;
pub use stack::{Broken, NotRun};
pub use task::Task;

//! Interrupts and exceptions: how the processor enters the kernel, and where it goes from there.
//!
//! # Why handlers have stacks of their own
//!
//! The `core` that comes with the compiler was built for user programs: its functions use the 128 bytes
//! below the stack pointer, the red zone, and the SSE registers. An interrupt that pushed its frame onto
//! the interrupted stack would overwrite the former. So each vector is given a stack by the processor
//! (IST), and the entry code saves the SSE registers. Vectors that can arrive while another's handler runs
//! have different stacks; those that share one cannot: an interrupt's handler runs with interrupts masked.
//!
//! | stack | vectors |
//! | --- | --- |
//! | 1 | interrupts: the timer, calls from other CPUs. It is the manager's interrupt stack of the CPU |
//! | 2 | faults |
//! | 3 | double fault |
//! | 4 | NMI |
//! | 5 | single steps, breakpoints |
//! | 6 | machine check |
//! | 7 | page faults while a crash is reported, which runs on one of the others |

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

/// How many bytes each of a CPU's stacks has.
pub const STACK: usize = 16 << 10;

/// How many stacks a CPU has for interrupts.
pub const STACKS: usize = 7;

/// Those of the boot CPU until there is memory for [others](crate::stack), with nothing below them.
#[repr(C, align(4096))]
struct Early(UnsafeCell<[[u8; STACK]; STACKS]>);

// SAFETY: the boot CPU's alone.
unsafe impl Sync for Early {}

static EARLY: Early = Early(UnsafeCell::new([[0; STACK]; STACKS]));

/// The first addresses behind the boot CPU's first stacks.
pub fn early_tops() -> [usize; STACKS] {
    core::array::from_fn(|index| EARLY.0.get().addr() + (index + 1) * STACK)
}

/// Where the vectors of devices and of other CPUs begin.
pub const FIRST: u8 = 32;

/// What the entry code leaves on the stack: the registers, and what the processor pushed.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Frame {
    /// The interrupted code's registers, in the order of [`REGISTERS`].
    pub registers: [u64; 15],
    /// Which interrupt or exception it is.
    pub vector: u64,
    /// What the processor says of it; 0 where it says nothing.
    pub error: u64,
    /// Where the interrupted code goes on.
    pub rip: u64,
    cs: u64,
    /// Its flags.
    pub flags: u64,
    /// Its stack.
    pub rsp: u64,
    ss: u64,
}

/// The names of a frame's registers: the last that was pushed is the first.
pub const REGISTERS: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rbx", "rdx", "rcx",
    "rax",
];

impl Frame {
    /// Sets what the interrupted code finds as a function's first argument.
    pub fn set_first_argument(&mut self, value: u64) {
        // rdi.
        self.registers[8] = value;
    }

    /// Where the interrupted function's frame is.
    pub fn frame_pointer(&self) -> usize {
        self.registers[10] as usize
    }
}

global_asm!(
    r#"
    .section .text.interrupt, "ax"
    /* A stub a vector, 16 bytes each: pushes what the processor did not, and the number. */
    .align 16
    .globl interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .align 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_entry
    .set vector, vector + 1
    .endr

interrupt_entry:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    /* Shaped as a function's frame, so that the chain of frames leads on to what was interrupted: the
       address, which lies above 15 registers, the vector and the error, and its frame pointer. */
    pushq 136(%rsp)
    pushq %rbp
    movq %rsp, %rbp
    subq $512, %rsp
    andq $-16, %rsp
    fxsaveq (%rsp)
    cld
    call interrupted
    fxrstorq (%rsp)
    leaq 16(%rbp), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static interrupt_stubs: u8;
}

#[repr(C, align(16))]
struct Gate([u64; 2]);

#[repr(C, align(4096))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: written by the boot CPU before it is used, and by a CPU that reports a crash, alone.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([const { Gate([0; 2]) }; 256]));

/// The task state segment: where the stacks of interrupts are.
#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    privileged: [u64; 3],
    none: u64,
    stacks: [u64; 7],
    more: [u32; 3],
}

/// What a CPU needs to enter the kernel: descriptors, and where the stacks of interrupts are.
#[repr(C, align(64))]
pub struct Entry {
    state: UnsafeCell<TaskState>,
    descriptors: UnsafeCell<[u64; 5]>,
}

// SAFETY: it is one CPU's, which writes it once, before it lets interrupts in.
unsafe impl Sync for Entry {}

/// What the processor is told of a table: its last byte, and where it is.
#[repr(C, packed)]
struct Pointer {
    last: u16,
    base: u64,
}

/// The selector of the kernel's code.
const CODE: u16 = 8;

/// The selector of the task state.
const TASK_STATE: u16 = 24;

impl Entry {
    /// Of a CPU that has not begun.
    pub const fn new() -> Entry {
        let state = TaskState {
            reserved: 0,
            privileged: [0; 3],
            none: 0,
            stacks: [0; 7],
            more: [0, 0, (size_of::<TaskState>() as u32) << 16],
        };
        Entry { state: UnsafeCell::new(state), descriptors: UnsafeCell::new([0; 5]) }
    }

    /// Has the interrupts of the CPU use these stacks from now on: the first addresses behind them.
    ///
    /// # Safety
    ///
    /// They are this CPU's, each has [`STACK`] bytes, and no handler of it runs.
    pub unsafe fn use_stacks(&self, tops: [usize; STACKS]) {
        // SAFETY: the CPU reads it when it enters a handler, and does not meanwhile: interrupts are masked
        // or not let in yet, and nobody sends NMIs.
        unsafe { (*self.state.get()).stacks = tops.map(|top| top as u64) };
    }

    /// Makes this the running CPU's. The boot CPU is the first.
    pub fn begin(&'static self) {
        let state = self.state.get();
        let (base, last) = (state.addr() as u64, size_of::<TaskState>() as u64 - 1);
        // A present task state: its base is spread over two entries.
        let low = last | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        let descriptors = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, low, base >> 32];
        // SAFETY: as above.
        unsafe { *self.descriptors.get() = descriptors };
        let table = Pointer {
            last: size_of_val(&descriptors) as u16 - 1,
            base: self.descriptors.get().addr() as u64,
        };
        // SAFETY: the descriptors say what those of the entry code said, and a task state more; the
        // gates are written.
        unsafe {
            asm!("lgdt [{}]", in(reg) &raw const table, options(nostack));
            asm!("ltr {:x}", in(reg) TASK_STATE, options(nostack));
            use_gates(256);
        }
    }
}

/// Has the running CPU use the first `count` gates: a vector beyond them raises another fault.
///
/// # Safety
///
/// They are written; what is to be raised has one.
pub unsafe fn use_gates(count: u16) {
    let gates =
        Pointer { last: count * size_of::<Gate>() as u16 - 1, base: TABLE.0.get().addr() as u64 };
    // SAFETY: the caller's promise; the table stays.
    unsafe { asm!("lidt [{}]", in(reg) &raw const gates, options(nostack)) };
}

/// Writes the gates. By the boot CPU, once, before any CPU uses them.
pub fn write_gates() {
    for vector in 0..=255 {
        // SAFETY: nobody else uses the table yet.
        unsafe { write_gate(vector, stack_of(vector)) };
    }
}

/// Gives page faults a stack on which nothing runs: the report of a fault may meet another, which would
/// overwrite what the first one's handler has on theirs. By a CPU that reports, the others having halted.
pub fn set_page_faults_apart() {
    // SAFETY: what uses the table is this CPU, here. All gates are written; it may have used fewer.
    unsafe {
        write_gate(PAGE_FAULT, APART);
        use_gates(256);
    }
}

const PAGE_FAULT: u8 = 14;

/// The stack on which nothing runs otherwise.
const APART: u64 = 7;

/// # Safety
///
/// No CPU takes an interrupt with this vector meanwhile.
unsafe fn write_gate(vector: u8, stack: u64) {
    let at = (&raw const interrupt_stubs).addr() as u64 + 16 * u64::from(vector);
    // An interrupt gate: interrupts are masked in its handler.
    let low =
        at & 0xffff | u64::from(CODE) << 16 | stack << 32 | 0x8e << 40 | (at >> 16 & 0xffff) << 48;
    // SAFETY: the caller's promise.
    unsafe { (*TABLE.0.get())[usize::from(vector)] = Gate([low, at >> 32]) };
}

/// The stack of a vector's handler.
fn stack_of(vector: u8) -> u64 {
    match vector {
        1 | 3 => 5,
        2 => 4,
        8 => 3,
        18 => 6,
        FIRST.. => 1,
        _ => 2,
    }
}

#[unsafe(no_mangle)]
extern "C" fn interrupted(frame: &mut Frame) {
    crate::trap::handle(frame);
}

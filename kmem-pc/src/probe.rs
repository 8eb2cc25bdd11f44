//! Reading an address that may not be mapped.

use core::arch::{asm, global_asm};

use crate::interrupt::Frame;

global_asm!(
    r#"
    .section .text.probe, "ax"
    /* Reads the eight bytes at rdi into rax; rdx says whether they are there. */
    .globl probe_word
    .globl probe_failed
probe_word:
    movq (%rdi), %rax
    movl $1, %edx
    ret
probe_failed:
    xorl %eax, %eax
    xorl %edx, %edx
    ret
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static probe_word: u8;
    static probe_failed: u8;
}

/// The eight bytes at an address, if something is mapped there. Any context.
pub fn read(address: usize) -> Option<u64> {
    // An address that is not canonical raises another fault.
    let high = address >> 47;
    if high != 0 && high != (1 << 17) - 1 {
        return None;
    }
    let (value, there): (u64, u64);
    // SAFETY: it reads; a fault at its first instruction makes it answer that nothing is there.
    unsafe {
        asm!("call probe_word", in("rdi") address, out("rax") value, out("rdx") there,
            clobber_abi("C"));
    }
    (there != 0).then_some(value)
}

/// Has an interrupted read go on with the answer that nothing is there. `false`: this is no such fault.
pub fn resume(frame: &mut Frame) -> bool {
    let is_it = frame.rip == (&raw const probe_word).addr() as u64;
    if is_it {
        frame.rip = (&raw const probe_failed).addr() as u64;
    }
    is_it
}

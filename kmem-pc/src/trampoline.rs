//! From reset to Rust: the other CPUs' way to long mode.
//!
//! A CPU that is started begins in real mode, at a page below 1 MiB. What is between `cpu_start` and
//! `cpu_start_end` is copied there; it leads to the image, where [`entry`](crate::entry) has the way to
//! long mode for all CPUs. From here Rust goes on in `cpu_main`, with interrupts masked.

use core::arch::global_asm;

use crate::smp;

global_asm!(
    r#"
    .section .boot.text, "ax"
    .globl cpu_start
    .globl cpu_start_end
    .code16
cpu_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl {page} + (cpu_gdt_pointer - cpu_start)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $0x18, $cpu_protected
cpu_gdt_pointer:
    .word 31
    .long boot_gdt
cpu_start_end:

    .code32
cpu_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movl $cpu_long, %esi
    jmp enter_long_mode

    .code64
cpu_long:
    movabsq $cpu_stack, %rax
    movq (%rax), %rsp
    movabsq $cpu_root, %rax
    movq (%rax), %rax
    movabsq $cpu_high, %rdx
    jmpq *%rdx

    .section .text.start, "ax"
    /* The kernel's tables do not have the low part of the image where it is. */
cpu_high:
    movq %rax, %cr3
    xorl %ebp, %ebp
    callq cpu_main
    ud2

    .section .data
    .align 8
    .globl cpu_root
    .globl cpu_stack
cpu_root: .quad 0
cpu_stack: .quad 0
"#,
    page = const smp::START,
    options(att_syntax)
);

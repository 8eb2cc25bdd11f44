//! From the loader to Rust: the boot CPU's way to long mode.
//!
//! QEMU loads the image by the PVH protocol and jumps to `pvh_start` with paging off and the physical
//! address of its start information in `ebx`. The first tables map the first GiB three times: where it is,
//! because that is where this code runs; in the direct map; and where the image is linked. From here Rust
//! goes on in `kernel_main`, with interrupts masked.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start

    .section .boot.text, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    movl %ebx, %ebp

    /* 512 entries of 2 MiB: present, writable, large. */
    movl $boot_pd, %edi
    movl $0x83, %eax
    movl $512, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b

    movl $(boot_pd + 3), boot_pdpt_low
    movl $(boot_pd + 3), boot_pdpt_high + 510 * 8
    movl $(boot_pdpt_low + 3), boot_pml4
    movl $(boot_pdpt_low + 3), boot_pml4 + 256 * 8
    movl $(boot_pdpt_high + 3), boot_pml4 + 511 * 8
    movl $boot_long, %esi

    /* From protected to long mode, with the first tables; goes on at esi. For every CPU: there need be no
       stack, and ebp stays. */
    .globl enter_long_mode
enter_long_mode:
    movl $boot_pml4, %eax
    movl %eax, %cr3
    /* PAE, global pages, FXSR and SSE exceptions: the compiler's code uses SSE. */
    movl %cr4, %eax
    orl $0x6a0, %eax
    movl %eax, %cr4
    /* Long mode, and pages that are not to be executed. */
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    /* Paging, write protection, a coprocessor that is there. */
    movl %cr0, %eax
    andl $0xfffffffb, %eax
    orl $0x80010003, %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $1f

    .code64
1:  movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    /* The switch of modes leaves the upper half of a register undefined. */
    movl %esi, %esi
    jmpq *%rsi

boot_long:
    movabsq $boot_stack_end, %rsp
    movl %ebp, %edi
    xorl %ebp, %ebp
    movabsq $kernel_main, %rax
    callq *%rax
2:  hlt
    jmp 2b

    .section .boot.data, "aw"
    .align 16
    .globl boot_gdt
    /* 64-bit code, data, and 32-bit code for CPUs that come from real mode. */
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cf9b000000ffff
boot_gdt_pointer:
    .word 31
    .long boot_gdt

    .section .boot.bss, "aw", @nobits
    .align 4096
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 4096

    .section .bss
    .align 4096
boot_stack: .skip 262144
boot_stack_end:
"#,
    options(att_syntax)
);

//! From the PVH entry (32-bit protected mode, paging off, ebx at the start info) to Rust in 64-bit mode, with the first 16 GiB
//! of physical addresses mapped to themselves; and what interrupts and faults do.

use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use crate::cpu;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long entry

    .section .bss.entry, "aw", @nobits
    .balign 4096
tables: .skip 4096 * 18
stack:  .skip 256 << 10
stack_top:

    .section .data.entry, "aw"
    .balign 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long gdt

    .section .text.entry, "ax"
    .code32
    .global entry
entry:
    cld
    mov edi, offset tables
    lea eax, [edi + 4096 + 3]
    mov [edi], eax
    mov ecx, 16
    lea edx, [edi + 4096]
    lea eax, [edi + 8192 + 3]
2:  mov [edx], eax
    add eax, 4096
    add edx, 8
    loop 2b
    mov ecx, 16 * 512
    lea edx, [edi + 8192]
    mov eax, 0x83
    xor esi, esi
2:  mov [edx], eax
    mov [edx + 4], esi
    add eax, 0x200000
    adc esi, 0
    add edx, 8
    loop 2b
    mov esi, ebx
    mov eax, 0x620
    mov cr4, eax
    mov cr3, edi
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000033
    mov cr0, eax
    lgdt [gdtr]
    .byte 0xea
    .long entry_64
    .word 8
    .code64
entry_64:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    lea rsp, [rip + stack_top]
    mov edi, esi
    xor ebp, ebp
    call {start}
    ud2

    .text
    .balign 16
    .global fault_stubs
fault_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .else
    push 0
    .endif
    push vector
    jmp fault_common
    .set vector, vector + 1
    .endr
fault_common:
    push rax
    mov rax, [rip + {resume}]
    test rax, rax
    jz 2f
    mov [rsp + 24], rax
    pop rax
    add rsp, 16
    iretq
2:  mov rdi, [rsp + 8]
    mov rsi, [rsp + 24]
    and rsp, -16
    call {fault}
    ud2

    .global halt_for_timer
halt_for_timer:
    sti
halt_at:
    hlt
    cli
    ret

    .global timer_stub
timer_stub:
    push rax
    # An emulated CPU may take the interrupt before the halt that it is to end.
    lea rax, [rip + halt_at]
    cmp [rsp + 8], rax
    jne 2f
    inc qword ptr [rsp + 8]
2:
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    pop rax
    iretq
"#,
    start = sym start,
    resume = sym RESUME,
    fault = sym fault,
);

unsafe extern "C" {
    static fault_stubs: [[u8; 16]; 32];
    fn timer_stub();
    fn halt_for_timer();
}

/// Halts until the timer's interrupt.
pub fn halt() {
    // SAFETY: it changes nothing but what a function may.
    unsafe { halt_for_timer() };
}

/// Where to go on after a fault that is expected; 0 while none is.
pub static RESUME: AtomicU64 = AtomicU64::new(0);

/// The vector of the timer, and of all that is no fault.
pub const TIMER: u8 = 32;

extern "C" fn start(start_info: u64) -> ! {
    crate::run(start_info)
}

extern "C" fn fault(vector: u64, at: u64) -> ! {
    crate::say!("hostile guest: fault {vector} at {at:#x}");
    cpu::reset()
}

#[repr(C, packed)]
struct TableRegister {
    limit: u16,
    base: u64,
}

/// A handler for every vector.
pub fn install_handlers() {
    let gate = |handler: u64| -> [u64; 2] {
        let (low, middle, high) = (handler & 0xffff, handler >> 16 & 0xffff, handler >> 32);
        [low | 8 << 16 | 0x8e00 << 32 | middle << 48, high]
    };
    let table = Box::leak(Box::new([gate(timer_stub as *const () as u64); 256]));
    for (vector, entry) in table.iter_mut().enumerate().take(32) {
        // SAFETY: only the address of the stub is taken.
        *entry = gate(unsafe { &raw const fault_stubs[vector] } as u64);
    }
    let register = TableRegister { limit: (size_of_val(table) - 1) as u16, base: table.as_ptr() as u64 };
    // SAFETY: the table is never freed and every entry is a handler.
    unsafe { asm!("lidt [{}]", in(reg) &raw const register, options(nostack)) };
}

/// The end of everything: no handler for a fault, nor for the fault that this is.
pub fn triple_fault() -> ! {
    let register = TableRegister { limit: 0, base: 0 };
    // SAFETY: that this ends the machine is what it is for.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const register, options(nostack)) };
    cpu::reset()
}

#[cfg(panic = "abort")]
mod memory_functions {
    //! What the compiler calls, and what the C library has elsewhere.

    use core::arch::asm;

    // SAFETY: nothing unwinds here: these are only named by what the compiler comes with.
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() -> ! {
        crate::cpu::reset()
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}

    // SAFETY: the names are those of the C library, which is not linked, and so are the contracts.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
        }
        to
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= count {
            // SAFETY: forwards nothing is overwritten before it is read.
            return unsafe { memcpy(to, from, count) };
        }
        // SAFETY: the caller's; backwards nothing is overwritten before it is read.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") count => _,
                 inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
                 inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
        }
        to
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack));
        }
        to
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        for index in 0..count {
            // SAFETY: the caller's. Volatile, or this loop would become a call of memcmp.
            let (a, b) = unsafe { (one.add(index).read_volatile(), other.add(index).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        // SAFETY: the caller's.
        unsafe { memcmp(one, other, count) }
    }
}

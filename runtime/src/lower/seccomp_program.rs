//! One seccomp program for all architectures, with an answer to system calls that are newer than the profile.
//!
//! A profile that refuses what it does not name would answer EPERM to system calls that are newer than the profile, and
//! libraries fall back to older ones only on ENOSYS: beyond the highest number that a profile names, system calls do not
//! exist.
//!
//! ```text
//! i386? ──yes──→ newer? ─→ ENOSYS, or its section      (only where the profile lists i386)
//!   no
//! x86-64? ─yes─→ x32, newer? ─→ ENOSYS, or its section
//!   no ────────→ its section, which kills a foreign architecture's caller
//! ```

/// The bit that distinguishes x32's system calls from x86-64's.
const X32_BIT: u32 = 0x4000_0000;

const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Size of `struct sock_filter`, in bytes.
const INSTRUCTION: usize = 8;

/// Code, offsets where the condition holds and where it does not, operand. Offsets count from the next instruction.
type Instruction = (u16, u8, u8, u32);

const NO_SUCH_CALL: Instruction = (RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

/// What libseccomp has compiled for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The highest number that the profile names; `None` if the section itself handles newer system calls.
    pub newest: Option<u32>,
    /// An array of `struct sock_filter`.
    pub program: Vec<u8>,
}

/// Joins the sections. The guest's kernel has no x32 system calls: a profile that lists them lets programs find out.
pub fn join(x86_64: &Section, i386: Option<&Section>, x32: bool) -> Vec<u8> {
    let newest = x86_64.newest.unwrap_or(u32::MAX);
    let to_no_such_call = 1;
    let to_section = 2;
    let mut main = assemble(&[
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 0, 4, AUDIT_ARCH_X86_64),
        (LOAD, 0, 0, NUMBER),
        (IF_NOT_LESS, if x32 { to_no_such_call } else { to_section }, 0, X32_BIT),
        (IF_GREATER, 0, 1, newest),
        NO_SUCH_CALL,
    ]);
    main.extend_from_slice(&x86_64.program);
    let Some(i386) = i386 else { return main };

    let over_main = (main.len() / INSTRUCTION) as u32;
    let mut program =
        assemble(&[(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 0, 1, AUDIT_ARCH_I386), (JUMP, 0, 0, over_main)]);
    program.extend_from_slice(&main);
    program.extend_from_slice(&assemble(&[
        (LOAD, 0, 0, NUMBER),
        (IF_GREATER, 0, 1, i386.newest.unwrap_or(u32::MAX)),
        NO_SUCH_CALL,
    ]));
    program.extend_from_slice(&i386.program);
    program
}

fn assemble(instructions: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(instructions.len() * INSTRUCTION);
    for (code, if_true, if_false, operand) in instructions {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[*if_true, *if_false]);
        bytes.extend_from_slice(&operand.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
#[path = "seccomp_program_test.rs"]
mod tests;

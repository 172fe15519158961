//! BPF programs (bpf(2)): their instructions, and how they are loaded and attached.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::{done, made};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
/// Programs in child cgroups apply in addition to this one.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;

/// Classes and operations of instructions (Documentation/bpf/standardization/instruction-set.rst).
pub mod code {
    /// A 32-bit load from memory.
    pub const LOAD_32: u8 = 0x61;
    /// A 32-bit store of the immediate to memory.
    pub const STORE_IMMEDIATE_32: u8 = 0x62;
    /// A 64-bit immediate, whose upper half is in the next instruction.
    pub const LOAD_64_IMMEDIATE: u8 = 0x18;
    /// Register to register.
    pub const MOVE: u8 = 0xbf;
    /// The immediate, extended with its sign.
    pub const MOVE_IMMEDIATE: u8 = 0xb7;
    /// Adds the immediate.
    pub const ADD_IMMEDIATE: u8 = 0x07;
    /// Ands the immediate.
    pub const AND_IMMEDIATE: u8 = 0x57;
    /// A logical shift by the immediate.
    pub const SHIFT_RIGHT_IMMEDIATE: u8 = 0x77;
    /// Always jumps.
    pub const JUMP: u8 = 0x05;
    /// Jumps if the register is the immediate.
    pub const JUMP_EQUAL: u8 = 0x15;
    /// Jumps if the register is not the immediate.
    pub const JUMP_NOT_EQUAL: u8 = 0x55;
    /// Jumps if the register's lower half is not the immediate.
    pub const JUMP_NOT_EQUAL_32: u8 = 0x56;
    /// Calls a helper function, whose number is the immediate.
    pub const CALL: u8 = 0x85;
    /// Returns register 0.
    pub const EXIT: u8 = 0x95;
}

/// Says that the 64-bit immediate is a map's descriptor: BPF_PSEUDO_MAP_FD, as the source register.
pub const MAP: u8 = 1;

/// The register that points behind the stack.
pub const FRAME: u8 = 10;

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation: [`code`].
    pub code: u8,
    /// Destination in the low four bits, source in the high four.
    pub registers: u8,
    /// Distance of a jump in instructions, or offset in memory in bytes.
    pub offset: i16,
    /// An operand.
    pub immediate: i32,
}

/// An instruction.
pub const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// What a program is for, and where it is attached: `enum bpf_prog_type` and `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    program: u32,
    attach: u32,
}

impl Kind {
    /// Decides on accesses to devices in a cgroup.
    pub const CGROUP_DEVICE: Self = Self { program: 15, attach: 6 };

    /// Chooses the socket that a packet or connection is for, in a network namespace (Linux 5.9).
    pub const SK_LOOKUP: Self = Self { program: 30, attach: 36 };
}

/// `union bpf_attr`, as BPF_PROG_LOAD reads it.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Has the kernel check a program and keep it while it is open or attached.
///
/// # Errors
/// bpf(2)'s.
pub fn load(kind: Kind, program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let attributes = Load {
        prog_type: kind.program,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"stockade\0\0\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: kind.attach,
    };
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a NUL-terminated string; both outlive the call,
    // which only reads them and makes a descriptor.
    unsafe { made(bpf(BPF_PROG_LOAD, &attributes)) }
}

/// `union bpf_attr`, as BPF_PROG_ATTACH reads it.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Attaches a program to a cgroup, given by its directory, for as long as the cgroup exists.
///
/// # Errors
/// bpf(2)'s.
pub fn attach_to_cgroup(kind: Kind, program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: kind.attach,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: plain numbers, which the command only reads.
    done(unsafe { bpf(BPF_PROG_ATTACH, &attributes) })
}

/// `union bpf_attr`, as BPF_LINK_CREATE reads it.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a network namespace, until the returned descriptor is closed.
///
/// # Errors
/// bpf(2)'s.
pub fn attach_to_namespace(
    kind: Kind,
    program: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, Errno> {
    let attributes = Link {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: namespace.as_raw_fd() as u32,
        attach_type: kind.attach,
        flags: 0,
    };
    // SAFETY: plain numbers, which the command only reads; it makes a descriptor.
    unsafe { made(bpf(BPF_LINK_CREATE, &attributes)) }
}

/// `union bpf_attr`, as BPF_MAP_CREATE reads it.
#[repr(C)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr`, as BPF_MAP_UPDATE_ELEM reads it.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map from u32 to sockets, with these sockets from index 0 on. A socket leaves the map when it is closed.
///
/// # Errors
/// bpf(2)'s.
pub fn socket_map(sockets: &[BorrowedFd<'_>]) -> Result<OwnedFd, Errno> {
    let map = Map {
        map_type: BPF_MAP_TYPE_SOCKMAP,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: sockets.len() as u32,
    };
    // SAFETY: plain numbers, which the command only reads; it makes a descriptor.
    let map = unsafe { made(bpf(BPF_MAP_CREATE, &map)) }?;
    for (key, socket) in (0u32..).zip(sockets) {
        let value = socket.as_raw_fd() as u32;
        let element = Element {
            map_fd: map.as_raw_fd() as u32,
            padding: 0,
            key: &raw const key as u64,
            value: &raw const value as u64,
            flags: 0,
        };
        // SAFETY: key and value have the sizes with which the map was made, and outlive the call.
        done(unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) })?;
    }
    Ok(map)
}

/// # Safety
/// `attributes` must be what `command` reads, and its pointers must be valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> libc::c_long {
    // SAFETY: the size is that of the attributes; the rest is the caller's promise.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) }
}

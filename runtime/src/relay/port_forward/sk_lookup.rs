//! The program that hands connections to loopback addresses to a listener, whatever their port (BPF_PROG_TYPE_SK_LOOKUP,
//! Linux 5.9).

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::Context;

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;

/// `bpf_map_lookup_elem`, `bpf_sk_release` and `bpf_sk_assign`.
const LOOK_UP: i32 = 1;
const RELEASE: i32 = 86;
const ASSIGN: i32 = 124;

// struct bpf_sk_lookup
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

// Classes and operations (Documentation/bpf/standardization/instruction-set.rst)
const LOAD_32: u8 = 0x61;
const STORE_IMMEDIATE_32: u8 = 0x62;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const AND_IMMEDIATE: u8 = 0x57;
const LOAD_64_IMMEDIATE: u8 = 0x18;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// The 64-bit immediate is a map's descriptor.
const MAP: u8 = 1;

/// The lookup goes on, with the listener that was assigned if there was one.
const PASS: i32 = 1;

/// Where the map's key is, from the frame pointer.
const KEY: i16 = -4;

const RESULT: u8 = 0;
const ARGUMENT_1: u8 = 1;
const ARGUMENT_2: u8 = 2;
const ARGUMENT_3: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const VALUE: u8 = 8;
const FRAME: u8 = 10;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// Hands TCP connections to 127.0.0.0/8 to the socket 0 of the map, and those to ::1 to socket 1.
fn program(map: i32) -> Vec<Instruction> {
    let load = |offset| op(LOAD_32, VALUE, CONTEXT, offset, 0);
    // Jumps to `pass` are filled in at the end.
    let unless = |value| op(JUMP_NOT_EQUAL, VALUE, 0, 0, value);
    let mut program = vec![
        op(MOVE, CONTEXT, ARGUMENT_1, 0, 0),
        load(PROTOCOL),
        unless(libc::IPPROTO_TCP),
        op(STORE_IMMEDIATE_32, FRAME, 0, KEY, 0),
        load(FAMILY),
        op(JUMP_NOT_EQUAL, VALUE, 0, 4, libc::AF_INET),
        load(LOCAL_IP4),
        // In network byte order the first octet is the lowest on x86.
        op(AND_IMMEDIATE, VALUE, 0, 0, 0xff),
        unless(127),
        op(JUMP, 0, 0, 10, 0),
        unless(libc::AF_INET6),
        load(LOCAL_IP6),
        unless(0),
        load(LOCAL_IP6 + 4),
        unless(0),
        load(LOCAL_IP6 + 8),
        unless(0),
        load(LOCAL_IP6 + 12),
        unless(1i32.to_be()),
        op(STORE_IMMEDIATE_32, FRAME, 0, KEY, 1),
        op(LOAD_64_IMMEDIATE, ARGUMENT_1, MAP, 0, map),
        op(0, 0, 0, 0, 0),
        op(MOVE, ARGUMENT_2, FRAME, 0, 0),
        op(ADD_IMMEDIATE, ARGUMENT_2, 0, 0, KEY as i32),
        op(CALL, 0, 0, 0, LOOK_UP),
        op(JUMP_EQUAL, RESULT, 0, 0, 0),
        op(MOVE, SOCKET, RESULT, 0, 0),
        op(MOVE, ARGUMENT_1, CONTEXT, 0, 0),
        op(MOVE, ARGUMENT_2, SOCKET, 0, 0),
        op(MOVE_IMMEDIATE, ARGUMENT_3, 0, 0, 0),
        op(CALL, 0, 0, 0, ASSIGN),
        op(MOVE, ARGUMENT_1, SOCKET, 0, 0),
        op(CALL, 0, 0, 0, RELEASE),
    ];
    let pass = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL) && instruction.offset == 0 {
            instruction.offset = (pass - at - 1) as i16;
        }
    }
    program.extend([op(MOVE_IMMEDIATE, RESULT, 0, 0, PASS), op(EXIT, 0, 0, 0, 0)]);
    program
}

/// `union bpf_attr`, as BPF_MAP_CREATE reads it.
#[repr(C)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The same for BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for BPF_PROG_LOAD.
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

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Gives the listeners, the first for IPv4 and the second for IPv6, every connection to a loopback address that is made in
/// the network namespace, until what is returned is closed.
///
/// # Errors
/// The step, and bpf(2)'s error.
pub fn attach(namespace: BorrowedFd<'_>, listeners: &[TcpListener]) -> anyhow::Result<OwnedFd> {
    let map = Map { map_type: BPF_MAP_TYPE_SOCKMAP, key_size: 4, value_size: 4, max_entries: 2 };
    // SAFETY: plain numbers.
    let map = unsafe { bpf_descriptor(BPF_MAP_CREATE, &map) }.context("make a map of sockets")?;
    for (key, listener) in (0u32..).zip(listeners) {
        let value = listener.as_raw_fd() as u32;
        let element = Element {
            map_fd: map.as_raw_fd() as u32,
            padding: 0,
            key: &raw const key as u64,
            value: &raw const value as u64,
            flags: 0,
        };
        // SAFETY: key and value have the sizes with which the map was made, and outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.context("put a listener into the map")?;
    }
    let program = load(map.as_fd()).context("load the program that steers connections")?;
    let link = Link {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: namespace.as_raw_fd() as u32,
        attach_type: BPF_SK_LOOKUP,
        flags: 0,
    };
    // SAFETY: plain numbers.
    unsafe { bpf_descriptor(BPF_LINK_CREATE, &link) }.context("attach the program")
}

fn load(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let program = program(map.as_raw_fd());
    let load = Load {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"stockade_ports\0\0",
        prog_ifindex: 0,
        expected_attach_type: BPF_SK_LOOKUP,
    };
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a NUL-terminated string; both outlive the call.
    unsafe { bpf_descriptor(BPF_PROG_LOAD, &load) }
}

/// # Safety
/// As of [`bpf`]; the command returns a new descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// `attributes` must be what `command` reads, and its pointers must be valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the size is that of the attributes; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

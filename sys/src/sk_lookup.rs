//! Choosing sockets by a program (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9): what is sent to certain addresses and ports of a
//! network namespace goes to a socket of this process, which is bound elsewhere.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::bpf::{self, FRAME, Instruction, Kind, MAP, code, op};

/// `bpf_map_lookup_elem`, `bpf_sk_release` and `bpf_sk_assign`.
const LOOK_UP: i32 = 1;
const RELEASE: i32 = 86;
const ASSIGN: i32 = 124;

// struct bpf_sk_lookup
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

/// Result SK_PASS: the lookup goes on, with the assigned socket if there is one.
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

/// An address and port whose packets or connections go to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: i32,
    /// The address.
    pub address: Local,
    /// The port; `None` is any port.
    pub port: Option<u16>,
}

/// One of a network namespace's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// ::1.
    Loopback6,
    /// An IPv4 address.
    Address4([u8; 4]),
}

/// Gives what is sent to each destination to the socket beside it, until the returned descriptor is closed. The socket
/// must have the destination's family and protocol.
///
/// # Errors
/// bpf(2)'s.
pub fn attach(
    namespace: BorrowedFd<'_>,
    steered: &[(Destination, BorrowedFd<'_>)],
) -> Result<OwnedFd, Errno> {
    let sockets: Vec<_> = steered.iter().map(|(_, socket)| *socket).collect();
    let map = bpf::socket_map(&sockets)?;
    let destinations = steered.iter().map(|(destination, _)| *destination);
    let program = bpf::load(Kind::SK_LOOKUP, &program(destinations, map.as_raw_fd()))?;
    bpf::attach_to_namespace(Kind::SK_LOOKUP, program.as_fd(), namespace)
}

/// Compares what is looked up with one destination after the other, and assigns the first one's socket.
fn program(destinations: impl Iterator<Item = Destination>, map: i32) -> Vec<Instruction> {
    let mut program = vec![op(code::MOVE, CONTEXT, ARGUMENT_1, 0, 0)];
    for (key, destination) in (0..).zip(destinations) {
        let conditions = conditions(&destination);
        let assignment = assignment(key, map);
        let mut left = conditions.len() + assignment.len();
        for condition in conditions {
            left -= 1;
            let skips = if condition.code == code::JUMP_NOT_EQUAL { left as i16 } else { condition.offset };
            program.push(Instruction { offset: skips, ..condition });
        }
        program.extend(assignment);
    }
    program.extend([op(code::MOVE_IMMEDIATE, RESULT, 0, 0, PASS), op(code::EXIT, 0, 0, 0, 0)]);
    program
}

/// Each jump skips the rest of this destination; its distance is filled in when the length is known.
fn conditions(destination: &Destination) -> Vec<Instruction> {
    let load = |offset| op(code::LOAD_32, VALUE, CONTEXT, offset, 0);
    let unless = |value| op(code::JUMP_NOT_EQUAL, VALUE, 0, 0, value);
    let is = |offset, value| [load(offset), unless(value)];
    let mut program = is(PROTOCOL, destination.protocol).to_vec();
    match destination.address {
        Local::Loopback6 => {
            program.extend(is(FAMILY, libc::AF_INET6));
            let words = [0, 0, 0, 1i32.to_be()];
            program.extend((0..).zip(words).flat_map(|(word, value)| is(LOCAL_IP6 + 4 * word, value)));
        }
        Local::Address4(octets) => {
            program.extend(is(FAMILY, libc::AF_INET));
            program.extend(is(LOCAL_IP4, i32::from_ne_bytes(octets)));
        }
    }
    program.extend(destination.port.map(|port| is(LOCAL_PORT, port.into())).into_iter().flatten());
    program
}

fn assignment(key: i32, map: i32) -> Vec<Instruction> {
    let return_pass = [op(code::MOVE_IMMEDIATE, RESULT, 0, 0, PASS), op(code::EXIT, 0, 0, 0, 0)];
    let mut program = vec![
        op(code::STORE_IMMEDIATE_32, FRAME, 0, KEY, key),
        op(code::LOAD_64_IMMEDIATE, ARGUMENT_1, MAP, 0, map),
        op(0, 0, 0, 0, 0),
        op(code::MOVE, ARGUMENT_2, FRAME, 0, 0),
        op(code::ADD_IMMEDIATE, ARGUMENT_2, 0, 0, KEY.into()),
        op(code::CALL, 0, 0, 0, LOOK_UP),
        // The socket has been closed.
        op(code::JUMP_EQUAL, RESULT, 0, 7, 0),
        op(code::MOVE, SOCKET, RESULT, 0, 0),
        op(code::MOVE, ARGUMENT_1, CONTEXT, 0, 0),
        op(code::MOVE, ARGUMENT_2, SOCKET, 0, 0),
        op(code::MOVE_IMMEDIATE, ARGUMENT_3, 0, 0, 0),
        op(code::CALL, 0, 0, 0, ASSIGN),
        op(code::MOVE, ARGUMENT_1, SOCKET, 0, 0),
        op(code::CALL, 0, 0, 0, RELEASE),
    ];
    program.extend(return_pass);
    program
}

#[cfg(test)]
#[path = "sk_lookup_test.rs"]
mod tests;

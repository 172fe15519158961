//! The socket of stockade's own shim, called as containerd calls it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost_reflect::prost::encoding::{decode_varint, encode_varint};

/// Longest that one answer may take before its test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// What precedes a message in ttrpc: its length, its stream, its type and its flags.
const HEADER: usize = 10;

const REQUEST: u8 = 1;

/// The types of protobuf's fields.
const NUMBER: u64 = 0;
const BYTES: u64 = 2;

/// A shim's socket.
pub struct ShimSocket(PathBuf);

impl ShimSocket {
    /// The one that the bundle names.
    pub fn of_bundle(bundle: &Path) -> Self {
        let address = fs::read_to_string(bundle.join("address")).expect("the shim's address");
        Self(address.trim_end().strip_prefix("unix://").expect("a UNIX socket").into())
    }

    /// Calls a method with a message; the answer's message, or what the shim refuses it with.
    ///
    /// # Errors
    /// The refusal's text.
    pub fn call(&self, service: &str, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.begin(service, method, message).answer()
    }

    /// Sends a request. The shim reads it before those that are sent afterwards.
    pub fn begin(&self, service: &str, method: &str, message: &[u8]) -> Pending {
        let mut stream = UnixStream::connect(&self.0).expect("connect to the shim");
        stream.set_read_timeout(Some(LIMIT)).expect("timeout");
        let request = [field(1, service.as_bytes()), field(2, method.as_bytes()), field(3, message)].concat();
        let length = u32::try_from(request.len()).expect("a short request").to_be_bytes();
        stream
            .write_all(&[&length[..], &1_u32.to_be_bytes(), &[REQUEST, 0], &request].concat())
            .expect("request");
        Pending(stream)
    }
}

/// A request that the shim has not answered yet.
pub struct Pending(UnixStream);

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The refusal's text.
    pub fn answer(self) -> Result<Vec<u8>, String> {
        let mut stream = self.0;
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).expect("the answer's header");
        let length = u32::from_be_bytes(header[..4].try_into().expect("four bytes"));
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).expect("the answer");
        match bytes(&answer, 1) {
            Some(status) if !status.is_empty() => {
                Err(String::from_utf8(bytes(&status, 2).unwrap_or_default()).expect("text"))
            }
            _ => Ok(bytes(&answer, 2).unwrap_or_default()),
        }
    }
}

/// A field of protobuf that holds a text or a message.
pub fn field(number: u64, value: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_varint(number << 3 | BYTES, &mut encoded);
    encode_varint(value.len() as u64, &mut encoded);
    encoded.extend_from_slice(value);
    encoded
}

/// A field that holds a number.
pub fn number(number: u64, value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_varint(number << 3 | NUMBER, &mut encoded);
    encode_varint(value, &mut encoded);
    encoded
}

/// The value of a field that holds a text or a message.
fn bytes(mut message: &[u8], number: u64) -> Option<Vec<u8>> {
    while !message.is_empty() {
        let key = decode_varint(&mut message).expect("a key");
        let value = decode_varint(&mut message).expect("a number or a length");
        match key & 7 {
            NUMBER => {}
            BYTES => {
                let (value, rest) = message.split_at(value as usize);
                if key >> 3 == number {
                    return Some(value.to_vec());
                }
                message = rest;
            }
            kind => panic!("a field of type {kind}"),
        }
    }
    None
}

//! Every message, from bytes in pieces: what is understood is a message that can be sent again.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::agent::{
    ContainerEvent, Hello, HelloReply, ProcessCommand, ProcessEvent, Ready, Request, Response,
};
use stockade_protocol::frame::{self, FrameBuffer, GUEST_LIMIT};
use stockade_protocol::vmm;

/// Messages of the kind that the first byte names.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 13 {
        0 => all::<Ready>(bytes),
        1 => all::<Hello>(bytes),
        2 => all::<HelloReply>(bytes),
        3 => all::<Request>(bytes),
        4 => all::<Response>(bytes),
        5 => all::<ProcessCommand>(bytes),
        6 => all::<ProcessEvent>(bytes),
        7 => all::<ContainerEvent>(bytes),
        8 => all::<vmm::Request>(bytes),
        9 => all::<vmm::Response>(bytes),
        10 => all::<vmm::FilesRequest>(bytes),
        11 => all::<vmm::FilesResponse>(bytes),
        _ => all::<vmm::Status>(bytes),
    }
}

fn all<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let mut buffer = FrameBuffer::new(GUEST_LIMIT);
    let mut collected = Vec::new();
    let mut is_broken = false;
    for piece in bytes.chunks(1 + usize::from(bytes.first().copied().unwrap_or(0) % 64)) {
        buffer.extend(piece);
        loop {
            match buffer.next::<T>() {
                Ok(Some(message)) => collected.push(message),
                Ok(None) => break,
                Err(error) => {
                    is_broken = true;
                    let _ = error.to_string();
                    break;
                }
            }
        }
        if is_broken {
            break;
        }
    }
    // The same from a stream that is read message by message.
    let mut stream = bytes;
    for message in collected {
        assert_eq!(frame::read(&mut stream, GUEST_LIMIT).unwrap(), sent(&message));
    }
    if is_broken {
        assert!(frame::read::<T>(&mut stream, GUEST_LIMIT).is_err());
    }
}

/// The message, sent and received.
fn sent<T: Serialize + DeserializeOwned>(message: &T) -> Option<T> {
    let frame = frame::encode(message).unwrap();
    frame::read(&mut &frame[..], usize::MAX).unwrap()
}

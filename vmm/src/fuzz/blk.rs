//! A disk: whatever the guest asks for, its backing keeps its length, and one that is read-only its bytes.

use std::{fs::File, io::Write, os::unix::fs::FileExt};

use nix::sys::memfd::{MFdFlags, memfd_create};
use stockade_protocol::vmm::Disk;

use super::{input::Input, queues};
use crate::devices::blk::Blk;

/// Bytes of the backing: a few sectors and a part of one.
const SIZE: usize = 8 * 512 + 100;
const CONTENT: [u8; SIZE] = [0x5a; SIZE];

/// Requests of all kinds.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let readonly = input.u8() & 1 != 0;
    let mut file = File::from(memfd_create("disk", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(&CONTENT).unwrap();
    let disk = Disk { readonly, serial: "a disk".into() };
    let blk = Blk::new(disk, vec![file.try_clone().unwrap().into()]).unwrap();
    queues::drive(blk.device().requests(), 1, &mut input);

    assert_eq!(file.metadata().unwrap().len(), SIZE as u64, "the backing has another length");
    let mut content = [0; SIZE];
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(content[8 * 512..], CONTENT[8 * 512..], "what is no whole sector has changed");
    assert!(!readonly || content == CONTENT, "a read-only disk has changed");
}

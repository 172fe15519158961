use std::{fs::File, io::Write, os::unix::fs::FileExt};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Error, Kernel, find_pvh_entry, load};
use crate::memory;

const TEXT: u64 = 0x100_0000;
const TEXT_SIZE: u64 = 0x20_1800;
const DATA: u64 = 0x140_0800;
const DATA_SIZE: u64 = 0x1234;
const NOTE: [u8; 24] = *b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0\x23\x01\0\x01\0\0\0\0";

/// A segment: type, flags, offset, address, size in the file, size in memory.
fn segment(kind: u32, flags: u32, offset: u64, address: u64, file_size: u64, memory_size: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend(flags.to_le_bytes());
    for field in [offset, 0xffff_ffff_8000_0000 + address, address, file_size, memory_size, 4] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// Text with a part that can be mapped, data that starts in the middle of a page and has a bss, a note.
fn kernel_bytes() -> Vec<u8> {
    let (text, data, note) = (0x1000, 0x20_4800, 0x20_6000);
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(0x20_6018, 0);
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..58].copy_from_slice(&[56, 0, 3, 0]);
    let headers = [
        segment(1, 5, text, TEXT, TEXT_SIZE, TEXT_SIZE),
        segment(1, 6, data, DATA, DATA_SIZE, DATA_SIZE + 0x3000),
        segment(4, 0, note, 0, 24, 24),
    ]
    .concat();
    bytes[64..64 + headers.len()].copy_from_slice(&headers);
    for (index, byte) in bytes[0x1000..0x20_6000].iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    bytes[0x20_6000..].copy_from_slice(&NOTE);
    bytes
}

fn load_bytes(bytes: &[u8]) -> (GuestMemoryMmap, Result<Kernel, Error>) {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let memory = memory::reserve(memory::Size { memory_mib: 32, most_mib: 0 }).unwrap();
    let kernel = load(&memory, &file);
    (memory, kernel)
}

#[test]
fn segments_are_where_they_say_and_bss_is_zero() {
    let bytes = kernel_bytes();
    let (memory, kernel) = load_bytes(&bytes);
    assert_eq!(kernel.unwrap(), Kernel { entry: 0x100_0123, end: DATA + DATA_SIZE + 0x3000 });
    let mut text = vec![0; TEXT_SIZE as usize];
    memory.read_slice(&mut text, GuestAddress(TEXT)).unwrap();
    assert!(text == bytes[0x1000..0x1000 + TEXT_SIZE as usize]);
    let mut data = vec![0xff; DATA_SIZE as usize + 0x3000];
    memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
    assert!(data[..DATA_SIZE as usize] == bytes[0x20_4800..0x20_4800 + DATA_SIZE as usize]);
    assert!(data[DATA_SIZE as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_guest_does_not_write_to_the_file() {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = kernel_bytes();
    file.write_all(&bytes).unwrap();
    let memory = memory::reserve(memory::Size { memory_mib: 32, most_mib: 0 }).unwrap();
    load(&memory, &file).unwrap();
    for place in (TEXT..TEXT + TEXT_SIZE).step_by(0x800) {
        memory.write_obj(!0u64, GuestAddress(place)).unwrap();
    }
    let mut after = vec![0; bytes.len()];
    file.read_exact_at(&mut after, 0).unwrap();
    assert!(after == bytes);
}

#[test]
fn what_is_no_kernel_is_told_apart() {
    let text = |bytes: &[u8]| load_bytes(bytes).1.unwrap_err().to_string();
    assert!(text(b"").contains("not an ELF file"));
    assert!(text(&[b'M'; 4096]).contains("bzImage must be uncompressed"));
    let change = |at: usize, value: u8| {
        let mut bytes = kernel_bytes();
        bytes[at] = value;
        text(&bytes)
    };
    assert!(change(18, 183).contains("not a little-endian 64-bit x86"));
    assert!(change(0x20_6000 + 8, 1).contains("CONFIG_PVH"));
    assert!(change(56, 200).contains("damaged"));
    assert!(text(&kernel_bytes()[..0x10_0000]).contains("truncated"));
}

#[test]
fn a_kernel_larger_than_memory_is_refused() {
    let mut bytes = kernel_bytes();
    bytes[64 + 56 + 40..64 + 56 + 48].copy_from_slice(&(64u64 << 20).to_le_bytes());
    assert!(matches!(load_bytes(&bytes).1, Err(Error::Place(memory::Error::Outside { .. }))));
}

proptest! {
    #[test]
    fn no_damage_to_the_headers_panics(at in 0usize..64 + 3 * 56, value in any::<u64>()) {
        let mut bytes = kernel_bytes();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let _ = load_bytes(&bytes);
    }

    #[test]
    fn no_notes_panic(notes in prop::collection::vec(any::<u8>(), 0..200), align in prop_oneof![Just(4), Just(8)]) {
        let _ = find_pvh_entry(&notes, align);
    }
}

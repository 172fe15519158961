use std::{fs::File, io::Read, os::unix::fs::FileExt};

use proptest::prelude::*;
use stockade_protocol::vmm::{Config, Template};
use vm_memory::{Bytes, GuestAddress};

use super::{
    Invalid,
    format::{framed, parse, read, write},
    ram::{self, Range},
    state::fixture,
};
use crate::memory::{self, MMIO_END, Size};

fn bytes() -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    write(&file, &fixture()).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn implausible(change: impl FnOnce(&mut super::State)) -> Invalid {
    let mut state = fixture();
    change(&mut state);
    parse(&framed(&postcard::to_stdvec(&state).unwrap())).err().unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let file = tempfile::tempfile().unwrap();
    write(&file, &fixture()).unwrap();
    let state = read(&file).unwrap();
    assert_eq!((state.ram, state.host), (fixture().ram, 42));
}

#[test]
fn an_empty_file_and_one_without_its_frame_are_not_finished() {
    assert!(matches!(read(&tempfile::tempfile().unwrap()), Err(Invalid::Magic)));
    let mut bytes = bytes();
    bytes[..24].fill(0);
    assert!(matches!(parse(&bytes), Err(Invalid::Magic)));
}

#[test]
fn a_file_that_is_cut_or_longer_by_a_byte_is_refused() {
    let bytes = bytes();
    assert!(matches!(parse(&bytes[..bytes.len() - 1]), Err(Invalid::Length { .. })));
    assert!(matches!(parse(&[&bytes[..], b"x"].concat()), Err(Invalid::Length { .. })));
}

#[test]
fn a_byte_that_has_changed_anywhere_is_found() {
    let bytes = bytes();
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(parse(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_file_of_another_version_is_refused() {
    let mut bytes = bytes();
    bytes[8] += 1;
    assert!(matches!(parse(&bytes), Err(Invalid::Version(2))));
}

#[test]
fn a_huge_file_is_not_read() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(read(&file), Err(Invalid::Length { .. })));
}

#[test]
fn what_no_machine_can_be_is_refused() {
    let reasons = [
        implausible(|state| state.vcpus.clear()),
        implausible(|state| state.vcpus.extend([Default::default(), Default::default()])),
        implausible(|state| state.chips.swap(0, 1)),
        implausible(|state| state.devices.resize(100, Default::default())),
        implausible(|state| state.ram.push(Range { start: 0, length: 4096 })),
        implausible(|state| state.ram.push(Range { start: 64 << 20, length: 4096 })),
        implausible(|state| state.ram.push(Range { start: MMIO_END.0, length: 4096 })),
        implausible(|state| state.ram.push(Range { start: u64::MAX - 4095, length: 4096 })),
        implausible(|state| state.ram.push(Range { start: 0x20_0000, length: 0 })),
        implausible(|state| state.ram.push(Range { start: 0x20_0001, length: 4096 })),
    ];
    for reason in reasons {
        assert!(matches!(reason, Invalid::Implausible(_)), "{reason}");
    }
}

#[test]
fn a_template_is_for_one_configuration_and_one_host() {
    let state = fixture();
    let same = Config { user: None, template: Template::Use, ..state.config.clone() };
    assert!(state.is_of(&same, 42));
    assert!(state.is_of(&Config { user: Some(1), ..same.clone() }, 42), "each VM has a user of its own");
    assert!(!state.is_of(&same, 43));
    assert!(!state.is_of(&Config { memory_mib: 65, ..same.clone() }, 42));
    assert!(!state.is_of(&Config { vcpus: 1, ..same.clone() }, 42));
    assert!(!state.is_of(&Config { kernel_parameters: "debug".into(), ..same.clone() }, 42));
    assert!(!state.is_of(&Config { most_memory_mib: 128, ..same }, 42));
}

/// RAM with a few bytes here and there, below and above the hole, and the file that it is written to.
fn saved(size: Size) -> (File, Vec<Range>) {
    let memory = memory::reserve(size).unwrap();
    for (address, byte) in
        [(0, 1u8), (0x10_0fff, 2), (0x10_1000, 3), (0x20_0000, 4), (MMIO_END.0 + 0x5000, 5)]
    {
        memory.write_obj(byte, GuestAddress(address)).unwrap();
    }
    let file = tempfile::tempfile().unwrap();
    let ranges = ram::write(&memory, size, &file).unwrap();
    (file, ranges)
}

const MIB: u64 = 1 << 20;
const SIZE: Size = Size { memory_mib: 384, most_mib: 1024 };

#[test]
fn clones_have_the_pages_of_the_template_and_write_to_their_own() {
    let (file, ranges) = saved(SIZE);
    assert_eq!(ranges[0], Range { start: 0, length: 4096 });
    assert_eq!(ranges[1], Range { start: 0x10_0000, length: 0x2000 });
    assert_eq!(ranges.len(), 4);
    assert!(ram::are_plausible(&ranges, SIZE));
    let clones = [(); 2].map(|()| memory::reserve(SIZE).unwrap());
    for clone in &clones {
        let fresh = ram::map(clone, SIZE, &file, &ranges).unwrap();
        let between = Range { start: 0x20_1000, length: 256 * MIB - 0x20_1000 };
        let above = Range { start: MMIO_END.0 + 0x6000, length: 128 * MIB - 0x6000 };
        assert_eq!(fresh.ranges, [between, above], "a huge page has room nowhere else");
        let byte = |address| clone.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0, 0x10_0fff, 0x10_1000, 0x20_0000, MMIO_END.0 + 0x5000].map(byte), [1, 2, 3, 4, 5]);
        assert_eq!([1, 0x40_0000, MMIO_END.0].map(byte), [0; 3]);
        clone.write_obj(9u8, GuestAddress(0x20_0000)).unwrap();
    }
    let mut first = [0];
    (&file).take(0).read_to_end(&mut Vec::new()).unwrap();
    file.read_exact_at(&mut first, 0x20_0000).unwrap();
    assert_eq!(first, [4], "a clone has written to its template");
}

#[test]
fn only_pages_of_the_template_are_made_a_clones_own_and_not_too_many() {
    let range = |start, length| Range { start, length };
    let ranges = [range(0, 16 * MIB), range(64 * MIB, 4096), range(MMIO_END.0, 8192)];
    let hot = |pages: &[(u32, u32)]| ram::hot(pages, &ranges, SIZE);
    let above = (256 * MIB / 4096) as u32;
    assert_eq!(hot(&[(1, 2), (above, 2)]), [range(4096, 8192), range(MMIO_END.0, 8192)]);
    let elsewhere = [(5000, 1), (4095, 2), (above + 1, 2), (u32::MAX, u32::MAX), (0, u32::MAX), (1, 0)];
    assert_eq!(hot(&elsewhere), Vec::<Range>::new(), "some are none of the template's, or none at all");
    assert_eq!(hot(&[(0, 2000), (2000, 100)]), [range(0, 2000 * 4096), range(2000 * 4096, 48 * 4096)]);
    let (file, saved) = saved(SIZE);
    let clone = memory::reserve(SIZE).unwrap();
    ram::map(&clone, SIZE, &file, &saved).unwrap();
    memory::make_own(&clone, 0x10_0000, 0x2000);
    assert_eq!(clone.read_obj::<u8>(GuestAddress(0x10_1000)).unwrap(), 3);
}

#[test]
fn ram_that_is_cut_is_not_mapped() {
    let (file, ranges) = saved(SIZE);
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let clone = memory::reserve(SIZE).unwrap();
    assert!(ram::map(&clone, SIZE, &file, &ranges).is_err());
    assert_eq!(clone.read_obj::<u8>(GuestAddress(0)).unwrap(), 0, "nothing is mapped then");
}

proptest! {
    #[test]
    fn no_content_makes_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&content);
        let _ = parse(&framed(&content));
    }
}

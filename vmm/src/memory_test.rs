use std::{fs::File, io::Write};

use proptest::prelude::*;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

use super::{Error, Growth, HUGE_PAGE_SIZE, MMIO_END, Size, map_file, open, read_file};

fn reserve(memory_mib: u32) -> Result<GuestMemoryMmap, Error> {
    super::reserve(Size { memory_mib, most_mib: 0 })
}

fn growth(memory_mib: u32, most_mib: u32) -> Option<Growth> {
    Size { memory_mib, most_mib }.growth()
}

fn file() -> (File, Vec<u8>) {
    let bytes: Vec<u8> = (0..60_000u32).map(|index| (index % 253) as u8 + 1).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    (file, bytes)
}

#[test]
fn ram_beyond_what_boots_is_above_the_hole() {
    let memory = reserve(300).unwrap();
    let regions: Vec<_> = memory.iter().map(|region| (region.start_addr(), region.len())).collect();
    assert_eq!(regions, [(GuestAddress(0), 256 << 20), (MMIO_END, 128 << 20)]);
    for region in memory.iter() {
        let host = region.as_ptr() as u64;
        assert_eq!(host % HUGE_PAGE_SIZE, region.start_addr().raw_value() % HUGE_PAGE_SIZE);
    }
}

#[test]
fn a_small_guest_boots_with_all_it_has() {
    assert_eq!(growth(256, 0), None);
    assert_eq!(reserve(128).unwrap().num_regions(), 1);
    let start = MMIO_END.0;
    assert_eq!(growth(300, 0), Some(Growth { region: start..start + (128 << 20), size: 44 << 20 }));
}

#[test]
fn a_guest_may_grow_later_by_as_much_as_its_most_allows() {
    let start = MMIO_END.0;
    assert_eq!(growth(128, 1024), Some(Growth { region: start..start + (896 << 20), size: 0 }));
    let growth = growth(512, 4096).unwrap();
    assert_eq!(growth, Growth { region: start..start + (3840 << 20), size: 256 << 20 });
    assert_eq!(growth.usable(257 << 20), 384 << 20);
    assert_eq!(growth.usable(u64::MAX / 2), 3840 << 20);
}

#[test]
fn what_is_opened_can_be_written() {
    let memory = super::reserve(Size { memory_mib: 128, most_mib: 1024 }).unwrap();
    open(&memory, MMIO_END, 128 << 20).unwrap();
    memory.write_obj(7u8, GuestAddress(MMIO_END.0 + (128 << 20) - 1)).unwrap();
    assert!(open(&memory, MMIO_END, 1024 << 20).is_err(), "more than there is");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for memory_mib in [0, 31, u32::MAX] {
        assert!(matches!(reserve(memory_mib), Err(Error::Size(_))));
    }
}

#[test]
fn a_file_does_not_leave_ram() {
    let (file, _) = file();
    let memory = reserve(32).unwrap();
    for address in [32 << 20, (32 << 20) - 100, u64::MAX - 10] {
        assert!(matches!(read_file(&memory, address, &file, 0, 4096), Err(Error::Outside { .. })));
        assert!(matches!(map_file(&memory, address, &file, 0, 4096), Err(Error::Outside { .. })));
    }
}

#[test]
fn a_truncated_file_is_an_error() {
    let (file, bytes) = file();
    let memory = reserve(32).unwrap();
    let error = read_file(&memory, 0x10_0000, &file, 0, bytes.len() as u64 + 1);
    assert!(matches!(error, Err(Error::Read(_))));
}

proptest! {
    #[test]
    fn mapped_and_read_bytes_are_the_file_s(
        address in 0x10_0000u64..0x10_4000,
        offset in 0u64..9000,
        length in 0u64..40_000,
        aligned in any::<bool>(),
    ) {
        let (file, bytes) = file();
        let memory = reserve(32).unwrap();
        // As in an ELF file, where both are equal modulo the size of a page.
        let offset = if aligned { offset / 4096 * 4096 + address % 4096 } else { offset };
        map_file(&memory, address, &file, offset, length).unwrap();
        let mut placed = vec![0; length as usize + 2];
        memory.read_slice(&mut placed, GuestAddress(address - 1)).unwrap();
        prop_assert_eq!(placed[0], 0);
        prop_assert_eq!(placed[length as usize + 1], 0);
        let (from, to) = (offset as usize, (offset + length) as usize);
        prop_assert!(placed[1..=length as usize] == bytes[from..to]);
    }
}

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Cpus, Error, MP_CONFIGURATION, MP_POINTER, configuration, write};

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn the_pointer_leads_to_the_table_and_both_add_up_to_zero() {
    let memory = memory();
    write(&memory, Cpus { listed: 4, lines: &[4, 5, 6] }).unwrap();
    let pointer: [u8; 16] = memory.read_obj(MP_POINTER).unwrap();
    assert_eq!(&pointer[..4], b"_MP_");
    assert_eq!(sum(&pointer), 0);
    assert_eq!(u64::from(u32::from_le_bytes(pointer[4..8].try_into().unwrap())), MP_CONFIGURATION.0);
    let header: [u8; 8] = memory.read_obj(MP_CONFIGURATION).unwrap();
    let mut table = vec![0; u16::from_le_bytes([header[4], header[5]]).into()];
    memory.read_slice(&mut table, MP_CONFIGURATION).unwrap();
    assert_eq!(&table[..4], b"PCMP");
    assert_eq!(sum(&table), 0);
}

#[test]
fn entries_are_counted_and_fill_the_table() {
    for (listed, lines) in [(1, &[4][..]), (32, &[4, 5, 6, 7, 9])] {
        let table = configuration(Cpus { listed, lines });
        let others = 2 + lines.len() + 2;
        assert_eq!(usize::from(u16::from_le_bytes([table[34], table[35]])), usize::from(listed) + others);
        assert_eq!(table.len(), 44 + usize::from(listed) * 20 + others * 8);
        // The first CPU boots, the second only may.
        assert_eq!(table[44 + 3], 3);
        if listed > 1 {
            assert_eq!(table[64 + 3], 1);
        }
    }
}

#[test]
fn cpus_beyond_what_the_table_holds_are_refused() {
    for listed in [255, 254] {
        let fits = write(&memory(), Cpus { listed, lines: &[4] });
        assert_eq!(matches!(fits, Err(Error::TooManyCpus(_))), listed == 255);
    }
}

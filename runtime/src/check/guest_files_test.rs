use super::*;
use proptest::prelude::*;
use std::io::Cursor;

/// An ELF whose only segment holds one note.
fn elf(name: &[u8; 4], kind: u32) -> Vec<u8> {
    let mut bytes = vec![0u8; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = PT_NOTE as u8;
    bytes[72] = 120;
    bytes[96] = 20;
    bytes.extend_from_slice(&[4u32, 4, kind].map(u32::to_le_bytes).concat());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

#[test]
fn a_pvh_kernel_is_recognised() {
    assert!(has_pvh_entry(&mut Cursor::new(elf(b"Xen\0", PHYS32_ENTRY))).unwrap());
    assert!(!has_pvh_entry(&mut Cursor::new(elf(b"GNU\0", PHYS32_ENTRY))).unwrap());
    assert!(!has_pvh_entry(&mut Cursor::new(elf(b"Xen\0", 1))).unwrap());
    assert!(!has_pvh_entry(&mut Cursor::new(b"MZ, a bzImage")).unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..512),
        as_elf in any::<bool>(),
    ) {
        if as_elf && bytes.len() > 6 {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        }
        let _ = has_pvh_entry(&mut Cursor::new(bytes.clone()));
        let _ = find_note(&bytes);
    }
}

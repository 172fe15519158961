use vm_memory::{Bytes, GuestAddress};

use super::{MAGIC, Module, write};
use crate::{boot::START_INFO, memory};

fn fields(memory_mib: u32) -> (Vec<u64>, Vec<(u64, u64)>, String) {
    let memory = memory::reserve(memory::Size { memory_mib, most_mib: 0 }).unwrap();
    write(&memory, "console=ttyS0 quiet", Module { start: 0x200_0000, length: 0x1234 }).unwrap();
    let word = |offset: u64| memory.read_obj::<u64>(GuestAddress(START_INFO.0 + offset)).unwrap();
    let info: Vec<_> = (0..7).map(|index| word(8 * index)).collect();
    assert_eq!(info[0] as u32, MAGIC);
    let module = info[2] - START_INFO.0;
    assert_eq!((word(module), word(module + 8)), (0x200_0000, 0x1234));
    let ram = (0..info[6])
        .map(|index| info[5] - START_INFO.0 + 24 * index)
        .filter(|entry| word(entry + 16) == 1)
        .map(|entry| (word(entry), word(entry + 8)))
        .collect();
    let mut line = [0; 64];
    memory.read_slice(&mut line, GuestAddress(info[3])).unwrap();
    let end = line.iter().position(|byte| *byte == 0).unwrap();
    (info, ram, String::from_utf8(line[..end].to_vec()).unwrap())
}

#[test]
fn the_kernel_finds_its_command_line_and_its_memory() {
    let (_, ram, line) = fields(64);
    assert_eq!(line, "console=ttyS0 quiet");
    assert_eq!(ram, [(0, 0x9_d000), (0x10_0000, (64 << 20) - 0x10_0000)]);
}

#[test]
fn memory_that_is_plugged_later_is_not_listed() {
    let (_, ram, _) = fields(5 << 10);
    assert_eq!(ram, [(0, 0x9_d000), (0x10_0000, (256 << 20) - 0x10_0000)]);
}

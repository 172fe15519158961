//! The PVH start info (Xen's public/arch-x86/hvm/start_info.h): command line, initramfs, memory map.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{COMMAND_LINE, HIGH_MEMORY, START_INFO, TABLES_END, TABLES_START};
use crate::memory;

/// First field of the start info.
const MAGIC: u32 = 0x336e_c578;

/// Type in the memory map: usable.
const RAM: u32 = 1;

/// Type in the memory map: reserved, and not to be probed.
const RESERVED: u32 = 2;

/// Version of the start info that has a memory map.
const VERSION: u32 = 1;

const START_INFO_SIZE: u64 = 56;
const MODULE_SIZE: u64 = 32;

/// A file in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Guest physical address.
    pub start: u64,
    /// Length, in bytes.
    pub length: u64,
}

/// Writes the start info, its tables and the command line.
///
/// # Errors
/// Only where the guest has no memory at these addresses.
pub fn write(memory: &GuestMemoryMmap, command_line: &str, initramfs: Module) -> Result<(), memory::Error> {
    let modules = START_INFO.0 + START_INFO_SIZE;
    let map_start = modules + MODULE_SIZE;
    let map = memory_map(memory);

    let mut info = Vec::with_capacity(256);
    info.extend(MAGIC.to_le_bytes());
    info.extend(VERSION.to_le_bytes());
    info.extend(0u32.to_le_bytes()); // flags
    info.extend(1u32.to_le_bytes()); // number of modules
    info.extend(modules.to_le_bytes());
    info.extend(COMMAND_LINE.0.to_le_bytes());
    info.extend(0u64.to_le_bytes()); // no ACPI
    info.extend(map_start.to_le_bytes());
    info.extend((map.len() as u32).to_le_bytes());
    info.extend(0u32.to_le_bytes()); // reserved

    info.extend(initramfs.start.to_le_bytes());
    info.extend(initramfs.length.to_le_bytes());
    info.extend(0u64.to_le_bytes()); // no command line of its own
    info.extend(0u64.to_le_bytes()); // reserved

    for (start, end, kind) in map {
        info.extend(start.to_le_bytes());
        info.extend((end - start).to_le_bytes());
        info.extend(kind.to_le_bytes());
        info.extend(0u32.to_le_bytes()); // reserved
    }
    memory.write_slice(&info, START_INFO)?;
    memory.write_slice(command_line.as_bytes(), COMMAND_LINE)?;
    let terminator = GuestAddress(COMMAND_LINE.0 + command_line.len() as u64);
    Ok(memory.write_obj(0u8, terminator)?)
}

/// Start, end and type of each range. RAM above the MMIO hole is plugged later, and so is not listed.
fn memory_map(memory: &GuestMemoryMmap) -> [(u64, u64, u32); 3] {
    [
        (0, TABLES_START, RAM),
        (TABLES_START, TABLES_END, RESERVED),
        (HIGH_MEMORY, memory::boot_ram(memory), RAM),
    ]
}

#[cfg(test)]
#[path = "pvh_test.rs"]
mod tests;

//! From files to a guest that can run: kernel, initramfs, command line, the tables that describe the machine.
//!
//! What the kernel reads at its entry lies in the last pages of conventional memory:
//!
//! ```text
//!  9d000  MP configuration table
//!  9f000  PVH start info, its module list and its memory map
//!  9f200  command line
//!  9fc00  MP floating pointer (a kernel looks in the last KiB of base memory)
//! ```

pub mod command_line;
pub mod elf;
pub mod mp_table;
pub mod pvh;

use std::{fs::File, io};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::memory;

/// First address that is not free RAM for the guest.
const TABLES_START: u64 = 0x9_d000;

/// End of conventional memory.
const TABLES_END: u64 = 0xa_0000;

/// Address of the MP configuration table.
const MP_CONFIGURATION: GuestAddress = GuestAddress(TABLES_START);

/// Address of the PVH start info.
const START_INFO: GuestAddress = GuestAddress(0x9_f000);

/// Address of the command line.
const COMMAND_LINE: GuestAddress = GuestAddress(0x9_f200);

/// Address of the MP floating pointer.
const MP_POINTER: GuestAddress = GuestAddress(0x9_fc00);

/// First address of RAM above the legacy holes; kernels are loaded from here up.
const HIGH_MEMORY: u64 = 0x10_0000;

/// Why the guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's file is not a guest kernel.
    #[error("guest kernel: {0}")]
    Kernel(#[from] elf::Error),
    /// The initramfs does not fit or cannot be read.
    #[error("initramfs: {0}")]
    Initramfs(memory::Error),
    /// The initramfs's size is unknown.
    #[error("initramfs: {0}")]
    Size(io::Error),
    /// The command line is not valid.
    #[error("kernel command line: {0}")]
    CommandLine(#[from] command_line::Error),
    /// The MP table does not fit.
    #[error("MP table: {0}")]
    MpTable(#[from] mp_table::Error),
    /// Boot tables cannot be written.
    #[error("boot tables: {0}")]
    Tables(memory::Error),
}

/// The place at which the first vCPU starts, in 32-bit protected mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its instruction pointer.
    pub instruction: u64,
    /// The address of the PVH start info, for ebx.
    pub start_info: u64,
}

/// Puts all that the guest needs to boot into `memory`.
///
/// # Errors
/// Any [`Error`].
pub fn load(
    memory: &GuestMemoryMmap,
    kernel: &File,
    initramfs: &File,
    command_line: &str,
    cpus: mp_table::Cpus,
) -> Result<Entry, Error> {
    let kernel = elf::load(memory, kernel)?;
    let start = kernel.end.next_multiple_of(memory::PAGE_SIZE);
    let length = initramfs.metadata().map_err(Error::Size)?.len();
    memory::read_file(memory, start, initramfs, 0, length).map_err(Error::Initramfs)?;
    mp_table::write(memory, cpus)?;
    pvh::write(memory, command_line, pvh::Module { start, length }).map_err(Error::Tables)?;
    Ok(Entry { instruction: kernel.entry, start_info: START_INFO.0 })
}

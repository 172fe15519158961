//! The guest kernel: an uncompressed x86_64 ELF that says where its PVH entry is.
//!
//! The file is the host's, but a wrong one (a bzImage, another architecture's, a truncated one) is an everyday mistake,
//! and the error says so.

use std::{fs::File, io, os::unix::fs::FileExt};

use vm_memory::GuestMemoryMmap;

use super::HIGH_MEMORY;
use crate::memory;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const MAGIC: &[u8; 4] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const WRITABLE: u32 = 2;

/// Type of the note that holds the PVH entry (Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
const PHYS32_ENTRY: u32 = 18;

/// Largest number of program headers that are read; Linux has five.
const MAX_PROGRAM_HEADERS: u16 = 64;

/// Largest number of bytes of notes that are read; Linux has less than 200.
const MAX_NOTES: u64 = 64 << 10;

/// Why the file is not a guest kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The file is not an ELF.
    #[error("not an ELF file (a bzImage must be uncompressed first: use vmlinux)")]
    NotElf,
    /// The file is for another machine.
    #[error("not a little-endian 64-bit x86 ELF file")]
    Machine,
    /// The file's headers contradict each other.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
    /// The file has no PVH entry.
    #[error("has no PVH entry point: either not a kernel (vmlinux), or one built without CONFIG_PVH=y")]
    NoEntry,
    /// A segment cannot be placed.
    #[error(transparent)]
    Place(#[from] memory::Error),
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Physical address of the PVH entry.
    pub entry: u64,
    /// First address after the kernel and its bss.
    pub end: u64,
}

/// Maps the kernel's segments into guest memory.
///
/// # Errors
/// Any [`Error`].
pub fn load(memory: &GuestMemoryMmap, file: &File) -> Result<Kernel, Error> {
    let size = file.metadata().map_err(Error::Read)?.len();
    let headers = program_headers(file, size)?;
    let mut entry = None;
    for notes in headers.iter().filter(|header| header.kind == PT_NOTE) {
        entry = entry.or(pvh_entry(file, size, notes)?);
    }
    let entry = entry.ok_or(Error::NoEntry)?;
    let mut end = 0;
    for segment in headers.iter().filter(|header| header.kind == PT_LOAD) {
        end = end.max(place(memory, file, size, segment)?);
    }
    if !(HIGH_MEMORY..end).contains(&entry) {
        return Err(Error::Damaged("its entry point is outside its segments"));
    }
    Ok(Kernel { entry, end })
}

struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

impl ProgramHeader {
    fn parse(bytes: &[u8; PROGRAM_HEADER_SIZE]) -> Self {
        Self {
            kind: u32_at(bytes, 0),
            flags: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            address: u64_at(bytes, 24),
            file_size: u64_at(bytes, 32),
            memory_size: u64_at(bytes, 40),
            align: u64_at(bytes, 48),
        }
    }

    /// Whether the guest writes to this segment. It patches its text too, but with the shipped kernel only one page in
    /// seven.
    fn is_written(&self) -> bool {
        self.flags & WRITABLE != 0
    }
}

fn program_headers(file: &File, size: u64) -> Result<Vec<ProgramHeader>, Error> {
    let mut header = [0; HEADER_SIZE];
    if size < HEADER_SIZE as u64 {
        return Err(Error::NotElf);
    }
    file.read_exact_at(&mut header, 0).map_err(Error::Read)?;
    if !header.starts_with(MAGIC) {
        return Err(Error::NotElf);
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || u16_at(&header, 18) != MACHINE_X86_64 {
        return Err(Error::Machine);
    }
    let count = u16_at(&header, 56);
    if usize::from(u16_at(&header, 54)) != PROGRAM_HEADER_SIZE || count > MAX_PROGRAM_HEADERS {
        return Err(Error::Damaged("its program headers are not of the known form"));
    }
    let mut table = vec![0; usize::from(count) * PROGRAM_HEADER_SIZE];
    file.read_exact_at(&mut table, u64_at(&header, 32))
        .map_err(|_| Error::Damaged("its program headers are beyond its end"))?;
    let (headers, _) = table.as_chunks::<PROGRAM_HEADER_SIZE>();
    Ok(headers.iter().map(ProgramHeader::parse).collect())
}

/// Places one segment and returns the address after it. The bytes between file size and memory size are untouched RAM,
/// and so are zero.
fn place(memory: &GuestMemoryMmap, file: &File, size: u64, header: &ProgramHeader) -> Result<u64, Error> {
    if header.file_size > header.memory_size {
        return Err(Error::Damaged("a segment is larger in the file than in memory"));
    }
    if header.offset.checked_add(header.file_size).is_none_or(|end| end > size) {
        return Err(Error::Damaged("a segment is beyond its end: the file is truncated"));
    }
    if header.address < HIGH_MEMORY {
        return Err(Error::Damaged("a segment is below 1 MiB"));
    }
    let ram = memory::boot_ram(memory);
    let end = header.address.checked_add(header.memory_size).filter(|end| *end <= ram);
    let end =
        end.ok_or(memory::Error::Outside { address: header.address, length: header.memory_size, ram })?;
    let place = if header.is_written() { memory::read_file } else { memory::map_file };
    place(memory, header.address, file, header.offset, header.file_size)?;
    Ok(end)
}

/// Looks for the PVH entry among the notes of one segment.
fn pvh_entry(file: &File, size: u64, header: &ProgramHeader) -> Result<Option<u64>, Error> {
    if header.file_size > MAX_NOTES
        || header.offset.checked_add(header.file_size).is_none_or(|end| end > size)
    {
        return Err(Error::Damaged("its notes are beyond its end: the file is truncated"));
    }
    let mut notes = vec![0; header.file_size as usize];
    file.read_exact_at(&mut notes, header.offset).map_err(Error::Read)?;
    Ok(find_pvh_entry(&notes, if header.align == 8 { 8 } else { 4 }))
}

/// `notes` is a sequence of name size, descriptor size, type, name, descriptor, the last two padded to `align`.
fn find_pvh_entry(mut notes: &[u8], align: usize) -> Option<u64> {
    while notes.len() >= 12 {
        let (name_size, size) = (u32_at(notes, 0) as usize, u32_at(notes, 4) as usize);
        let start = 12 + name_size.next_multiple_of(align);
        let name = notes.get(12..12 + name_size)?;
        let descriptor = notes.get(start..start + size)?;
        if u32_at(notes, 8) == PHYS32_ENTRY && name == b"Xen\0" {
            return match size {
                4 => Some(u32_at(descriptor, 0).into()),
                8 => Some(u64_at(descriptor, 0)),
                _ => None,
            };
        }
        notes = notes.get(start + size.next_multiple_of(align)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "elf_test.rs"]
mod tests;

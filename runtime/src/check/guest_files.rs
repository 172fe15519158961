//! The files that a VM is made of.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Row;

/// `PT_NOTE` of the ELF program header.
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the kernel's PVH entry point.
const PHYS32_ENTRY: u32 = 18;
/// Longest note segment that is looked through, in bytes.
const NOTES_LIMIT: u64 = 1 << 20;

/// `stockade-vmm`.
pub fn vmm(path: &Path) -> Row {
    const NAME: &str = "VMM";
    let remedy = "build or install stockade, or set `vmm` in /etc/stockade/config.toml";
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
            Row::ok(NAME, path.display().to_string())
        }
        Ok(_) => Row::failed(NAME, format!("{} is not an executable file", path.display()), remedy),
        Err(cause) => Row::failed(NAME, format!("{}: {cause}", path.display()), remedy),
    }
}

/// The guest's kernel.
pub fn kernel(path: &Path) -> Row {
    const NAME: &str = "guest kernel";
    let remedy = "build or install stockade, or set `kernel` in /etc/stockade/config.toml to an uncompressed ELF \
                  vmlinux with CONFIG_PVH";
    match File::open(path).and_then(|mut file| has_pvh_entry(&mut file)) {
        Ok(true) => Row::ok(NAME, path.display().to_string()),
        Ok(false) => Row::failed(NAME, format!("{} is not an ELF with a PVH entry", path.display()), remedy),
        Err(cause) => Row::failed(NAME, format!("{}: {cause}", path.display()), remedy),
    }
}

/// The guest's initramfs.
pub fn initramfs(path: &Path) -> Row {
    const NAME: &str = "initramfs";
    let remedy = "build or install stockade, or set `initramfs` in /etc/stockade/config.toml";
    let mut magic = [0; 6];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if &magic == b"070701" => Row::ok(NAME, path.display().to_string()),
        Ok(()) => Row::failed(NAME, format!("{} is not a newc archive", path.display()), remedy),
        Err(cause) => Row::failed(NAME, format!("{}: {cause}", path.display()), remedy),
    }
}

fn has_pvh_entry(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut header = [0u8; 64];
    if file.read_exact(&mut header).is_err() || header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(false);
    }
    let (Some(offset), Some(size), Some(count)) =
        (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56))
    else {
        return Ok(false);
    };
    for index in 0..u64::from(count) {
        let mut program = [0u8; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(index * u64::from(size))))?;
        file.read_exact(&mut program)?;
        if u32_at(&program, 0) != Some(PT_NOTE) {
            continue;
        }
        let (Some(start), Some(length)) = (u64_at(&program, 8), u64_at(&program, 32)) else { continue };
        let mut notes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(length.min(NOTES_LIMIT)).read_to_end(&mut notes)?;
        if find_note(&notes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks for the Xen note with the PVH entry.
fn find_note(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(description), Some(kind)) =
        (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8))
    {
        if kind == PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let padded = |length: u32| (length as usize).next_multiple_of(4);
        let Some(rest) = notes.get(12 + padded(name) + padded(description)..) else { return false };
        notes = rest;
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
#[path = "guest_files_test.rs"]
mod tests;

//! The archive itself: newc, sorted, all times and inode numbers zero, owned by root, so that the same agent
//! always gives the same bytes.
//!
//! It is not compressed: the kernel would spend more on decompressing than it saves on copying, and the VMM
//! maps the file instead of reading it. Every entry costs the guest a create in its root, so nothing is in
//! here that the agent does not open or mount on.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

/// Directories that the agent mounts on, parents first.
const DIRECTORIES: [&str; 8] =
    ["dev", "proc", "run", "run/cgroup", "run/devices", "run/rootfs", "run/scratch", "run/shares"];

/// The kernel opens it as fds 0–2 of the agent: char device 5:1.
const CONSOLE: &str = "dev/console";

/// What the kernel executes.
const INIT: &str = "init";

/// The archive with `agent` as its /init.
pub fn build(agent: &[u8]) -> Result<Vec<u8>> {
    ensure!(agent.starts_with(b"\x7fELF"), "the agent is not an ELF executable");
    let mut names: Vec<&str> = DIRECTORIES.into_iter().chain([CONSOLE, INIT]).collect();
    names.sort_unstable();

    let mut archive = Vec::with_capacity(agent.len() + 4096);
    for name in names {
        let entry = Builder::new(name);
        match name {
            CONSOLE => {
                let entry = entry.mode(0o600).set_mode_file_type(ModeFileType::Char);
                append(&mut archive, entry.rdev_major(5).rdev_minor(1), &[])?;
            }
            INIT => append(&mut archive, entry.mode(0o500).set_mode_file_type(ModeFileType::Regular), agent)?,
            _ => append(&mut archive, entry.mode(0o755).set_mode_file_type(ModeFileType::Directory), &[])?,
        }
    }
    trailer(&mut archive)?;
    Ok(archive)
}

fn append(archive: &mut Vec<u8>, entry: Builder, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = entry.write(&mut *archive, size);
    writer.write_all(content)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
#[path = "initramfs_test.rs"]
mod tests;

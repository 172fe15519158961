//! Puts everything that is measured into memory.
//!
//! The lab's files come from outside through virtio-fs, and with --icount virtual time jumps while the machine waits
//! for the outside. So programs, their libraries, kernel and root file system are copied to the lab's tmpfs and
//! mounted over the originals.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Copies `file` to memory and mounts the copy over it; a missing file is left out.
fn pin(file: &Path, folder: &Path) -> Result<()> {
    let Ok(file) = file.canonicalize() else { return Ok(()) };
    let copy = folder.join(file.display().to_string().replace('/', "%"));
    if copy.exists() {
        return Ok(());
    }
    fs::copy(&file, &copy).with_context(|| format!("copy {}", file.display()))?;
    nix::mount::mount(Some(&copy), &file, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mount over {}", file.display()))
}

/// Pins programs, and the libraries that ldd names for them.
pub fn programs(programs: &[&str]) -> Result<()> {
    let folder = PathBuf::from("/tmp/bench-pinned");
    fs::create_dir_all(&folder)?;
    let mut files = BTreeSet::new();
    for program in programs {
        let path = find(program)?;
        let listed = Command::new("ldd").arg(&path).output().context("ldd")?;
        files.extend(
            String::from_utf8_lossy(&listed.stdout)
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
                .map(PathBuf::from),
        );
        files.insert(path);
    }
    files.insert("/etc/ld.so.cache".into());
    files.iter().try_for_each(|file| pin(file, &folder))
}

/// Pins a folder with all that is in it.
pub fn folder(folder: &str) -> Result<()> {
    let copy = format!("/tmp/bench-pinned{}", folder.replace('/', "%"));
    let copied = Command::new("cp").args(["-a", folder, &copy]).status()?;
    if !copied.success() {
        bail!("cp -a {folder}: {copied}");
    }
    nix::mount::mount(Some(copy.as_str()), folder, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mount over {folder}"))
}

fn find(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{program} is not in PATH: run `make setup`"),
    }
}

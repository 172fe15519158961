//! Puts everything that is measured into memory.
//!
//! The lab's files come from outside through virtio-fs, and with --icount virtual time jumps while the machine waits
//! for the outside. So the benchmark moves into a tmpfs root that holds copies of the programs, their libraries,
//! kernel and root file system: not even a look-up of a file that is not there leaves it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

/// Where the new root is made.
const ROOT: &str = "/tmp/bench-root";

/// Moves this process into a new root with these programs (with the libraries that ldd names), files and directories.
pub fn enter(programs: &[&str], files: &[&str], directories: &[&str]) -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    fs::create_dir_all(ROOT)?;
    mount(Some("bench"), ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for directory in ["tmp", "run", "etc", "old", "var"] {
        fs::create_dir_all(format!("{ROOT}/{directory}"))?;
    }
    symlink("/run", format!("{ROOT}/var/run"))?;
    for system in ["/proc", "/sys", "/dev"] {
        let target = format!("{ROOT}{system}");
        fs::create_dir_all(&target)?;
        mount(Some(system), target.as_str(), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    }
    for program in programs {
        let path = find(program)?;
        let listed = Command::new("ldd").arg(&path).output().context("ldd")?;
        let libraries = String::from_utf8_lossy(&listed.stdout).into_owned();
        copy(&path)?;
        libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .try_for_each(|file| copy(Path::new(file)))?;
    }
    files.iter().try_for_each(|file| copy(Path::new(file)))?;
    for directory in directories {
        let target = PathBuf::from(format!("{ROOT}{directory}"));
        fs::create_dir_all(target.parent().context("an absolute path")?)?;
        let copied = Command::new("cp").args(["-rL", directory]).arg(&target).status()?;
        if !copied.success() {
            bail!("cp -rL {directory}: {copied}");
        }
    }
    chdir(ROOT)?;
    pivot_root(".", "old").context("pivot_root")?;
    chdir("/")?;
    umount2("/old", MntFlags::MNT_DETACH).context("leave the old root")
}

/// Copies a file to its own path in the new root.
fn copy(file: &Path) -> Result<()> {
    let target = PathBuf::from(format!("{ROOT}{}", file.display()));
    fs::create_dir_all(target.parent().context("an absolute path")?)?;
    fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{program} is not in PATH: run `make setup`"),
    }
}

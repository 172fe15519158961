//! Mounts as they are (/proc/self/mountinfo), and mounts as config.json's order makes them.

use std::ffi::CString;
use std::fs;
use std::mem::zeroed;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One line of mountinfo.
#[derive(Clone, Debug)]
pub struct Mounted {
    pub id: u32,
    pub parent: u32,
    /// Which part of the file system it shows.
    pub root: String,
    pub point: PathBuf,
    /// Of this mount: `rw`, `nosuid` …
    pub options: Vec<String>,
    /// Peer groups: `shared:7`, `master:3`, `unbindable`.
    pub groups: Vec<String>,
    pub fstype: String,
    /// Of the file system: `size=64k` …
    pub data: Vec<String>,
}

/// All mounts that the process sees.
pub fn read() -> Result<Vec<Mounted>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    text.lines().map(|line| parse(line).with_context(|| format!("mountinfo line {line:?}"))).collect()
}

/// The ID of the mount that one comes to at a path.
pub fn visible_at(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: a statx of zeroes is one.
    let mut found: libc::statx = unsafe { zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the path is NUL-terminated, and statx fills the structure.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_MNT_ID, &raw mut found) };
    (result == 0).then_some(found.stx_mnt_id)
}

fn parse(line: &str) -> Option<Mounted> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mounted {
        id: mount.first()?.parse().ok()?,
        parent: mount.get(1)?.parse().ok()?,
        root: plain(mount.get(3)?),
        point: plain(mount.get(4)?).into(),
        options: words(mount.get(5)?),
        groups: mount.get(6..)?.iter().map(|group| (*group).to_owned()).collect(),
        fstype: (*file_system.first()?).to_owned(),
        data: words(file_system.get(2)?),
    })
}

/// Without the kernel's escapes.
fn plain(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

/// The mounts of config.json one after the other, each on what the path meant at its time.
#[derive(Debug, Default)]
pub struct Planned {
    /// What each covers: which mount (`None` is the root file system's), and its path.
    made: Vec<(Option<usize>, PathBuf)>,
}

impl Planned {
    /// Adds the next one and says on which of those before it comes to lie.
    pub fn add(&mut self, destination: &Path) -> Option<usize> {
        let mut on = None;
        let mut path = PathBuf::new();
        for part in destination.components() {
            path.push(part);
            // Several at one place lie on each other.
            while let Some(next) = self.made.iter().position(|made| *made == (on, path.clone())) {
                on = Some(next);
            }
        }
        self.made.push((on, path));
        on
    }
}

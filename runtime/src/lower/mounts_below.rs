//! The mounts of the host, as the caller sees them: a bind mount's flags begin with those of its source, and what is
//! mounted below the source keeps its own.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use stockade_protocol::share_options::Below;

use super::mount_options::Options;

/// The words of mountinfo for flags of a mount.
const FLAGS: [(&str, u64); 7] = [
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
    ("noatime", libc::MS_NOATIME),
    ("nodiratime", libc::MS_NODIRATIME),
    ("nosymfollow", libc::MS_NOSYMFOLLOW),
];

/// File systems whose files are the kernel's.
const OF_KERNEL: [&str; 13] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "selinuxfs",
    "bpf",
    "configfs",
    "pstore",
    "efivarfs",
    "binfmt_misc",
];

/// The file system of terminals.
const DEVPTS: &str = "devpts";

/// Largest number of mounts below one source that the guest is told of; the rest have the flags of the mount itself.
pub const MAX_MOUNTS: usize = 1024;

/// Mounts of this process's namespace.
#[derive(Debug, Default)]
pub struct Mounts(Vec<Mounted>);

#[derive(Debug)]
struct Mounted {
    point: PathBuf,
    /// Flags, `MS_*`.
    flags: u64,
    fstype: String,
    /// Whether the mount is shared or a slave (mount_namespaces(7)).
    propagates: bool,
}

/// Properties of the source of a bind mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `MS_*` of the mount that it is on.
    pub flags: u64,
    /// Whether a clone of it can follow what the host mounts below it later.
    pub propagates: bool,
    /// Whether it has files of the kernel.
    pub has_kernel_files: bool,
    /// The mounts below it that have other flags.
    pub below: Vec<Below>,
    /// Whether there are more mounts below it than the guest can be told of.
    pub has_more: bool,
}

impl Mounts {
    /// Reads the current mounts.
    pub fn read() -> Self {
        // Without a procfs all is as if nothing were mounted below.
        Self::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(Mounted::parse).collect())
    }

    /// The properties of a source. What is mounted below it is part of the bind mount only if that is recursive.
    pub fn source(&self, path: &Path, options: &Options, recursive: bool) -> Source {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let on = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        // The last of several mounts on one point is on top.
        let Some(on) = on.max_by_key(|mount| mount.point.components().count()) else {
            return Source::default();
        };
        let mut found = Source {
            flags: on.flags,
            propagates: on.propagates,
            has_kernel_files: on.is_of_kernel(),
            ..Source::default()
        };
        if !recursive {
            return found;
        }
        let top = options.with_source(on.flags);
        for mount in &self.0 {
            let Ok(below) = mount.point.strip_prefix(&path) else { continue };
            let Some(below) = below.to_str().filter(|below| !below.is_empty()) else { continue };
            found.propagates |= mount.propagates;
            found.has_kernel_files |= mount.is_of_kernel();
            found.below.retain(|known| known.path != below);
            let flags = options.below(mount.flags);
            let has_terminals = mount.fstype == DEVPTS;
            if has_terminals || ALL & (flags ^ top) != 0 {
                found.below.push(Below { path: below.to_owned(), flags, has_terminals });
            }
        }
        found.has_more = found.below.len() > MAX_MOUNTS;
        found.below.truncate(MAX_MOUNTS);
        // Deeper mounts are reached through those above them.
        found.below.sort_by_key(|below| below.path.split('/').count());
        found
    }
}

/// All flags that the guest can set for a single mount.
const ALL: u64 = libc::MS_RDONLY
    | libc::MS_NOSUID
    | libc::MS_NODEV
    | libc::MS_NOEXEC
    | libc::MS_NOATIME
    | libc::MS_STRICTATIME
    | libc::MS_NODIRATIME
    | libc::MS_NOSYMFOLLOW;

impl Mounted {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = unescape(fields.nth(4)?);
        let options = std::str::from_utf8(fields.next()?).ok()?;
        let word = |option: &str| FLAGS.iter().find(|(name, _)| *name == option).map_or(0, |(_, flag)| *flag);
        let mut flags = options.split(',').fold(0, |flags, option| flags | word(option));
        if flags & libc::MS_NOATIME == 0 && !options.split(',').any(|option| option == "relatime") {
            flags |= libc::MS_STRICTATIME;
        }
        let mut propagates = false;
        for field in fields.by_ref() {
            if field == b"-" {
                break;
            }
            propagates |= field.starts_with(b"shared:") || field.starts_with(b"master:");
        }
        let fstype = String::from_utf8_lossy(fields.next()?).into_owned();
        Some(Self { point, flags, fstype, propagates })
    }

    fn is_of_kernel(&self) -> bool {
        OF_KERNEL.contains(&self.fstype.as_str())
    }
}

/// mountinfo writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
#[path = "mounts_below_test.rs"]
mod tests;

//! Namespaces by the paths that callers give: the namespace that a path names, and its type.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::statfs::fstatfs;

/// The file system of namespaces, in statfs(2) (linux/magic.h).
const NSFS_MAGIC: libc::c_long = 0x6e73_6673;

/// `_IO(0xb7, 0x3)` of linux/nsfs.h: answers with a `CLONE_NEW*`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The names of the types in /proc/PID/ns, and their flags of clone(2).
const TYPES: [(&str, libc::c_int); 8] = [
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("ipc", libc::CLONE_NEWIPC),
    ("mnt", libc::CLONE_NEWNS),
    ("net", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
    ("time", libc::CLONE_NEWTIME),
    ("user", libc::CLONE_NEWUSER),
    ("uts", libc::CLONE_NEWUTS),
];

/// The inode of the namespace of type `kind`, as /proc/PID/ns names it, at a path.
///
/// # Errors
/// An error of open(2), or that the path names something else.
pub fn inode(path: &Path, kind: &str) -> io::Result<u64> {
    // Anything that is not a namespace is opened with O_PATH only: opening a FIFO would wait, and opening a device
    // might have an effect.
    let named = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let wrong = || io::Error::other(format!("it is not a {kind} namespace"));
    if fstatfs(&named)?.filesystem_type().0 != NSFS_MAGIC {
        return Err(wrong());
    }
    let opened = File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))?;
    // SAFETY: this request takes no argument.
    let flag = unsafe { libc::ioctl(opened.as_raw_fd(), NS_GET_NSTYPE) };
    if flag < 0 {
        return Err(io::Error::last_os_error());
    }
    if !TYPES.contains(&(kind, flag)) {
        return Err(wrong());
    }
    Ok(opened.metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_its_inode_and_its_type() {
        for (kind, _) in TYPES {
            let path = format!("/proc/self/ns/{kind}");
            assert_eq!(
                inode(Path::new(&path), kind).unwrap(),
                std::fs::metadata(&path).unwrap().ino(),
                "{kind}"
            );
        }
        for (path, kind) in
            [("/proc/self/ns/net", "ipc"), ("/proc/self/ns/pid", "time"), ("/dev/null", "net"), ("/", "uts")]
        {
            let error = inode(Path::new(path), kind).unwrap_err().to_string();
            assert_eq!(error, format!("it is not a {kind} namespace"), "{path}");
        }
        assert_eq!(inode(Path::new("/nowhere"), "net").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

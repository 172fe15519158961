//! Files of the guest's procfs that settings are written to.
//!
//! A write to another file than the intended one would change nothing, or something else. So the file is opened by its
//! name beneath the root of a file system that is checked to be a procfs, and nothing that is mounted over it is
//! entered.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::{
        stat::{Mode, fstat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

/// Where the procfs is mounted.
const PROC: &str = "/proc";

/// `PROC_ROOT_INO` of linux/proc_fs.h.
const ROOT_INODE: u64 = 1;

/// Writes to a file, which is named by its path below /proc.
pub fn write(path: impl AsRef<Path>, content: &str) -> io::Result<()> {
    write_below(PROC, path.as_ref(), content)
}

fn write_below(proc: &str, path: &Path, content: &str) -> io::Result<()> {
    let proc = open(proc, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstatfs(&proc)?.filesystem_type() != PROC_SUPER_MAGIC || fstat(&proc)?.st_ino != ROOT_INODE {
        return Err(io::Error::other("/proc is not a procfs"));
    }
    let how = OpenHow::new().flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let file = loop {
        match openat2(&proc, path, how) {
            // Something was renamed meanwhile, and the kernel asks to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => break opened?,
        }
    };
    File::from(file).write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_procfs_is_written_to() {
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        write("self/oom_score_adj", score.trim()).unwrap();
        assert_eq!(write("self/nowhere", "").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "as it was").unwrap();
        let error = write_below(directory.path().to_str().unwrap(), Path::new("file"), "x").unwrap_err();
        assert!(error.to_string().contains("not a procfs"), "{error}");
        // A directory of a procfs is not its root.
        assert!(write_below("/proc/self", Path::new("oom_score_adj"), "0").is_err());
        // Links of processes lead anywhere.
        std::os::unix::fs::symlink(directory.path(), directory.path().join("link")).unwrap();
        let through = format!("self/cwd/{}", directory.path().join("file").display());
        assert!(write(through, "x").is_err());
        assert!(write("../proc/self/oom_score_adj", "0").is_err());
        assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), "as it was");
    }
}

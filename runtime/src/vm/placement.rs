//! How the VMM comes into its sandbox's cgroup.
//!
//! It begins there: to move a process, the kernel waits for a grace period of RCU, the longest wait of a start. Before Linux
//! 6.12.2, though, KVM made a kernel thread for each VM in the cgroup of the process that made the VM, where it never froze, and
//! with it the cgroup never did. There the VMM joins the cgroup when it has made the VM.

use std::fs::File;

use nix::sys::utsname::uname;

use crate::cgroup::{Cgroup, CgroupError};

/// The first release of Linux whose KVM makes no kernel threads.
const WITHOUT_KERNEL_THREADS: [u32; 3] = [6, 12, 2];

/// The open directory of the cgroup in which the VMM begins, or its open `cgroup.procs`, through which it joins later; neither
/// where there is no cgroup.
#[derive(Debug, Default)]
pub struct Placement {
    /// To begin in.
    pub directory: Option<File>,
    /// To join by.
    pub procs: Option<File>,
}

impl Placement {
    /// In this cgroup, as this host's kernel has it.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn within(cgroup: &Cgroup) -> Result<Self, CgroupError> {
        let makes_threads =
            uname().map_or(true, |host| makes_kernel_threads(&host.release().to_string_lossy()));
        Ok(match makes_threads {
            false => Self { directory: Some(cgroup.open()?), procs: None },
            true => Self { directory: None, procs: Some(cgroup.open_procs()?) },
        })
    }
}

/// Whether KVM does in this release of Linux. One whose number cannot be read may.
fn makes_kernel_threads(release: &str) -> bool {
    let numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let mut numbers = numbers.map_while(Result::ok);
    let Some(first) = numbers.next() else { return true };
    [first, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)] < WITHOUT_KERNEL_THREADS
}

#[cfg(test)]
mod tests {
    use super::makes_kernel_threads;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for old in ["5.14.0-570.el9.x86_64", "6.1.0-31-amd64", "6.12.0-55.el10", "6.12.1", "6.9", "", "Linux"]
        {
            assert!(makes_kernel_threads(old), "{old}");
        }
        for new in ["6.12.2", "6.12.43+deb13-amd64", "6.13", "6.14.0-15-generic", "6.18-rc1", "7.0.0"] {
            assert!(!makes_kernel_threads(new), "{new}");
        }
    }
}

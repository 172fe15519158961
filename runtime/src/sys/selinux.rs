//! SELinux of the host: the labels of the processes that stand for a container there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Where the host's kernel has SELinux, if it has.
const SELINUXFS: &str = "/sys/fs/selinux";

/// The labels of the calling thread.
const ATTRIBUTES: &str = "/proc/thread-self/attr";

/// The type that engines give to containers, and the one that they give to virtual machines: it may use /dev/kvm.
const CONTAINER_TYPE: &str = "container_t";
const VM_TYPE: &str = "container_kvm_t";

/// Whether the host's kernel runs SELinux.
pub fn is_enabled() -> bool {
    Path::new(SELINUXFS).join("enforce").exists()
}

/// The label for the process that runs a container's VM: the container's, but with the type for virtual machines where
/// an engine has given the one for containers and the host's policy has the other.
pub fn of_vm(label: &str) -> String {
    let is_known = |label: &str| fs::write(Path::new(SELINUXFS).join("context"), label).is_ok();
    as_vm(label).filter(|label| is_known(label)).unwrap_or_else(|| label.to_owned())
}

fn as_vm(label: &str) -> Option<String> {
    let mut parts: Vec<&str> = label.split(':').collect();
    let kind = parts.get_mut(2).filter(|kind| **kind == CONTAINER_TYPE)?;
    *kind = VM_TYPE;
    Some(parts.join(":"))
}

/// Makes the next execve(2) of this process change to a label.
///
/// # Errors
/// EINVAL if the host's policy does not have the label, EACCES if it does not allow this.
pub fn set_for_exec(label: &str) -> io::Result<()> {
    open(Path::new(ATTRIBUTES), "exec")?.write_all(label.as_bytes())
}

/// The file through which this process changes its label without executing anything.
///
/// # Errors
/// open(2)'s.
pub fn open_current() -> io::Result<File> {
    open(Path::new(ATTRIBUTES), "current")
}

/// Whether a process has a label.
pub fn has(pid: i32, label: &str) -> bool {
    let current = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap_or_default();
    current.trim_end_matches(['\0', '\n']) == label
}

fn open(directory: &Path, attribute: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(directory.join(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_where_the_kernel_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let label = "system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(open(directory.path(), "exec").unwrap_err().kind(), io::ErrorKind::NotFound);
        for attribute in ["exec", "current"] {
            fs::write(directory.path().join(attribute), "").unwrap();
            open(directory.path(), attribute).unwrap().write_all(label.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(directory.path().join(attribute)).unwrap(), label);
        }
    }

    #[test]
    fn a_vm_gets_the_type_for_virtual_machines() {
        let label = "system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(as_vm(label).as_deref(), Some("system_u:system_r:container_kvm_t:s0:c1,c2"));
        for other in ["system_u:system_r:spc_t:s0", "container_t", ""] {
            assert_eq!(as_vm(other), None);
        }
    }
}

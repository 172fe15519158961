//! `linux.memoryPolicy`, by set_mempolicy(2).

use nix::errno::Errno;
use stockade_protocol::container::MemoryPolicy;

use crate::error::{Context, Result};

/// The warning if the guest's kernel knows no policies.
const LACKING: &str =
    "linux.memoryPolicy has no effect: the guest's kernel knows no memory policies (CONFIG_NUMA)";

/// Sets the calling process's policy, which its programs inherit.
pub fn apply(policy: Option<&MemoryPolicy>, warnings: &mut Vec<String>) -> Result<()> {
    let Some(policy) = policy else { return Ok(()) };
    let (nodes, bits) = match &policy.nodes[..] {
        [] => (std::ptr::null(), 0),
        // The kernel reads one bit less than it is told.
        nodes => (nodes.as_ptr(), size_of_val(nodes) * 8 + 1),
    };
    // SAFETY: the kernel only reads the words that hold so many bits.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, nodes, bits) };
    match Errno::result(result) {
        Err(Errno::ENOSYS) => {
            warnings.push(LACKING.to_owned());
            Ok(())
        }
        done => done.map(drop).or_spec(|| "linux.memoryPolicy".to_owned()),
    }
}

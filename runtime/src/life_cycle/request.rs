//! The request to create a container, the VM in which it is created, and the result.

use std::path::Path;

use anyhow::Context;

use crate::cgroup::Cgroup;
use crate::lower::ContainerPlan;
use crate::oci::container_id::ContainerId;
use crate::options::{CgroupDriver, Globals};
use crate::relay::Relay;
use crate::state::{Directory, Record, Root};
use crate::sys::process::{Pidfd, ProcessRef};
use crate::sys::user_namespace;
use crate::vm::sizing::VmSize;
use crate::vm::{Launch, Vm};

/// What is to be created.
#[derive(Debug)]
pub struct Request<'a> {
    /// Options of every command.
    pub globals: &'a Globals,
    /// The container's ID.
    pub id: &'a ContainerId,
    /// The bundle's directory.
    pub bundle: &'a Path,
    /// The file to read instead of the bundle's config.json.
    pub config: Option<&'a Path>,
    /// The file to write the relay's PID to.
    pub pid_file: Option<&'a Path>,
    /// The socket to send the terminal's master to.
    pub console_socket: Option<&'a Path>,
    /// The socket to send the relay's pidfd to.
    pub pidfd_socket: Option<&'a Path>,
    /// Number of descriptors from 3 on that the container gets.
    pub preserve_fds: u32,
    /// Whether the container outlives the command: a terminal then needs a console socket.
    pub detached: bool,
}

impl Request<'_> {
    /// The plan of the host's cgroup, which is not made yet.
    ///
    /// # Errors
    /// A path that cannot be one of a cgroup.
    pub(super) fn plan_cgroup(&self, plan: &ContainerPlan) -> anyhow::Result<Option<Cgroup>> {
        let path = &plan.cgroup.path;
        Ok(match self.globals.cgroup_driver() {
            CgroupDriver::Disabled => None,
            CgroupDriver::Cgroupfs => {
                let planned = Cgroup::plan(path, &format!("stockade-{}", self.id))?;
                if path.as_os_str().is_empty() && user_namespace::is_inner() && !planned.may_be_made() {
                    tracing::warn!(
                        "the container has no cgroup on the host, as this user may not make {}; its limits hold in its VM",
                        planned.path.display()
                    );
                    return Ok(None);
                }
                Some(planned)
            }
            CgroupDriver::Systemd => Some(Cgroup::plan_scope(path, self.id.as_str())?),
        })
    }
}

/// A created container, whose creator still lives.
#[derive(Debug)]
pub struct Created {
    /// Its directory, locked.
    pub directory: Directory,
    /// Its record.
    pub record: Record,
    /// Its relay, which still ends with the command.
    pub relay: Relay,
    /// The VM that it is in.
    pub vm: Vm,
    /// Whether the container has a terminal.
    pub terminal: bool,
}

/// In which VM a container is created.
pub(super) enum Place {
    /// A VM of its own, which is to be launched, and the VM's size without limits.
    Own(Box<Launch>, VmSize),
    /// The VM of a sandbox.
    Sandbox(RunningSandbox),
}

/// A sandbox that can be joined.
pub(super) struct RunningSandbox {
    /// Its ID.
    pub(super) id: ContainerId,
    /// The VMM's process.
    pub(super) vmm: Pidfd,
}

/// The sandbox of this ID, if it runs.
///
/// # Errors
/// That it does not.
pub(super) fn running_sandbox(root: &Root, id: ContainerId) -> anyhow::Result<RunningSandbox> {
    let record = root.peek(&id)?.read()?.filter(|record| record.complete);
    let running = record.filter(|record| record.relay.as_ref().is_some_and(ProcessRef::is_alive));
    let vmm = running.and_then(|record| record.vmm).and_then(|vmm| vmm.open());
    let vmm = vmm.with_context(|| {
        format!("sandbox {:?} is not running (any more), so no container can join it", id.as_str())
    })?;
    Ok(RunningSandbox { id, vmm })
}

//! The size of a VM that runs: it grows before a limit rises, and shrinks after one has fallen.
//!
//! ```text
//!  grow    memory.max of the host's cgroup ─→ the guest plugs ─→ remembered
//!  shrink  the guest unplugs what it can ─→ memory.max of the host's cgroup ─→ remembered
//! ```
//!
//! All containers of a pod change one VM, so a command that changes its size holds the lock of the sandbox's directory.
//! A member's own directory is locked before that.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use stockade_protocol::agent::Purpose;

use crate::cgroup::{self, Cgroup};
use crate::state::{Directory, Record};
use crate::sys::deadline::Deadline;
use crate::vm::agent::{AnswerDeadline, Connection, call};
use crate::vm::sizing::{self, Demand, VmSize};
use crate::vm::{self, Control};

/// How long a guest may take in all to change the size of its VM.
const CHANGES_WITHIN: Duration = Duration::from_secs(10);

/// How long a guest that gives memory back may make no progress: it often cannot go on, and does not say so.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// How long a guest may take to give back the memory of a member that is gone.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(3);

/// The cgroup file that limits VMM and guest on the host.
const MEMORY_MAX: &str = "memory.max";

/// Why a VM cannot have the size that the limits ask for.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The host has less.
    #[error(
        "linux.resources.memory.limit: the container's VM would need {wanted} MiB of RAM, and the host leaves it {possible} MiB; \
         give less, or raise memory.max of the cgroups above the container's"
    )]
    Host {
        /// What limits ask for, in MiB.
        wanted: u32,
        /// What the host leaves, in MiB.
        possible: u32,
    },
    /// config.json says how large the VM is.
    #[error(
        "linux.resources.memory.limit: {limit} bytes are more than the {fixed} MiB that vm.hwConfig.memory has given the VM"
    )]
    Fixed {
        /// The limit, in bytes.
        limit: u64,
        /// The VM's memory, in MiB.
        fixed: u32,
    },
    /// The guest does not online the memory.
    #[error("the guest onlined {reached} of {wanted} MiB of RAM")]
    Stuck {
        /// What the guest has online, in MiB.
        reached: u32,
        /// What the VM has given it, in MiB.
        wanted: u32,
    },
}

/// The size with which a VM starts.
///
/// # Errors
/// The host leaves too little memory.
pub fn first(demand: Demand, size: VmSize, cgroup: Option<&Cgroup>) -> anyhow::Result<VmSize> {
    let vcpus = size.wanted_vcpus(demand, &[]);
    let mib = sizing::within(size.wanted_mib(demand, &[]), available(cgroup))?;
    tracing::debug!(guest_mib = mib, "the VM's size");
    Ok(VmSize { mib, vcpus, ..size })
}

/// What the host's limits above this cgroup leave for the VM, in bytes. The cgroup's own limit follows from the VM's
/// size.
pub fn available(cgroup: Option<&Cgroup>) -> Option<u64> {
    let above = cgroup.and_then(|cgroup| cgroup.path.parent());
    [above.and_then(cgroup::nearest_memory_limit), sizing::host_ram()].into_iter().flatten().min()
}

/// A VM whose size this command may change; nobody else changes it meanwhile.
pub struct Sizing<'a> {
    /// The record of the container that owns the VM.
    record: Record,
    directory: Held<'a>,
    others: Vec<Demand>,
    /// When all changes have to be done.
    deadline: Deadline,
}

/// The locked directory of the container that owns the VM.
enum Held<'a> {
    /// The caller had locked it before.
    Before(&'a Directory),
    /// It was locked for this change.
    Now(Directory),
}

impl<'a> Sizing<'a> {
    /// Begins a change of this container's limits; its directory is locked. `None` if there is no VM whose size is
    /// known.
    ///
    /// # Errors
    /// When the sandbox's directory cannot be locked.
    pub fn begin(directory: &'a Directory, record: &Record) -> anyhow::Result<Option<Self>> {
        let (record_of_vm, held) = match &record.sandbox {
            None => (Some(record.clone()), Held::Before(directory)),
            Some(sandbox) => {
                let sandbox = directory.lock_neighbour(sandbox)?;
                (sandbox.read()?, Held::Now(sandbox))
            }
        };
        let Some(vm) = record_of_vm.filter(|vm| vm.vm_size.is_some()) else { return Ok(None) };
        let is_counted = |other: &Record| {
            let is_alive = !other.complete || other.relay.is_some_and(|relay| relay.is_alive());
            other.sandbox.as_ref() == Some(&vm.id) && other.id != record.id && is_alive
        };
        let records = directory.records();
        let others = records.iter().filter(|other| is_counted(other)).map(|other| other.demand).collect();
        let deadline = Deadline::within(CHANGES_WITHIN);
        Ok(Some(Self { others, record: vm, directory: held, deadline }))
    }

    /// RAM, in MiB, and CPUs that the VM needs if the container `id` asks for `demand`.
    fn wanted(&self, id: &str, demand: Option<Demand>) -> (u32, u8) {
        let own = if self.record.id == id { demand.unwrap_or_default() } else { self.record.demand };
        let mut members = self.others.clone();
        members.extend(demand.filter(|_| self.record.id != id));
        let size = self.record.vm_size.unwrap_or_default();
        (size.wanted_mib(own, &members), size.wanted_vcpus(own, &members))
    }

    fn vcpus(&self) -> u8 {
        self.record.vm_size.unwrap_or_default().vcpus
    }

    fn set_vcpus(&mut self, count: u8) -> anyhow::Result<()> {
        let directory = self.directory().as_fd();
        let mut control = Control::connect_by(directory, self.deadline).context("cannot reach the VM")?;
        control.call(vm::call::AddVcpus(count))?;
        let mut wait = AnswerDeadline::new(directory, self.deadline);
        Connection::open(directory, Purpose::Control, &mut wait)?
            .call(call::SetCpus(count.into()), &mut wait)?;
        tracing::debug!(vcpus = count, "the VM's new size");
        if let Some(size) = &mut self.record.vm_size {
            size.vcpus = count;
        }
        self.directory().write(&self.record)
    }

    fn try_to_lower_vcpus(&mut self, wanted: u8) {
        if wanted < self.vcpus()
            && let Err(error) = self.set_vcpus(wanted)
        {
            tracing::debug!("the VM keeps its CPUs: {error:#}");
        }
    }

    fn mib(&self) -> u32 {
        self.record.vm_size.unwrap_or_default().mib
    }

    fn directory(&self) -> &Directory {
        match &self.directory {
            Held::Before(directory) => directory,
            Held::Now(directory) => directory,
        }
    }

    fn limit(&self, mib: u32) -> anyhow::Result<()> {
        if let Some(cgroup) = &self.record.cgroup {
            cgroup.update(&[(MEMORY_MAX, sizing::host_limit_bytes(mib).to_string())])?;
        }
        Ok(())
    }

    /// Makes the guest change its memory; returns what it then has, in MiB.
    fn ask(&self, mib: u32, idle_timeout: Duration) -> anyhow::Result<u32> {
        let class = self.record.vm_size.unwrap_or_default().class_mib;
        if mib.max(self.mib()) <= class {
            return Ok(mib);
        }
        let mut control = Control::connect(self.directory().as_fd()).context("cannot reach the VM")?;
        if control.set_memory(mib.max(class), idle_timeout, self.deadline)? {
            return Ok(mib);
        }
        // The connection may still get the answer to the request that was given up.
        let reached = Control::connect(self.directory().as_fd())?.call(vm::call::Memory())?;
        Ok(if reached <= class { mib } else { reached })
    }

    fn grow(&mut self, wanted: u32) -> anyhow::Result<()> {
        let former = self.mib();
        let grown = self.limit(wanted).and_then(|()| match self.ask(wanted, CHANGES_WITHIN)? {
            reached if reached < wanted => Err(ResizeError::Stuck { reached, wanted }.into()),
            _ => Ok(()),
        });
        match grown {
            Ok(()) => self.remember(wanted),
            Err(error) => {
                // The VM has grown to some size, which is not recorded.
                if let Err(error) = self.shrink(former) {
                    tracing::debug!("the VM keeps what it has grown by: {error:#}");
                }
                Err(error)
            }
        }
    }

    /// Shrinks the VM as far as the guest can; returns what the VM then has, in MiB.
    fn shrink(&mut self, wanted: u32) -> anyhow::Result<u32> {
        let reached = self.ask(wanted, STUCK_AFTER)?.max(wanted);
        self.limit(reached)?;
        self.remember(reached)?;
        Ok(reached)
    }

    /// As [`Self::shrink`], where a failure is only logged.
    fn try_to_shrink(&mut self, wanted: u32) {
        if wanted < self.mib()
            && let Err(error) = self.shrink(wanted)
        {
            tracing::debug!("the VM keeps its size: {error:#}");
        }
    }

    fn remember(&mut self, mib: u32) -> anyhow::Result<()> {
        tracing::debug!(guest_mib = mib, "the VM's new size");
        if let Some(size) = &mut self.record.vm_size {
            size.mib = mib;
        }
        self.directory().write(&self.record)
    }

    /// Call this before the container's limits rise to `demand`: it makes the VM large enough for them.
    ///
    /// # Errors
    /// [`ResizeError`]; the VM then stays as it was.
    pub fn prepare(&mut self, id: &str, demand: Demand) -> anyhow::Result<()> {
        let (wanted, vcpus) = self.wanted(id, Some(demand));
        if let (Some(fixed), Some(limit)) =
            (self.record.vm_size.and_then(|size| size.fixed_mib), demand.memory)
            && limit > u64::from(fixed) << 20
        {
            return Err(ResizeError::Fixed { limit, fixed }.into());
        }
        if wanted > self.mib() {
            let possible = sizing::within(wanted, available(self.record.cgroup.as_ref()))?;
            if possible < wanted {
                return Err(ResizeError::Host { wanted, possible }.into());
            }
        }
        self.raise(wanted, vcpus)
    }

    fn raise(&mut self, mib: u32, vcpus: u8) -> anyhow::Result<()> {
        let former = (self.mib(), self.vcpus());
        if mib > former.0 {
            self.grow(mib)?;
        }
        if vcpus > former.1
            && let Err(error) = self.set_vcpus(vcpus)
        {
            self.try_to_shrink(former.0);
            return Err(error);
        }
        Ok(())
    }

    /// Call this after the container's limits have become `demand`: the VM gives back what no container needs any more.
    /// Returns the changed record if the VM is the container's own.
    pub fn finish(mut self, id: &str, demand: Demand) -> Option<Record> {
        let (wanted, vcpus) = self.wanted(id, Some(demand));
        if vcpus < self.vcpus()
            && let Err(error) = self.set_vcpus(vcpus)
        {
            tracing::warn!("the VM keeps its {} CPUs: {error:#}", self.vcpus());
        }
        if wanted < self.mib() {
            match self.shrink(wanted) {
                Ok(reached) if reached > wanted => tracing::warn!(
                    "the guest did not give back all memory: it has {reached} MiB of RAM instead of {wanted} MiB"
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!("the VM keeps its size: {error:#}"),
            }
        }
        (self.record.id == id).then_some(self.record)
    }

    /// Undoes [`Self::prepare`], because the limits could not be changed.
    pub fn take_back(mut self, id: &str, former: Demand) {
        let (mib, vcpus) = self.wanted(id, Some(former));
        self.try_to_lower_vcpus(vcpus);
        self.try_to_shrink(mib);
    }
}

/// Call this before a member is made: its sandbox's VM grows by what the member asks for, as far as the host's limits
/// allow.
///
/// # Errors
/// The VM does not grow.
pub fn make_room(directory: &Directory, member: &Record) -> anyhow::Result<()> {
    let Some(mut sizing) = Sizing::begin(directory, member)? else { return Ok(()) };
    let (wanted, vcpus) = sizing.wanted(&member.id, Some(member.demand));
    let mib = match wanted > sizing.mib() {
        true => sizing::within(wanted, available(sizing.record.cgroup.as_ref()))?,
        false => wanted,
    };
    sizing.raise(mib, vcpus)
}

/// Call this after a member has gone: its sandbox's VM gives back what it had grown by. A failure is only logged.
pub fn give_back(directory: &Directory, member: &Record) {
    let shrink = || -> anyhow::Result<()> {
        // The sandbox may be gone, or being removed.
        let is_running =
            member.sandbox.as_ref().and_then(|id| directory.neighbour(id)).is_some_and(|sandbox| {
                sandbox.vm_size.is_some() && sandbox.vmm.is_some_and(|vmm| vmm.is_alive())
            });
        if !is_running {
            return Ok(());
        }
        let Some(mut sizing) = Sizing::begin(directory, member)? else { return Ok(()) };
        sizing.deadline = Deadline::within(GIVES_BACK_WITHIN);
        let (mib, vcpus) = sizing.wanted(&member.id, None);
        sizing.try_to_lower_vcpus(vcpus);
        sizing.try_to_shrink(mib);
        Ok(())
    };
    if let Err(error) = shrink() {
        tracing::debug!("the VM keeps its size: {error:#}");
    }
}

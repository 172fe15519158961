//! The network of a container with a VM of its own: connected at `create`, updated at `start`, disconnected at
//! `delete`.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use stockade_protocol::agent::Purpose;
use stockade_protocol::settings::Settings;
use stockade_protocol::vmm::MAX_QUEUE_PAIRS;

use super::{resolver, settings};
use crate::network::{self, Look, Namespace, Network, NetworkNamespace, Pending};
use crate::state::{Directory, Record};
use crate::sys::process::ProcessRef;
use crate::vm::agent::{Connection, call};
use crate::vm::{self, Control, Wait};

/// Number of a NIC's queue pairs: one for each CPU that the guest uses, up to the limit.
fn queue_pairs(record: &Record) -> usize {
    record.vm_size.map_or(1, |size| size.vcpus.into()).clamp(1, MAX_QUEUE_PAIRS)
}

/// Redirects the interfaces of the relay's network namespace, while the VM boots. A namespace that has just been made has
/// interfaces only where hooks have made them.
///
/// # Errors
/// Those of [`Network::connect`]; the record then tells what is to be undone.
pub(super) fn connect(
    directory: &Directory,
    record: &mut Record,
    network: &NetworkNamespace,
    relay: i32,
) -> anyhow::Result<Option<Pending>> {
    let path = match network {
        NetworkNamespace::New if has_only_loopback(relay) => return Ok(None),
        NetworkNamespace::New => None,
        NetworkNamespace::Path(path) => Some(path.clone()),
    };
    let namespace = Namespace::open(path.as_deref().unwrap_or(&of_process(relay)))?;
    let mut network = Network::new(&namespace, path)?;
    let queue_pairs = queue_pairs(record);
    let pending = network.connect(&namespace, queue_pairs, Look::Create, |network| {
        record.network = Some(network.clone());
        directory.write(record)
    })?;
    Ok(pending.has_taps().then_some(pending))
}

/// Adds the NICs to the VM, and sets up the guest's network.
///
/// # Errors
/// The VMM's and the agent's.
pub(super) fn hand_over(
    record: &mut Record,
    mut pending: Pending,
    mut vmm: Control,
    agent: &mut Connection,
    wait: &mut impl Wait,
) -> anyhow::Result<()> {
    let Some(network) = &mut record.network else { return Ok(()) };
    network.add_nics(&mut pending, &mut vmm)?;
    if let Some(change) = network.change(&pending) {
        agent.call(call::Network(change), wait).context("cannot set up the guest's network")?;
    }
    network.told(pending);
    for slot in network.take_gone() {
        vmm.call(vm::call::RemoveDevice(slot))?;
    }
    Ok(())
}

/// Updates the guest's network to that of the namespace: engines configure it between `create` and `start` too. Returns
/// whether there are interfaces.
///
/// # Errors
/// Those of [`Network::connect`] and [`hand_over`].
pub(super) fn refresh(directory: &Directory, record: &Record, wait: &mut impl Wait) -> anyhow::Result<bool> {
    let Some(relay) = record.relay.filter(|_| record.sandbox.is_none()) else { return Ok(false) };
    if record.network.is_none() && has_only_loopback(relay.pid) {
        return Ok(false);
    }
    let namespace = Namespace::open(&of_process(relay.pid))?;
    refresh_in(&namespace, Look::Start, directory, record, wait, |record| directory.write(record))
}

/// Offers the guest the resolver that an engine has in the relay's network namespace, if there is one; returns the connection
/// that waits for the first query.
pub(super) fn offer_resolver(directory: &Directory, relay: ProcessRef) -> Option<UnixStream> {
    resolver::offer(&Namespace::open(&of_process(relay.pid)).ok()?, directory.as_fd())
}

/// As [`refresh`], in the relay's network namespace; `remember` saves each new state of the network.
///
/// # Errors
/// As there.
pub(super) fn refresh_in(
    namespace: &Namespace,
    look: Look,
    directory: &Directory,
    record: &Record,
    wait: &mut impl Wait,
    remember: impl Fn(&Record) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<bool> {
    let mut record = record.clone();
    let mut network = match record.network.clone() {
        Some(network) => network,
        None => Network::new(namespace, None)?,
    };
    let queue_pairs = queue_pairs(&record);
    let mut pending = network.connect(namespace, queue_pairs, look, |network| {
        record.network = Some(network.clone());
        remember(&record)
    })?;
    if !pending.has_taps() && network.change(&pending).is_none() {
        return Ok(!network.interfaces.is_empty());
    }
    record.network = Some(network);
    let sysctls = pending.take_sysctls();
    let vmm = Control::connect(directory.as_fd()).context("cannot reach the VMM")?;
    let mut agent = Connection::open(directory.as_fd(), Purpose::Control, wait)?;
    let handed_over = hand_over(&mut record, pending, vmm, &mut agent, wait);
    // This is also done after a failure, because some NICs may be in their slots.
    remember(&record)?;
    handed_over?;
    settings::hand_over(directory, None, Settings { sysctls, ..Settings::default() }, wait)?;
    Ok(true)
}

/// The namespace from which the redirects have to be removed, if it still exists. Must be called while the relay lives.
pub(super) fn namespace_to_leave(record: &Record) -> Option<Namespace> {
    let network = record.network.as_ref()?;
    let alive = |relay: ProcessRef| relay.is_alive().then(|| of_process(relay.pid));
    let path = network.path.clone().or_else(|| record.relay.and_then(alive))?;
    Namespace::open(&path).ok()
}

/// Removes the redirects.
///
/// # Errors
/// What could not be removed.
pub(super) fn leave(record: &Record, namespace: Option<&Namespace>) -> anyhow::Result<()> {
    match (&record.network, namespace) {
        (Some(network), Some(namespace)) => network::disconnect(network, namespace),
        _ => Ok(()),
    }
}

fn of_process(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Whether a process's network namespace has no interface but the loopback.
fn has_only_loopback(pid: i32) -> bool {
    /// Number of lines above the interfaces' lines.
    const HEADING: usize = 2;
    let path = format!("/proc/{pid}/net/dev");
    let table = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    table.lines().skip(HEADING).all(|line| line.trim_start().starts_with("lo:"))
}

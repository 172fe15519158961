//! The interfaces of a network namespace that are connected to a VM: connecting, updating and disconnecting them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use stockade_protocol::network::{NetworkChange, NicSlot};
use stockade_protocol::vmm;

use super::inventory::{Interface, Picture, inventory};
use super::netlink::Netlink;
use super::sysctls::{self, Sysctls};
use super::{Namespace, NetworkError, host_only, packet_filters, redirect, steps, tap};
use crate::vm::{Control, call};

/// MTU with which a NIC is made, in bytes: the interface's own MTU is set in the guest and may change.
const LARGEST_PACKET: u16 = u16::MAX;

/// What the record keeps about a VM's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Path of the namespace; `None` for a namespace of the relay alone.
    pub path: Option<PathBuf>,
    /// Its inode: another namespace may be at that path by now.
    pub inode: u64,
    /// The interfaces that are connected, or were about to be.
    pub interfaces: Vec<Connected>,
    /// What the guest was last told.
    pub told: Picture,
}

/// A connected interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Its number on the host.
    pub interface: u32,
    /// Its NIC's slot, once it has one.
    pub slot: Option<u8>,
}

/// The taps of an interface that has no NIC yet.
#[derive(Debug)]
pub struct Taps {
    interface: u32,
    queues: Vec<OwnedFd>,
}

/// Interfaces that are redirected, and what the guest is to know of them.
#[derive(Debug, Default)]
pub struct Pending {
    taps: Vec<Taps>,
    picture: Picture,
    /// Settings of the namespace that the guest has not been told of.
    sysctls: Sysctls,
}

/// The occasion on which the namespace is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// When the container is created. Later, the workload and config.json have set sysctls in the guest's namespace
    /// too.
    Create,
    /// When the container is started.
    Start,
    /// While the container runs, by the watcher, which may do little.
    Later,
}

impl Pending {
    /// Whether there are interfaces without a NIC.
    pub fn has_taps(&self) -> bool {
        !self.taps.is_empty()
    }

    /// The settings of the namespace, and of the interfaces that are new.
    pub fn take_sysctls(&mut self) -> Sysctls {
        std::mem::take(&mut self.sysctls)
    }
}

impl Network {
    /// A namespace of which nothing is connected yet.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`].
    pub fn new(namespace: &Namespace, path: Option<PathBuf>) -> Result<Self, NetworkError> {
        Ok(Self { path, inode: namespace.inode()?, ..Self::default() })
    }

    /// Reads the namespace and redirects the interfaces that are new. `remember` saves them before that.
    ///
    /// # Errors
    /// [`NetworkError`], or the one of `remember`; what has been redirected until then is saved.
    pub fn connect(
        &mut self,
        namespace: &Namespace,
        queue_pairs: usize,
        look: Look,
        remember: impl FnOnce(&Self) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<Pending> {
        let is_first = self.told == Picture::default() && look != Look::Later;
        namespace.within(|| {
            let mut netlink = Netlink::open().map_err(NetworkError::Netlink)?;
            let mut inventory = inventory(&mut netlink)?;
            if is_first {
                inventory.warnings.extend(packet_filters::warning());
                if !inventory.picture.interfaces.is_empty() {
                    inventory.warnings.extend(host_only::warnings(&mut netlink, &inventory.loopback));
                }
            }
            inventory.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            let is_known = |interface: &&Interface| {
                self.interfaces
                    .iter()
                    .any(|known| known.slot.is_some() && known.interface == interface.link.interface)
            };
            let new: Vec<_> = inventory
                .picture
                .interfaces
                .iter()
                .filter(|interface| !is_known(interface))
                .cloned()
                .collect();
            if !new.is_empty() {
                // Left by an attempt that has failed.
                self.interfaces.retain(|known| known.slot.is_some());
                let connected = new.iter().map(|new| Connected { interface: new.link.interface, slot: None });
                self.interfaces.extend(connected);
                remember(self)?;
            }
            let mut settings = if look == Look::Create { sysctls::of_namespace() } else { Sysctls::new() };
            settings.extend(sysctls::of_interfaces(new.iter().map(|new| new.link.name.as_str())));
            let taps = new.iter().map(|new| redirect_to_tap(new, queue_pairs, &mut netlink));
            Ok(Pending {
                taps: taps.collect::<Result<_, _>>()?,
                picture: inventory.picture,
                sysctls: settings,
            })
        })
    }

    /// Adds the NICs that the VM does not have yet.
    ///
    /// # Errors
    /// The VMM's.
    pub fn add_nics(&mut self, pending: &mut Pending, control: &mut Control) -> anyhow::Result<()> {
        for Taps { interface, queues } in pending.taps.drain(..) {
            let link = pending.picture.interfaces.iter().map(|seen| &seen.link);
            let mut link = link.filter(|link| link.interface == interface);
            let (Some(link), Some(known)) =
                (link.next(), self.interfaces.iter_mut().find(|known| known.interface == interface))
            else {
                continue;
            };
            let nic = vmm::Nic { mac: link.mac, mtu: LARGEST_PACKET };
            let slot = control.call_with(call::AddNic(nic), &queues);
            known.slot =
                Some(slot.with_context(|| format!("cannot connect the interface {} to the VM", link.name))?);
        }
        Ok(())
    }

    /// The change that the agent has to make so that the guest has what was seen; `None` if it has that already.
    pub fn change(&self, pending: &Pending) -> Option<NetworkChange> {
        let steps = steps::steps(&self.told, &pending.picture);
        let nics = self
            .interfaces
            .iter()
            .filter_map(|known| Some(NicSlot { interface: known.interface, slot: known.slot? }));
        (!steps.is_empty()).then(|| NetworkChange { nics: nics.collect(), steps })
    }

    /// Records that the agent has made the change.
    pub fn told(&mut self, pending: Pending) {
        self.told = pending.picture;
    }

    /// Forgets the interfaces that have gone and whose drivers are unbound; returns their slots.
    pub fn take_gone(&mut self) -> Vec<u8> {
        let is_there = |known: &Connected| {
            self.told.interfaces.iter().any(|seen| seen.link.interface == known.interface)
        };
        let gone =
            self.interfaces.iter().filter(|known| !is_there(known)).filter_map(|known| known.slot).collect();
        self.interfaces = self.interfaces.iter().filter(|known| is_there(known)).copied().collect();
        gone
    }
}

fn redirect_to_tap(
    interface: &Interface,
    queue_pairs: usize,
    netlink: &mut Netlink,
) -> Result<Taps, NetworkError> {
    let link = &interface.link;
    let tap = tap::make(link, queue_pairs, netlink)?;
    redirect::redirect(tap.index, link.interface, &link.name, netlink)?;
    redirect::redirect(link.interface, tap.index, &link.name, netlink)?;
    Ok(Taps { interface: link.interface, queues: tap.queues })
}

/// Removes the redirects from a namespace; the taps have gone with the VMM.
///
/// # Errors
/// [`NetworkError`], or the kernel's.
pub fn disconnect(network: &Network, namespace: &Namespace) -> anyhow::Result<()> {
    if namespace.inode()? != network.inode {
        return Ok(());
    }
    namespace.within(|| {
        let mut netlink = Netlink::open().map_err(NetworkError::Netlink)?;
        network.interfaces.iter().try_for_each(|known| {
            redirect::remove(known.interface, &mut netlink)
                .with_context(|| format!("cannot disconnect interface {} from the VM", known.interface))
        })
    })
}

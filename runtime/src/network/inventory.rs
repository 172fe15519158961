//! The inventory of a network namespace: what the guest is to have of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use stockade_protocol::network::{Address, LOOPBACK, Link, Neighbour, Route};

use super::NetworkError;
use super::netlink::{Attributes, Netlink, number};
use super::{routes, tap};

/// Largest number of interfaces that are connected to a VM.
pub const MAX_INTERFACES: usize = 64;

/// Length of `struct ifinfomsg`.
const LINK_BODY: usize = 16;
/// Length of `struct ifaddrmsg`.
const ADDRESS_BODY: usize = 8;
/// Length of `struct ndmsg`.
const NEIGHBOUR_BODY: usize = 12;

/// `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

const IFLA_LINK_NETNSID: u16 = 37;

const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_HOMEADDRESS: u32 = 0x10;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

const NUD_PERMANENT: u16 = 0x80;
const NTF_PROXY: u8 = 8;

/// An interface as it is on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its own properties.
    pub link: Link,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its permanent neighbours.
    pub neighbours: Vec<Neighbour>,
}

/// The part of a network namespace that the guest is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// What an inventory has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What the guest is to have.
    pub picture: Picture,
    /// The addresses of the loopback interface, which the guest does not get.
    pub loopback: Vec<Address>,
    /// One sentence for each thing that the guest cannot have.
    pub warnings: Vec<String>,
}

/// Makes the inventory of the calling thread's network namespace.
///
/// # Errors
/// [`NetworkError::Inventory`] or [`NetworkError::TooManyInterfaces`].
pub fn inventory(netlink: &mut Netlink) -> Result<Inventory, NetworkError> {
    let failed = |what| move |cause: io::Error| NetworkError::Inventory { what, cause };
    let mut inventory = Inventory::default();
    let links = netlink.list(libc::RTM_GETLINK, &[0; LINK_BODY]).map_err(failed("interfaces"))?;
    let links: Vec<FoundLink> = links.iter().filter_map(|message| found_link(message)).collect();
    // A namespace without interfaces is common; it needs no further requests.
    if links.iter().all(|link| link.arphrd == ARPHRD_LOOPBACK) {
        return Ok(inventory);
    }
    let addresses = netlink.list(libc::RTM_GETADDR, &[0; ADDRESS_BODY]).map_err(failed("addresses"))?;
    let addresses: Vec<Address> =
        addresses.iter().filter_map(|message| address(message, &mut inventory.warnings)).collect();
    inventory.loopback = addresses.iter().filter(|address| address.interface == LOOPBACK).cloned().collect();
    for found in &links {
        let is_used =
            found.link.up || addresses.iter().any(|address| address.interface == found.link.interface);
        match role(found, &links, is_used) {
            Role::Connected => inventory.picture.interfaces.push(Interface {
                link: found.link.clone(),
                addresses: Vec::new(),
                neighbours: Vec::new(),
            }),
            Role::Ignored => {}
            Role::Refused(why) => inventory.warnings.push(format!(
                "the interface {} of the network namespace is not connected to the VM: {why}",
                found.link.name
            )),
        }
    }
    if inventory.picture.interfaces.is_empty() {
        return Ok(inventory);
    }
    if inventory.picture.interfaces.len() > MAX_INTERFACES {
        return Err(NetworkError::TooManyInterfaces {
            found: inventory.picture.interfaces.len(),
            most: MAX_INTERFACES,
        });
    }
    let messages = netlink.list(libc::RTM_GETROUTE, &[0; routes::BODY]).map_err(failed("routes"))?;
    let neighbours = netlink.list(libc::RTM_GETNEIGH, &[0; NEIGHBOUR_BODY]).map_err(failed("neighbours"))?;
    let neighbours: Vec<Neighbour> = neighbours.iter().filter_map(|message| neighbour(message)).collect();
    let found = routes::read(&messages);
    let Picture { interfaces, routes } = &mut inventory.picture;
    let is_connected =
        |index| index == LOOPBACK || interfaces.iter().any(|interface| interface.link.interface == index);
    *routes = found.others;
    routes.retain(|route| route.hops.iter().all(|hop| is_connected(hop.interface)));
    for interface in interfaces {
        let index = interface.link.interface;
        interface.addresses =
            addresses.iter().filter(|address| address.interface == index).cloned().collect();
        interface.neighbours =
            neighbours.iter().filter(|neighbour| neighbour.interface == index).cloned().collect();
        if interface.link.up {
            for address in &mut interface.addresses {
                // Somebody has removed the kernel's route to the address's network, as the CNI plugin ptp does.
                if routes::has_network_route(address)
                    && !found.networks.iter().any(|route| route.is_of(address))
                {
                    address.flags |= IFA_F_NOPREFIXROUTE;
                }
            }
        }
    }
    Ok(inventory)
}

/// A link with the properties that decide whether it is connected.
struct FoundLink {
    link: Link,
    arphrd: u16,
    kind: String,
    has_master: bool,
    /// The number of the interface below it, if that is in the same namespace.
    below: Option<u32>,
}

enum Role {
    Connected,
    Ignored,
    Refused(&'static str),
}

fn role(found: &FoundLink, links: &[FoundLink], is_used: bool) -> Role {
    if found.arphrd == ARPHRD_LOOPBACK || tap::is_ours(&found.link.name, &found.kind) {
        return Role::Ignored;
    }
    let is_there = |index| links.iter().any(|link| link.link.interface == index);
    if found.has_master {
        // A port of a bridge or bond, which itself is connected.
        return Role::Ignored;
    }
    if found.arphrd != ARPHRD_ETHER {
        // Kernels put unused tunnels into every namespace.
        return match is_used {
            true => {
                Role::Refused("it carries no Ethernet frames, but a VM's network device carries nothing else")
            }
            false => Role::Ignored,
        };
    }
    if found.link.mac == [0; 6] {
        return Role::Ignored;
    }
    match found.below {
        Some(below) if found.kind != "veth" && is_there(below) => {
            Role::Refused("it is on top of another interface of the namespace, which is connected itself")
        }
        _ => Role::Connected,
    }
}

fn found_link(message: &[u8]) -> Option<FoundLink> {
    let body = message.get(..LINK_BODY)?;
    let attributes = Attributes::read(&message[LINK_BODY..]);
    let flags = number(&body[8..12])?;
    let index = number(&body[4..8])?;
    let information = attributes.get(libc::IFLA_LINKINFO).map(Attributes::read);
    let kind = information.and_then(|information| information.string(libc::IFLA_INFO_KIND));
    let below = attributes.number(libc::IFLA_LINK).filter(|below| *below != index && *below != 0);
    Some(FoundLink {
        link: Link {
            interface: index,
            name: attributes.string(libc::IFLA_IFNAME)?,
            mac: attributes.get(libc::IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).unwrap_or_default(),
            mtu: attributes.number(libc::IFLA_MTU)?,
            up: flags & libc::IFF_UP as u32 != 0,
            arp: flags & libc::IFF_NOARP as u32 == 0,
        },
        arphrd: u16::from_ne_bytes(body[2..4].try_into().ok()?),
        kind: kind.unwrap_or_default(),
        has_master: attributes.get(libc::IFLA_MASTER).is_some(),
        below: below.filter(|_| attributes.get(IFLA_LINK_NETNSID).is_none()),
    })
}

/// Reads an address; if another machine has it too, a warning names it.
fn address(message: &[u8], warnings: &mut Vec<String>) -> Option<Address> {
    let body = message.get(..ADDRESS_BODY)?;
    let attributes = Attributes::read(&message[ADDRESS_BODY..]);
    let flags = attributes.number(IFA_FLAGS).unwrap_or_else(|| body[2].into());
    let named = attributes.address(libc::IFA_ADDRESS)?;
    let address = attributes.address(libc::IFA_LOCAL).unwrap_or(named);
    let interface = number(&body[4..8])?;
    if flags & IFA_F_DADFAILED != 0 {
        warnings.push(format!(
            "the address {address} of the network namespace is not given to the guest: another machine has it"
        ));
        return None;
    }
    // The host has announced the address already.
    let claimed = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let cache = attributes.get(libc::IFA_CACHEINFO).filter(|_| flags & IFA_F_PERMANENT == 0);
    let lifetimes = cache.and_then(|cache| Some((number(cache.get(4..8)?)?, number(cache.get(..4)?)?)));
    Some(Address {
        interface,
        address,
        prefix: body[1],
        peer: Some(named).filter(|named| *named != address),
        broadcast: match attributes.address(libc::IFA_BROADCAST) {
            Some(IpAddr::V4(broadcast)) => Some(broadcast),
            _ => None::<Ipv4Addr>,
        },
        scope: body[3],
        flags: flags & (IFA_F_HOMEADDRESS | IFA_F_NOPREFIXROUTE) | claimed,
        metric: attributes.number(IFA_RT_PRIORITY).unwrap_or(0),
        lifetimes,
    })
}

fn neighbour(message: &[u8]) -> Option<Neighbour> {
    let body = message.get(..NEIGHBOUR_BODY)?;
    let state = u16::from_ne_bytes(body[8..10].try_into().ok()?);
    if state & NUD_PERMANENT == 0 || body[10] & NTF_PROXY != 0 {
        return None;
    }
    let attributes = Attributes::read(&message[NEIGHBOUR_BODY..]);
    Some(Neighbour {
        interface: number(&body[4..8])?,
        address: attributes.address(libc::NDA_DST)?,
        mac: attributes.get(libc::NDA_LLADDR)?.try_into().ok()?,
    })
}

#[cfg(test)]
#[path = "inventory_test.rs"]
mod tests;

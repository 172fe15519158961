//! The requests to the kernel for each step.

use std::net::IpAddr;

use nix::errno::Errno;
use stockade_protocol::network::{Address, Hop, Link, Neighbour, NetworkStep, Route};
use stockade_sys::netlink::Message;

use crate::error::Result;

const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;

const RTA_VIA: u16 = 18;

const RTNH_F_ONLINK: u8 = 4;

const NUD_PERMANENT: u16 = 0x80;

/// Length of `struct rtnexthop`.
const RTNEXTHOP: u16 = 8;

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To change something.
    Set,
    /// To add something: it exists afterwards.
    Add,
    /// To remove something: it does not exist afterwards.
    Remove,
}

impl Purpose {
    /// Whether a refusal means that the purpose was fulfilled already.
    pub fn is_fulfilled(self, errno: Errno) -> bool {
        match self {
            Self::Set => false,
            Self::Add => errno == Errno::EEXIST,
            Self::Remove => {
                matches!(errno, Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL | Errno::ENODEV)
            }
        }
    }

    fn flags(self) -> i32 {
        match self {
            Self::Add => libc::NLM_F_CREATE,
            Self::Set | Self::Remove => 0,
        }
    }

    fn kind(self, add: u16, remove: u16) -> u16 {
        if self == Self::Remove { remove } else { add }
    }
}

/// Sets a link's properties.
///
/// The link is set up last, when the kernel knows that it must not make a link-local address: the host's interface has
/// one, and there may be no other.
pub fn link(link: &Link, index: u32) -> Vec<Message> {
    let flag = |is_set: bool, flag: i32| if is_set { flag } else { 0 };
    let header = |flags: i32, change: i32| {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&change.to_ne_bytes());
        Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &body)
    };
    let mut properties = header(flag(!link.arp, libc::IFF_NOARP), libc::IFF_NOARP);
    let mut name = link.name.clone().into_bytes();
    name.push(0);
    properties.attribute(libc::IFLA_ADDRESS, &link.mac);
    properties.attribute(libc::IFLA_IFNAME, &name);
    properties.attribute(libc::IFLA_MTU, &link.mtu.to_ne_bytes());
    properties.nested(libc::IFLA_AF_SPEC, |message| {
        message.nested(libc::AF_INET6 as u16, |message| {
            message.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
    vec![properties, header(flag(link.up, libc::IFF_UP), libc::IFF_UP)]
}

/// Adds or removes an address.
pub fn address(purpose: Purpose, address: &Address, index: u32) -> Message {
    let mut body = [family(&address.address), address.prefix, 0, address.scope, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    // A change of flags or lifetimes replaces what is there.
    let replace = if purpose == Purpose::Add { libc::NLM_F_REPLACE } else { 0 };
    let kind = purpose.kind(libc::RTM_NEWADDR, libc::RTM_DELADDR);
    let mut message = Message::new(kind, libc::NLM_F_ACK | purpose.flags() | replace, &body);
    message.attribute(libc::IFA_LOCAL, &octets(&address.address));
    message.attribute(libc::IFA_ADDRESS, &octets(address.peer.as_ref().unwrap_or(&address.address)));
    if let Some(broadcast) = address.broadcast {
        message.attribute(libc::IFA_BROADCAST, &broadcast.octets());
    }
    message.attribute(IFA_FLAGS, &address.flags.to_ne_bytes());
    if address.metric != 0 {
        message.attribute(IFA_RT_PRIORITY, &address.metric.to_ne_bytes());
    }
    if let Some((valid_s, preferred_s)) = address.lifetimes {
        // `struct ifa_cacheinfo`: preferred, valid, and two times that the kernel keeps.
        let mut cache = [0; 16];
        cache[..4].copy_from_slice(&preferred_s.to_ne_bytes());
        cache[4..8].copy_from_slice(&valid_s.to_ne_bytes());
        message.attribute(libc::IFA_CACHEINFO, &cache);
    }
    message
}

/// Adds or removes a route, whose interfaces have these numbers in the guest.
pub fn route(purpose: Purpose, route: &Route, index: impl Fn(u32) -> Result<u32>) -> Result<Message> {
    let single = match route.hops.as_slice() {
        [hop] => Some(hop),
        _ => None,
    };
    // The table's number has an attribute of its own, for those above 255.
    let table = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    let mut body = [
        family(&route.destination),
        route.prefix,
        0,
        route.tos,
        table,
        route.protocol,
        route.scope,
        route.kind,
        0,
        0,
        0,
        0,
    ];
    body[8..12].copy_from_slice(&u32::from(single.map_or(0, flags)).to_ne_bytes());
    let kind = purpose.kind(libc::RTM_NEWROUTE, libc::RTM_DELROUTE);
    let mut message = Message::new(kind, libc::NLM_F_ACK | purpose.flags(), &body);
    if route.prefix > 0 {
        message.attribute(libc::RTA_DST, &octets(&route.destination));
    }
    message.attribute(libc::RTA_TABLE, &route.table.to_ne_bytes());
    message.attribute(libc::RTA_PRIORITY, &route.priority.to_ne_bytes());
    if let Some(source) = &route.source {
        message.attribute(libc::RTA_PREFSRC, &octets(source));
    }
    if let Some(hop) = single {
        message.attribute(libc::RTA_OIF, &index(hop.interface)?.to_ne_bytes());
        gateway(&mut message, hop, &route.destination);
    } else if !route.hops.is_empty() {
        let indexes = route.hops.iter().map(|hop| index(hop.interface)).collect::<Result<Vec<_>>>()?;
        message.nested(libc::RTA_MULTIPATH, |message| {
            for (hop, index) in route.hops.iter().zip(indexes) {
                message.sized(|message| next_hop(message, hop, index, &route.destination));
            }
        });
    }
    if !route.metrics.is_empty() {
        message.nested(libc::RTA_METRICS, |message| {
            for (kind, value) in &route.metrics {
                message.attribute(*kind, &value.to_ne_bytes());
            }
        });
    }
    Ok(message)
}

/// A `struct rtnexthop` and its attributes.
fn next_hop(message: &mut Message, hop: &Hop, index: u32, destination: &IpAddr) {
    let mut body = [0; RTNEXTHOP as usize];
    body[2] = flags(hop);
    body[3] = hop.weight;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    message.raw(&body);
    gateway(message, hop, destination);
}

fn flags(hop: &Hop) -> u8 {
    if hop.onlink { RTNH_F_ONLINK } else { 0 }
}

fn gateway(message: &mut Message, hop: &Hop, destination: &IpAddr) {
    let Some(gateway) = &hop.gateway else { return };
    if gateway.is_ipv4() == destination.is_ipv4() {
        return message.attribute(libc::RTA_GATEWAY, &octets(gateway));
    }
    // `struct rtvia`: the family and the address.
    let mut via = u16::from(family(gateway)).to_ne_bytes().to_vec();
    via.extend(octets(gateway));
    message.attribute(RTA_VIA, &via);
}

/// Adds or removes a neighbour.
pub fn neighbour(purpose: Purpose, neighbour: &Neighbour, index: u32) -> Message {
    let mut body = [0; 12];
    body[0] = family(&neighbour.address);
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    let replace = if purpose == Purpose::Add { libc::NLM_F_REPLACE } else { 0 };
    let kind = purpose.kind(libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH);
    let mut message = Message::new(kind, libc::NLM_F_ACK | purpose.flags() | replace, &body);
    message.attribute(libc::NDA_DST, &octets(&neighbour.address));
    message.attribute(libc::NDA_LLADDR, &neighbour.mac);
    message
}

/// A step in words, for an error.
pub fn describe(step: &NetworkStep) -> String {
    let route = |what: &str, route: &Route| {
        let gateway = route.hops.first().and_then(|hop| hop.gateway);
        let via = gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        format!("{what} the route to {}/{}{via}", route.destination, route.prefix)
    };
    match step {
        NetworkStep::Bind { interface } => format!("bind the NIC of interface {interface}"),
        NetworkStep::Unbind { interface } => format!("unbind the NIC of interface {interface}"),
        NetworkStep::Link(link) => format!("set up the interface {}", link.name),
        NetworkStep::AddAddress(address) => format!("add the address {}/{}", address.address, address.prefix),
        NetworkStep::RemoveAddress(address) => {
            format!("remove the address {}/{}", address.address, address.prefix)
        }
        NetworkStep::AddRoute(added) => route("add", added),
        NetworkStep::RemoveRoute(removed) => route("remove", removed),
        NetworkStep::AddNeighbour(neighbour) => format!("add the neighbour {}", neighbour.address),
        NetworkStep::RemoveNeighbour(neighbour) => format!("remove the neighbour {}", neighbour.address),
    }
}

fn family(address: &IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

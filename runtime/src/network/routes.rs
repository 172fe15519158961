//! The routes of a network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stockade_protocol::network::{Address, Hop, Route};

use super::netlink::{Attributes, address, number};

/// Length of `struct rtmsg`.
pub const BODY: usize = 12;

/// Length of `struct rtnexthop`.
const NEXT_HOP: usize = 8;

const RTA_VIA: u16 = 18;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;

/// Routes, by who has made them.
#[derive(Debug, Default)]
pub struct Routes {
    /// Routes that the kernel has made, to the networks of addresses: the guest's kernel makes them too.
    pub networks: Vec<NetworkRoute>,
    /// All other routes.
    pub others: Vec<Route>,
}

/// A route to the network of an address.
#[derive(Debug)]
pub struct NetworkRoute {
    interface: u32,
    destination: IpAddr,
    prefix: u8,
}

impl NetworkRoute {
    /// Whether the kernel has made the route for this address.
    pub fn is_of(&self, address: &Address) -> bool {
        let other = address.peer.unwrap_or(address.address);
        self.interface == address.interface
            && self.prefix == address.prefix
            && self.destination == network(other, self.prefix)
    }
}

/// Whether the kernel makes a route to the network of this address.
pub fn has_network_route(address: &Address) -> bool {
    address.address.is_ipv6() || address.prefix < 32 || address.peer.is_some()
}

/// Reads the answer to RTM_GETROUTE.
pub fn read(messages: &[Vec<u8>]) -> Routes {
    let mut routes = Routes::default();
    for message in messages {
        let Some((route, flags)) = route(message) else { continue };
        let is_cached = flags & RTM_F_CLONED != 0;
        let is_local = route.table == u32::from(libc::RT_TABLE_LOCAL);
        if is_cached || (is_local && route.protocol == libc::RTPROT_KERNEL) {
            continue;
        }
        match (route.protocol, route.hops.first()) {
            (libc::RTPROT_KERNEL, Some(hop)) if route.kind == libc::RTN_UNICAST => {
                routes.networks.push(NetworkRoute {
                    interface: hop.interface,
                    destination: route.destination,
                    prefix: route.prefix,
                });
            }
            (libc::RTPROT_KERNEL, _) => {}
            _ => routes.others.push(route),
        }
    }
    // A gateway has to be reachable when its route is added.
    routes.others.sort_by_key(|route| route.hops.iter().any(|hop| hop.gateway.is_some()));
    routes
}

fn route(message: &[u8]) -> Option<(Route, u32)> {
    let body = message.get(..BODY)?;
    let attributes = Attributes::read(&message[BODY..]);
    let flags = number(&body[8..12])?;
    let unspecified: IpAddr = match i32::from(body[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let hops = match (attributes.get(libc::RTA_MULTIPATH), attributes.number(libc::RTA_OIF)) {
        (Some(hops), _) => next_hops(hops)?,
        (None, Some(interface)) => vec![Hop {
            interface,
            gateway: gateway(&attributes),
            onlink: flags & RTNH_F_ONLINK != 0,
            weight: 0,
        }],
        (None, None) => Vec::new(),
    };
    let metrics = attributes.get(libc::RTA_METRICS).map(Attributes::read);
    let metrics = metrics.iter().flat_map(Attributes::iter);
    let refuses =
        !matches!(body[7], libc::RTN_UNICAST | libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_MULTICAST);
    Some((
        Route {
            destination: attributes.address(libc::RTA_DST).unwrap_or(unspecified),
            prefix: body[1],
            // IPv6 names the loopback interface in routes that reject packets.
            hops: if refuses { Vec::new() } else { hops },
            source: attributes.address(libc::RTA_PREFSRC),
            table: attributes.number(libc::RTA_TABLE).unwrap_or_else(|| body[4].into()),
            kind: body[7],
            scope: body[6],
            protocol: body[5],
            tos: body[3],
            priority: attributes.number(libc::RTA_PRIORITY).unwrap_or(0),
            metrics: metrics.filter_map(|(kind, value)| Some((kind, number(value)?))).collect(),
        },
        flags,
    ))
}

fn gateway(attributes: &Attributes<'_>) -> Option<IpAddr> {
    // `struct rtvia` begins with the family.
    let via = || attributes.get(RTA_VIA).and_then(|via| address(via.get(2..)?));
    attributes.address(libc::RTA_GATEWAY).or_else(via)
}

fn next_hops(mut bytes: &[u8]) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    while let Some(body) = bytes.get(..NEXT_HOP) {
        let length = usize::from(u16::from_ne_bytes(body[..2].try_into().ok()?));
        let hop = bytes.get(..length).filter(|hop| hop.len() >= NEXT_HOP)?;
        hops.push(Hop {
            interface: number(&body[4..8])?,
            gateway: gateway(&Attributes::read(&hop[NEXT_HOP..])),
            onlink: u32::from(body[2]) & RTNH_F_ONLINK != 0,
            weight: body[3],
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// The network of an address.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

#[cfg(test)]
#[path = "routes_test.rs"]
mod tests;

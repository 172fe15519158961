//! The guest's network: what the runtime has seen in the pod's network namespace, as steps that the agent takes.
//!
//! Interfaces go by their numbers in the host's namespace; [`NetworkChange::nics`] says which NIC stands for which. Flags,
//! scopes, tables and types are rtnetlink(7)'s numbers.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// The number of the loopback interface, on the host as in the guest.
pub const LOOPBACK: u32 = 1;

/// Longest name of an interface, in bytes: IFNAMSIZ less the final NUL.
pub const INTERFACE_NAME: usize = 15;

/// Changes of the guest's network, in the order in which they are to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChange {
    /// Every NIC that a step names.
    pub nics: Vec<NicSlot>,
    /// The steps in their order; when one fails, the rest are not taken.
    pub steps: Vec<NetworkStep>,
}

/// Where the NIC is that stands for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSlot {
    /// The number of the interface on the host; never [`LOOPBACK`].
    pub interface: u32,
    /// The slot of [`crate::vmm::Response::Slot`].
    pub slot: u8,
}

/// One change. Adding what is there, or removing what is not, is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkStep {
    /// Bind the NIC's driver, which gives the guest an interface.
    Bind {
        /// The number of the interface that the NIC stands for.
        interface: u32,
    },
    /// Unbind the NIC's driver.
    Unbind {
        /// The number of the interface that the NIC stands for.
        interface: u32,
    },
    /// Set the interface's own properties.
    Link(Link),
    /// Add an address.
    AddAddress(Address),
    /// Remove an address.
    RemoveAddress(Address),
    /// Add a route.
    AddRoute(Route),
    /// Remove a route.
    RemoveRoute(Route),
    /// Add a neighbour, or change it.
    AddNeighbour(Neighbour),
    /// Remove a neighbour.
    RemoveNeighbour(Neighbour),
}

/// An interface's own properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The number of the interface.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Whether the interface is up.
    pub up: bool,
    /// Whether the interface resolves addresses; false is IFF_NOARP.
    pub arp: bool,
}

/// An interface's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The number of the interface that has the address.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
    /// The address of the other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// The broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
    /// Metric of the route to its network; 0 for the kernel's default.
    pub metric: u32,
    /// Seconds for which the address is valid, and for which it is preferred; `None` is for ever.
    pub lifetimes: Option<(u32, u32)>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Network that it leads to; its family is the route's.
    pub destination: IpAddr,
    /// Length of the prefix, in bits: 0 for the default route.
    pub prefix: u8,
    /// The next hops: none for a route that rejects packets; several share the packets.
    pub hops: Vec<Hop>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Its table: RT_TABLE_MAIN is 254.
    pub table: u32,
    /// `RTN_*`.
    pub kind: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `RTPROT_*`.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Metric: the lowest goes first.
    pub priority: u32,
    /// `RTAX_*` and their values: the path's MTU and the like.
    pub metrics: Vec<(u16, u32)>,
}

/// A next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The number of the interface that packets leave by.
    pub interface: u32,
    /// The next router, if it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// `RTNH_F_ONLINK`: the gateway is on the link, whatever its address.
    pub onlink: bool,
    /// `rtnh_hops`: the weight of this hop among several, minus one.
    pub weight: u8,
}

/// A permanent entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The number of the interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

//! Packet filters of a network namespace. They cannot be taken over: the pod's packets go to the guest before the
//! host's filters see them, and rules cannot be copied between kernels in general. So a warning names them.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockProtocol};

use super::netlink::{Attributes, Netlink};

/// NFT_MSG_GETRULE of NFNL_SUBSYS_NFTABLES: linux/netfilter/nfnetlink.h, nf_tables.h.
const GET_RULES: u16 = 10 << 8 | 7;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;

/// Length of `struct nfgenmsg`, all families in it.
const BODY: usize = 4;

/// Largest number of chains that are named; there may be thousands.
const NAMED: usize = 16;

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const GET_INFO: i32 = 64;

/// The head of `struct ipt_getinfo`, which `struct ip6t_getinfo` is like.
#[repr(C)]
#[derive(Debug)]
struct TableInfo {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// One sentence that names the chains with rules in the calling thread's network namespace; `None` where there are none.
pub fn warning() -> Option<String> {
    let mut chains = nftables();
    chains.extend(legacy("/proc/thread-self/net/ip_tables_names", AddressFamily::Inet, "ip"));
    chains.extend(legacy("/proc/thread-self/net/ip6_tables_names", AddressFamily::Inet6, "ip6"));
    if chains.is_empty() {
        return None;
    }
    let more = chains.len().saturating_sub(NAMED);
    let named: Vec<_> = chains.into_iter().take(NAMED).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "the packet filters of the network namespace have no effect on the pod, whose network is in its VM: {}{more}; set \
         them up in a container of the pod (docs/network.md)",
        named.join(", ")
    ))
}

/// The chains of nftables that have rules, those of iptables-nft included.
fn nftables() -> BTreeSet<String> {
    let rules = Netlink::open_of(SockProtocol::NetlinkNetFilter)
        .and_then(|mut netlink| netlink.list(GET_RULES, &[0; BODY]));
    let chain = |message: &Vec<u8>| {
        let attributes = Attributes::read(message.get(BODY..)?);
        let family = match i32::from(*message.first()?) {
            libc::NFPROTO_INET => "inet",
            libc::NFPROTO_IPV4 => "ip",
            libc::NFPROTO_IPV6 => "ip6",
            libc::NFPROTO_BRIDGE => "bridge",
            libc::NFPROTO_ARP => "arp",
            _ => "netdev",
        };
        Some(format!("{family} {} {}", attributes.string(RULE_TABLE)?, attributes.string(RULE_CHAIN)?))
    };
    // A kernel without nftables has no rules.
    rules.unwrap_or_default().iter().filter_map(chain).collect()
}

/// The tables of the older iptables that have rules: its chains cannot be listed without their rules.
fn legacy(names: &str, family: AddressFamily, word: &str) -> Vec<String> {
    let tables = fs::read_to_string(names).unwrap_or_default();
    if tables.is_empty() {
        return Vec::new();
    }
    raw(family).map_or_else(Vec::new, |socket| with_rules(&socket, &tables, family, word))
}

fn with_rules(socket: &OwnedFd, tables: &str, family: AddressFamily, word: &str) -> Vec<String> {
    let has_rules = |table: &&str| {
        // A policy for each hook, and an error at the end.
        info(socket, table, family).is_some_and(|info| info.num_entries > info.valid_hooks.count_ones() + 1)
    };
    tables.lines().filter(has_rules).map(|table| format!("{word} {table} (legacy)")).collect()
}

/// A raw socket, for any protocol.
fn raw(family: AddressFamily) -> Option<OwnedFd> {
    // SAFETY: the call takes integers and makes a descriptor.
    let made = unsafe { libc::socket(family as i32, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    // SAFETY: it is new and nobody else's.
    (made >= 0).then(|| unsafe { OwnedFd::from_raw_fd(made) })
}

fn info(socket: &OwnedFd, table: &str, family: AddressFamily) -> Option<TableInfo> {
    let mut info = TableInfo {
        name: [0; 32],
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        num_entries: 0,
        size: 0,
    };
    info.name.get_mut(..table.len())?.copy_from_slice(table.as_bytes());
    let level = if family == AddressFamily::Inet6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    let mut length = size_of::<TableInfo>() as libc::socklen_t;
    // SAFETY: the kernel reads a name from the structure and fills it, up to the length that it is given.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length)
    };
    (result == 0).then_some(info)
}

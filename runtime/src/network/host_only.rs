//! More of a network namespace that stays on the host: the rules of `ip rule`, and the addresses of its loopback
//! interface. The guest has its own rules and its own loopback interface, so a warning names those of the host.

use stockade_protocol::network::Address;

use super::netlink::{Attributes, Netlink};

/// Length of `struct fib_rule_hdr`.
const RULE_BODY: usize = 12;
/// `linux/fib_rules.h`.
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;

/// Priority and table of the rules that each namespace begins with (ip-rule(8)): local, main, default.
const FIRST_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// A warning names at most this many rules or addresses; there may be thousands.
const NAMED: usize = 8;

/// Returns one sentence about the rules in the calling thread's network namespace, and one about the addresses of its loopback
/// interface. Rules that the kernel does not list count as none.
pub fn warnings(netlink: &mut Netlink, loopback: &[Address]) -> Vec<String> {
    let rules = netlink.list(libc::RTM_GETRULE, &[0; RULE_BODY]).unwrap_or_default();
    let rules: Vec<_> = rules.iter().filter_map(|message| rule(message)).collect();
    let addresses: Vec<_> = loopback.iter().filter_map(address).collect();
    let rules = (!rules.is_empty()).then(|| {
        format!(
            "the routing rules of the network namespace have no effect on the pod, whose VM has rules of its own: {}; add \
             them in a container of the pod (docs/network.md)",
            named(&rules)
        )
    });
    let addresses = (!addresses.is_empty()).then(|| {
        format!(
            "the guest does not get these addresses of lo in the network namespace: {}; add them in a container of the pod \
             (docs/network.md)",
            named(&addresses)
        )
    });
    rules.into_iter().chain(addresses).collect()
}

fn named(all: &[String]) -> String {
    let first = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Describes a rule that somebody has added; returns None for a rule of the kernel.
fn rule(message: &[u8]) -> Option<String> {
    let body = message.get(..RULE_BODY)?;
    let attributes = Attributes::read(&message[RULE_BODY..]);
    let priority = attributes.number(FRA_PRIORITY).unwrap_or(0);
    let table = attributes.number(FRA_TABLE).unwrap_or_else(|| body[4].into());
    let family = match i32::from(body[0]) {
        libc::AF_INET => "IPv4",
        libc::AF_INET6 => "IPv6",
        // Multicast routing has rules of its own, which are not for packets of the pod.
        _ => return None,
    };
    let is_first = FIRST_RULES.contains(&(priority, table));
    (!is_first).then(|| format!("{family} priority {priority} (table {table})"))
}

/// Describes an address of lo that the guest's lo does not have; all of 127.0.0.0/8 is the guest's too.
fn address(Address { address, prefix, .. }: &Address) -> Option<String> {
    (!address.is_loopback()).then(|| format!("{address}/{prefix}"))
}

#[cfg(test)]
#[path = "host_only_test.rs"]
mod tests;

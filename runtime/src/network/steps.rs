//! The steps from the network that the guest was last told of to the one that it is to have.
//!
//! What the workload itself has changed in the guest stays as it is, because only differences between two inventories of
//! the host are sent.

use stockade_protocol::network::{Address, LOOPBACK, Link, Neighbour, NetworkStep, Route};

use super::inventory::{Interface, Picture};

/// The steps from `old` to `new`, in the order in which the kernel takes them.
pub fn steps(old: &Picture, new: &Picture) -> Vec<NetworkStep> {
    let mut steps = Vec::new();
    let mut interfaces: Vec<(&Interface, Option<&Interface>)> = Vec::new();
    for before in &old.interfaces {
        if find(new, before.link.interface).is_none() {
            steps.push(NetworkStep::Unbind { interface: before.link.interface });
        }
    }
    for after in &new.interfaces {
        let before = find(old, after.link.interface);
        if before.is_none() {
            steps.push(NetworkStep::Bind { interface: after.link.interface });
        }
        interfaces.push((after, before));
    }
    make_way_for_names(old, new, &mut steps);
    let changed: Vec<u32> = interfaces
        .iter()
        .filter(|(after, before)| before.is_none_or(|before| loses_routes(before, after)))
        .map(|(after, _)| after.link.interface)
        .collect();
    let is_afresh = |interface: u32| changed.contains(&interface);

    for route in &old.routes {
        // Routes go with their interface.
        let stays = |interface| interface == LOOPBACK || find(new, interface).is_some();
        let stays = route.hops.iter().all(|hop| stays(hop.interface));
        if stays && !new.routes.contains(route) {
            steps.push(NetworkStep::RemoveRoute(route.clone()));
        }
    }
    for (after, before) in &interfaces {
        let Some(before) = before else { continue };
        let removed = before.neighbours.iter().filter(|neighbour| !after.neighbours.contains(neighbour));
        steps.extend(removed.cloned().map(NetworkStep::RemoveNeighbour));
        let removed = before.addresses.iter().filter(|address| !has(&after.addresses, address));
        steps.extend(removed.cloned().map(NetworkStep::RemoveAddress));
    }
    for (after, before) in &interfaces {
        if before.is_none_or(|before| before.link != after.link) {
            steps.push(NetworkStep::Link(after.link.clone()));
        }
    }
    for (after, before) in &interfaces {
        let before = before.filter(|_| !is_afresh(after.link.interface));
        let (addresses, neighbours): (&[Address], &[Neighbour]) =
            before.map_or((&[], &[]), |before| (&before.addresses, &before.neighbours));
        let added = after.addresses.iter().filter(|address| !has(addresses, address));
        steps.extend(added.cloned().map(NetworkStep::AddAddress));
        let added = after.neighbours.iter().filter(|neighbour| !neighbours.contains(neighbour));
        steps.extend(added.cloned().map(NetworkStep::AddNeighbour));
    }
    let is_added =
        |route: &&Route| !old.routes.contains(route) || route.hops.iter().any(|hop| is_afresh(hop.interface));
    steps.extend(new.routes.iter().filter(is_added).cloned().map(NetworkStep::AddRoute));
    steps
}

fn find(picture: &Picture, index: u32) -> Option<&Interface> {
    picture.interfaces.iter().find(|interface| interface.link.interface == index)
}

/// Whether the list has this address; lifetimes are not compared, because they run out.
fn has(addresses: &[Address], address: &Address) -> bool {
    let without_time =
        |address: &Address| Address { lifetimes: address.lifetimes.map(|_| (0, 0)), ..address.clone() };
    let address = without_time(address);
    addresses.iter().any(|other| without_time(other) == address)
}

/// Whether the kernel removes more than the step says: routes of an interface that goes down, other addresses and
/// routes with an address.
fn loses_routes(before: &Interface, after: &Interface) -> bool {
    before.link.up != after.link.up || before.addresses.iter().any(|address| !has(&after.addresses, address))
}

/// Renames interfaces whose names other interfaces are about to get.
fn make_way_for_names(old: &Picture, new: &Picture, steps: &mut Vec<NetworkStep>) {
    for before in &old.interfaces {
        let Some(after) = find(new, before.link.interface) else { continue };
        let name = &before.link.name;
        let is_wanted = new.interfaces.iter().any(|other| other.link.name == *name);
        if *name != after.link.name && is_wanted {
            let name = format!("stkd{}", before.link.interface);
            steps.push(NetworkStep::Link(Link { name, ..before.link.clone() }));
        }
    }
}

#[cfg(test)]
#[path = "steps_test.rs"]
mod tests;

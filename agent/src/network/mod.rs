//! The guest's network interfaces: NICs that the VMM has put into hotplug slots, which get the settings of the pod's network
//! namespace on the host.
//!
//! The runtime has read that namespace and says what to do, step by step; [`requests`] has the requests to the kernel for
//! each step. The host's numbers of interfaces are not the guest's: [`nics`] finds the guest's.

use stockade_protocol::{
    agent::AgentError,
    network::{NetworkChange, NetworkStep},
};

use crate::error::{Context, ErrorKind, Result, error, reason};

mod netlink;
mod nics;
mod requests;

use self::{netlink::Netlink, nics::Nics, requests::Purpose};

/// Takes the steps in order.
///
/// # Errors
/// The first step that fails; the steps before it have been taken.
pub fn change(change: &NetworkChange) -> Result<()> {
    let nics = Nics::open(&change.nics)?;
    let netlink = Netlink::open().or_internal(|| "open a netlink socket".to_owned())?;
    change.steps.iter().try_for_each(|step| take(step, &nics, &netlink))
}

fn take(step: &NetworkStep, nics: &Nics<'_>, netlink: &Netlink) -> Result<()> {
    let index = |interface| nics.index(interface);
    let (requests, purpose) = match step {
        NetworkStep::Bind { interface } => return nics.bind(*interface),
        NetworkStep::Unbind { interface } => return nics.unbind(*interface),
        NetworkStep::Link(link) => (requests::link(link, index(link.interface)?), Purpose::Set),
        NetworkStep::AddAddress(address) => {
            (vec![requests::address(Purpose::Add, address, index(address.interface)?)], Purpose::Add)
        }
        NetworkStep::RemoveAddress(address) => {
            (vec![requests::address(Purpose::Remove, address, index(address.interface)?)], Purpose::Remove)
        }
        NetworkStep::AddRoute(route) => (vec![requests::route(Purpose::Add, route, index)?], Purpose::Add),
        NetworkStep::RemoveRoute(route) => {
            (vec![requests::route(Purpose::Remove, route, index)?], Purpose::Remove)
        }
        NetworkStep::AddNeighbour(neighbour) => {
            (vec![requests::neighbour(Purpose::Add, neighbour, index(neighbour.interface)?)], Purpose::Add)
        }
        NetworkStep::RemoveNeighbour(neighbour) => (
            vec![requests::neighbour(Purpose::Remove, neighbour, index(neighbour.interface)?)],
            Purpose::Remove,
        ),
    };
    for request in requests {
        match netlink.ask(request) {
            Err(errno) if !purpose.is_fulfilled(errno) => {
                return Err(error(
                    ErrorKind::Spec,
                    format!("{}: {}", requests::describe(step), reason(errno)),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// An error about a request that the runtime does not send.
fn unexpected(message: String) -> AgentError {
    error(ErrorKind::Internal, message)
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;

//! Annotations that ask for user-mode networking, where no engine makes a network.

use crate::config::annotations::{NETWORK, PUBLISH};
use crate::network::NetworkNamespace;
use crate::network::user_mode::UserNetwork;
use crate::oci::bundle::SpecError;
use crate::state::role::Annotations;

/// What the annotations ask for.
///
/// # Errors
/// Values that are not understood; a network namespace that is somebody else's.
pub fn lower(
    annotations: &Annotations,
    network: &NetworkNamespace,
    is_member: bool,
) -> Result<Option<UserNetwork>, SpecError> {
    let get = |name: &str| annotations.get(name).map(String::as_str);
    let refuse = |name: &str, problem: String| Err(SpecError::new(format!("annotations[{name:?}]"), problem));
    let is_wanted = match get(NETWORK) {
        None | Some("none") => false,
        Some("user") => true,
        Some(other) => return refuse(NETWORK, format!("{other:?} is neither \"user\" nor \"none\"")),
    };
    if !is_wanted {
        return match get(PUBLISH) {
            Some(_) => refuse(PUBLISH, format!("ports are published only where {NETWORK} is \"user\"")),
            None => Ok(None),
        };
    }
    if is_member || *network != NetworkNamespace::New {
        let problem = "the network namespace in linux.namespaces has a path: whoever has made it makes its interfaces \
                       too";
        return refuse(NETWORK, problem.to_owned());
    }
    let mut lowered = UserNetwork::default();
    for entry in get(PUBLISH).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
    {
        match published(entry) {
            Some((ports, false)) => lowered.tcp.push(ports),
            Some((ports, true)) => lowered.udp.push(ports),
            None => {
                return refuse(
                    PUBLISH,
                    format!("{entry:?} is not HOST[:CONTAINER][/tcp|/udp] with ports from 1 to 65535"),
                );
            }
        }
    }
    Ok(Some(lowered))
}

/// The ports, and whether they are UDP's.
fn published(entry: &str) -> Option<((u16, u16), bool)> {
    let (ports, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    let is_udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    let (host, container) = ports.split_once(':').unwrap_or((ports, ports));
    Some(((port(host)?, port(container)?), is_udp))
}

#[cfg(test)]
#[path = "user_network_test.rs"]
mod tests;

use super::*;
use proptest::prelude::*;

fn link(index: u32, name: &str) -> FoundLink {
    FoundLink {
        link: Link {
            interface: index,
            name: name.into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            arp: true,
        },
        arphrd: ARPHRD_ETHER,
        kind: "veth".into(),
        has_master: false,
        below: None,
    }
}

fn is_connected(found: FoundLink, is_used: bool) -> Result<bool, &'static str> {
    let links = [link(9, "below"), found];
    match role(&links[1], &links, is_used) {
        Role::Connected => Ok(true),
        Role::Ignored => Ok(false),
        Role::Refused(why) => Err(why),
    }
}

#[test]
fn ethernet_is_connected_and_nothing_else() {
    assert_eq!(is_connected(link(2, "eth0"), true), Ok(true));
    assert_eq!(is_connected(link(2, "eth0"), false), Ok(true), "one that comes up later");
    let lo = FoundLink { arphrd: ARPHRD_LOOPBACK, ..link(1, "lo") };
    assert_eq!(is_connected(lo, true), Ok(false));
    let tap = FoundLink { kind: "tun".into(), ..link(3, "stkd2") };
    assert_eq!(is_connected(tap, true), Ok(false), "stockade's own");
    let tap = FoundLink { kind: "tun".into(), ..link(3, "tap0") };
    assert_eq!(is_connected(tap, true), Ok(true), "that of slirp4netns");
    let port = FoundLink { has_master: true, ..link(2, "eth0") };
    assert_eq!(is_connected(port, true), Ok(false));
}

#[test]
fn what_a_vm_cannot_have_is_said_where_it_is_used() {
    let tunnel = || FoundLink { arphrd: 65534, kind: "wireguard".into(), ..link(2, "wg0") };
    assert!(is_connected(tunnel(), true).unwrap_err().contains("Ethernet"));
    assert_eq!(is_connected(tunnel(), false), Ok(false));
    let vlan = FoundLink { kind: "vlan".into(), below: Some(9), ..link(2, "eth0.5") };
    assert!(is_connected(vlan, true).unwrap_err().contains("on top of"));
    let macvlan = FoundLink { kind: "macvlan".into(), below: Some(77), ..link(2, "eth0") };
    assert_eq!(is_connected(macvlan, true), Ok(true), "its parent is elsewhere");
    let veth = FoundLink { below: Some(9), ..link(2, "eth0") };
    assert_eq!(is_connected(veth, true), Ok(true), "a pair in one namespace");
    let unused = FoundLink { link: Link { mac: [0; 6], ..link(2, "gretap0").link }, ..link(2, "gretap0") };
    assert_eq!(is_connected(unused, false), Ok(false), "a kernel's fallback device");
}

proptest! {
    #[test]
    fn any_message_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let mut warnings = Vec::new();
        let _ = found_link(&bytes);
        let _ = neighbour(&bytes);
        if let Some(address) = address(&bytes, &mut warnings) {
            let found = routes::read(std::slice::from_ref(&bytes));
            let _ = found.networks.iter().any(|route| route.is_of(&address));
        }
    }
}

use super::{requests, *};
use proptest::prelude::*;
use stockade_protocol::network::{Address, Hop, Link, Neighbour, Route};
use stockade_sys::netlink::Message;

/// Types and values.
type Attributes = Vec<(u16, Vec<u8>)>;

/// The attributes of a request whose fixed part has this length, checked as the kernel checks them.
fn attributes(bytes: &[u8]) -> Attributes {
    let mut rest = bytes;
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        attributes.push((u16::from_ne_bytes([rest[2], rest[3]]), rest[4..length].to_vec()));
        rest = &rest[length.next_multiple_of(4)..];
    }
    attributes
}

fn request(message: Message, body: usize) -> (u16, Vec<u8>, Attributes) {
    let bytes = message.finish(0);
    assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
    (kind, bytes[16..16 + body].to_vec(), attributes(&bytes[16 + body..]))
}

fn value(attributes: &[(u16, Vec<u8>)], kind: u16) -> Vec<u8> {
    attributes
        .iter()
        .find(|(found, _)| *found == kind)
        .unwrap_or_else(|| panic!("no attribute {kind}"))
        .1
        .clone()
}

#[test]
fn a_link_comes_up_when_all_else_is_set() {
    let link =
        Link { interface: 9, name: "eth0".into(), mac: [2, 0, 0, 0, 0, 1], mtu: 1400, up: true, arp: true };
    let [properties, up]: [Message; 2] = requests::link(&link, 3).try_into().unwrap();
    let (kind, body, attributes) = request(properties, 16);
    assert_eq!((kind, &body[4..8]), (libc::RTM_NEWLINK, &3u32.to_ne_bytes()[..]));
    assert_eq!(value(&attributes, libc::IFLA_IFNAME), b"eth0\0");
    assert_eq!(value(&attributes, libc::IFLA_MTU), 1400u32.to_ne_bytes());
    assert_eq!(body[8] & libc::IFF_UP as u8, 0);
    let (_, body, attributes) = request(up, 16);
    assert_eq!((body[8], body[12], attributes), (libc::IFF_UP as u8, libc::IFF_UP as u8, vec![]));
}

#[test]
fn an_address_has_its_peer_where_the_kernel_looks_for_it() {
    let mut address = Address {
        interface: 9,
        address: [10, 0, 0, 2].into(),
        prefix: 24,
        peer: None,
        broadcast: Some([10, 0, 0, 255].into()),
        scope: 0,
        flags: 0x80,
        metric: 0,
        lifetimes: Some((60, 30)),
    };
    let (kind, body, attributes) = request(requests::address(Purpose::Add, &address, 3), 8);
    assert_eq!((kind, body[1]), (libc::RTM_NEWADDR, 24));
    assert_eq!(value(&attributes, libc::IFA_ADDRESS), [10, 0, 0, 2]);
    assert_eq!(value(&attributes, libc::IFA_CACHEINFO)[..8], [30, 0, 0, 0, 60, 0, 0, 0]);
    address.peer = Some([10, 9, 9, 9].into());
    let (kind, _, attributes) = request(requests::address(Purpose::Remove, &address, 3), 8);
    assert_eq!(kind, libc::RTM_DELADDR);
    assert_eq!(value(&attributes, libc::IFA_LOCAL), [10, 0, 0, 2]);
    assert_eq!(value(&attributes, libc::IFA_ADDRESS), [10, 9, 9, 9]);
}

fn route(hops: Vec<Hop>) -> Route {
    Route {
        destination: [0, 0, 0, 0].into(),
        prefix: 0,
        hops,
        source: None,
        table: 1000,
        kind: libc::RTN_UNICAST,
        scope: 0,
        protocol: libc::RTPROT_STATIC,
        tos: 0,
        priority: 7,
        metrics: vec![(2, 1300)],
    }
}

#[test]
fn a_route_has_one_way_several_or_none() {
    let hop = |interface, gateway: &str| Hop {
        interface,
        gateway: Some(gateway.parse().unwrap()),
        onlink: true,
        weight: 4,
    };
    let guests = |interface| Ok(interface + 100);
    let build = |hops| request(requests::route(Purpose::Add, &route(hops), guests).unwrap(), 12);
    let (_, body, attributes) = build(vec![hop(2, "10.0.0.1")]);
    assert_eq!((body[4], body[8]), (0, 4), "a large table is in its attribute, and onlink in the flags");
    assert_eq!(value(&attributes, libc::RTA_TABLE), 1000u32.to_ne_bytes());
    assert_eq!(value(&attributes, libc::RTA_OIF), 102u32.to_ne_bytes());
    assert_eq!(value(&attributes, libc::RTA_GATEWAY), [10, 0, 0, 1]);
    assert_eq!(
        self::attributes(&value(&attributes, libc::RTA_METRICS)),
        [(2, 1300u32.to_ne_bytes().to_vec())]
    );

    let (_, _, attributes) = build(vec![hop(2, "fe80::1")]);
    assert_eq!(
        value(&attributes, 18)[..2],
        (libc::AF_INET6 as u16).to_ne_bytes(),
        "a gateway of the other family"
    );

    let (_, _, attributes) = build(vec![hop(2, "10.0.0.1"), hop(3, "10.0.1.1")]);
    let ways = value(&attributes, libc::RTA_MULTIPATH);
    assert_eq!(ways.len(), 2 * 16);
    assert_eq!((&ways[..4], &ways[4..8]), (&[16, 0, 4, 4][..], &102u32.to_ne_bytes()[..]));

    let (_, _, attributes) = build(vec![]);
    assert!(attributes.iter().all(|(kind, _)| *kind != libc::RTA_OIF && *kind != libc::RTA_MULTIPATH));
}

#[test]
fn a_nic_without_a_slot_is_named() {
    let refused = requests::route(
        Purpose::Add,
        &route(vec![Hop { interface: 2, gateway: None, onlink: false, weight: 0 }]),
        |interface| Err(unexpected(format!("no {interface}"))),
    );
    assert_eq!(refused.unwrap_err().message, "no 2");
}

#[test]
fn what_is_there_is_added_and_what_is_not_is_removed() {
    use nix::errno::Errno;
    assert!(Purpose::Add.is_fulfilled(Errno::EEXIST) && !Purpose::Remove.is_fulfilled(Errno::EEXIST));
    assert!(Purpose::Remove.is_fulfilled(Errno::ESRCH) && !Purpose::Add.is_fulfilled(Errno::ENETUNREACH));
    assert!(!Purpose::Set.is_fulfilled(Errno::EEXIST), "a name that another interface has");
}

proptest! {
    #[test]
    fn messages_are_what_was_put_in(values in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..8)) {
        let mut message = Message::new(1, 0, &[0; 8]);
        message.nested(5, |message| {
            for (kind, value) in &values {
                message.attribute(*kind, value);
            }
        });
        let (_, _, outer) = request(message, 8);
        prop_assert_eq!(outer.len(), 1);
        prop_assert_eq!(attributes(&outer[0].1), values);
    }

    #[test]
    fn any_neighbour_is_one_request(address: [u8; 16], mac: [u8; 6], is_long: bool) {
        let address = if is_long { address.into() } else { <[u8; 4]>::try_from(&address[..4]).unwrap().into() };
        let neighbour = Neighbour { interface: 2, address, mac };
        let (kind, body, attributes) = request(requests::neighbour(Purpose::Add, &neighbour, 3), 12);
        prop_assert_eq!((kind, body[8]), (libc::RTM_NEWNEIGH, 0x80));
        prop_assert_eq!(value(&attributes, libc::NDA_LLADDR), mac.to_vec());
    }
}

use super::*;
use netlink_packet_core::{DefaultNla, Emitable};
use proptest::prelude::*;

fn message(body: [u8; BODY], attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; BODY + attributes.buffer_len()];
    bytes[..BODY].copy_from_slice(&body);
    attributes.emit(&mut bytes[BODY..]);
    bytes
}

fn body(prefix: u8, table: u8, protocol: u8, kind: u8) -> [u8; BODY] {
    [libc::AF_INET as u8, prefix, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0]
}

fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

#[test]
fn what_the_guests_kernel_makes_itself_is_not_told() {
    let through = attribute(libc::RTA_OIF, &2u32.to_ne_bytes());
    let routes = read(&[
        message(
            body(0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RTN_UNICAST),
            &[through.clone(), attribute(libc::RTA_GATEWAY, &[10, 1, 0, 1])],
        ),
        message(
            body(16, libc::RT_TABLE_MAIN, libc::RTPROT_KERNEL, libc::RTN_UNICAST),
            &[attribute(libc::RTA_DST, &[10, 1, 0, 0]), through.clone()],
        ),
        message(
            body(32, libc::RT_TABLE_LOCAL, libc::RTPROT_KERNEL, libc::RTN_LOCAL),
            &[attribute(libc::RTA_DST, &[10, 1, 0, 2]), through.clone()],
        ),
        message(
            body(32, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RTN_UNICAST),
            &[attribute(libc::RTA_DST, &[10, 1, 0, 1]), through],
        ),
    ]);
    let others: Vec<_> = routes.others.iter().map(|route| (route.prefix, route.hops[0].gateway)).collect();
    assert_eq!(others, [(32, None), (0, Some([10, 1, 0, 1].into()))], "the gateway's own route goes first");
    let mut address = Address {
        interface: 2,
        address: [10, 1, 0, 2].into(),
        prefix: 16,
        peer: None,
        broadcast: None,
        scope: 0,
        flags: 0,
        metric: 0,
        lifetimes: None,
    };
    assert!(routes.networks.iter().any(|route| route.is_of(&address)));
    address.prefix = 24;
    assert!(!routes.networks.iter().any(|route| route.is_of(&address)));
}

#[test]
fn several_ways_and_routes_that_refuse() {
    let way = |interface: u32, weight: u8, gateway: [u8; 4]| {
        let mut way = vec![16, 0, 0, weight];
        way.extend(interface.to_ne_bytes());
        way.extend([8, 0, libc::RTA_GATEWAY as u8, 0]);
        way.extend(gateway);
        way
    };
    let ways = [way(2, 0, [10, 0, 0, 1]), way(3, 1, [10, 0, 1, 1])].concat();
    let routes = read(&[
        message(
            body(0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RTN_UNICAST),
            &[attribute(libc::RTA_MULTIPATH, &ways)],
        ),
        message(
            body(8, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RTN_BLACKHOLE),
            &[attribute(libc::RTA_DST, &[10, 0, 0, 0]), attribute(libc::RTA_OIF, &1u32.to_ne_bytes())],
        ),
    ]);
    assert!(routes.others[0].hops.is_empty());
    let hops: Vec<_> =
        routes.others[1].hops.iter().map(|hop| (hop.interface, hop.weight, hop.gateway)).collect();
    assert_eq!(hops, [(2, 0, Some([10, 0, 0, 1].into())), (3, 1, Some([10, 0, 1, 1].into()))]);
}

proptest! {
    #[test]
    fn any_message_is_read(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..96), 0..4)) {
        let routes = read(&messages);
        prop_assert!(routes.networks.len() + routes.others.len() <= messages.len());
    }

    #[test]
    fn networks_hold_their_addresses(address: u128, prefix: u8) {
        let whole = network(Ipv6Addr::from(address).into(), prefix);
        prop_assert_eq!(network(whole, prefix), whole);
        let IpAddr::V6(whole) = whole else { unreachable!() };
        prop_assert!(u128::from(whole) <= address);
    }
}

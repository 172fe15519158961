use proptest::prelude::*;
use stockade_protocol::network::LOOPBACK;

use super::*;

/// A message with these attributes.
fn message(body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    for (kind, value) in attributes {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
    }
    bytes
}

fn rule_of(family: i32, priority: u32, table: u32) -> Option<String> {
    let mut body = [0; RULE_BODY];
    body[0] = family as u8;
    rule(&message(&body, &[(FRA_PRIORITY, &priority.to_ne_bytes()), (FRA_TABLE, &table.to_ne_bytes())]))
}

#[test]
fn rules_that_somebody_has_made_are_named() {
    assert_eq!(rule_of(libc::AF_INET, 32766, 254), None);
    assert_eq!(rule_of(libc::AF_INET6, 0, 255), None);
    assert_eq!(rule_of(libc::AF_INET, 100, 7).as_deref(), Some("IPv4 priority 100 (table 7)"));
    assert_eq!(rule_of(128, 32767, 253), None, "that of multicast routing");
}

#[test]
fn addresses_of_lo_are_named_that_the_guest_has_not() {
    let address_of = |text: &str, prefix| {
        address(&Address {
            interface: LOOPBACK,
            address: text.parse().unwrap(),
            prefix,
            peer: None,
            broadcast: None,
            scope: 0,
            flags: 0,
            metric: 0,
            lifetimes: None,
        })
    };
    assert_eq!(address_of("10.1.2.3", 32).as_deref(), Some("10.1.2.3/32"));
    assert_eq!(address_of("fd00::1", 128).as_deref(), Some("fd00::1/128"));
    assert_eq!(address_of("127.0.0.5", 8), None);
    assert_eq!(address_of("::1", 128), None);
}

#[test]
fn thousands_are_not_all_named() {
    let all: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(named(&all), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    assert_eq!(named(&all[..2]), "0, 1");
}

proptest! {
    #[test]
    fn any_message_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        let _ = rule(&bytes);
    }
}

use super::*;
use proptest::prelude::*;
use stockade_sys::netlink::HEADER;

#[test]
fn requests_and_answers_are_framed_alike() {
    let mut message = Message::new(0, 0, &[]);
    message.nested(7, |message| {
        message.string(1, "mirred");
        message.attribute(2, &[1, 2, 3]);
    });
    let bytes = message.finish(0);
    let outer = Attributes::read(&bytes[HEADER..]);
    let inside = Attributes::read(outer.get(7).unwrap());
    assert_eq!(inside.string(1).as_deref(), Some("mirred"));
    assert_eq!(inside.get(2), Some(&[1, 2, 3][..]));
    assert_eq!(inside.number(2), None);
}

#[test]
fn an_acknowledgement_is_an_error_of_nothing() {
    let answer = |code: i32| {
        let mut payload = code.to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload
    };
    failure(&answer(0)).unwrap();
    assert_eq!(failure(&answer(-libc::ENOENT)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert!(failure(&[0; 3]).is_err());
}

/// The kernel of the test's machine answers as the kernel of any.
#[test]
fn the_loopback_interface_is_listed() {
    let mut netlink = Netlink::open().unwrap();
    let links = netlink.list(libc::RTM_GETLINK, &[0; 16]).unwrap();
    let names: Vec<_> =
        links.iter().filter_map(|link| Attributes::read(&link[16..]).string(libc::IFLA_IFNAME)).collect();
    assert!(names.contains(&"lo".to_owned()), "{names:?}");
    // One answer does not spill into the next.
    let refused = netlink.ask(Message::new(libc::RTM_DELLINK, 0, &[0; 16]));
    assert!(refused.is_err());
    assert_eq!(netlink.list(libc::RTM_GETLINK, &[0; 16]).unwrap().len(), links.len());
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let mut total = 0;
        let _ = messages(&bytes, |_, _, payload| total += payload.len());
        prop_assert!(total <= bytes.len());
        let held: usize = Attributes::read(&bytes).iter().map(|(_, value)| value.len() + ATTRIBUTE).sum();
        prop_assert!(held <= bytes.len());
        let _ = failure(&bytes);
    }
}

use proptest::prelude::*;

use super::*;

#[test]
fn names_become_paths() {
    for (name, expected) in [
        ("kernel.shm_rmid_forced", "sys/kernel/shm_rmid_forced"),
        ("net.ipv4.conf.eth0/1.forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
    ] {
        assert_eq!(path(name).unwrap(), Path::new(expected));
    }
}

#[test]
fn names_cannot_leave_the_tree() {
    for name in ["", "/etc/passwd", "kernel/../../../etc/passwd", ".//.//etc.passwd", "//", "net.//.//x"] {
        assert!(path(name).is_err(), "{name:?}: {:?}", path(name));
    }
}

proptest! {
    #[test]
    fn no_name_climbs(name in "[a-z./]{0,24}") {
        if let Ok(path) = path(&name) {
            prop_assert!(path.starts_with("sys"));
            prop_assert!(path.components().all(|part| part != Component::ParentDir));
        }
    }
}

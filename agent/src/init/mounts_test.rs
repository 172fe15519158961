use super::*;
use stockade_protocol::container::share_covers_dev;

fn share(destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Share("c/0".to_owned()),
        flags: 0,
        propagation: vec![],
        data: String::new(),
        copy_up: false,
    }
}

#[test]
fn only_a_share_on_dev_itself_covers_it() {
    for (destination, covers) in [
        ("/dev", true),
        ("/dev/", true),
        ("//dev/.", true),
        ("/dev/shm", false),
        ("/device", false),
        ("/", false),
    ] {
        assert_eq!(share_covers_dev(&[share(destination)]), covers, "{destination}");
    }
    let source = MountSource::FileSystem { fstype: "tmpfs".to_owned(), source: "tmpfs".to_owned() };
    assert!(!share_covers_dev(&[Mount { source, ..share("/dev") }]));
}

#[test]
fn mount_flags_become_attributes() {
    assert_eq!(attributes(libc::MS_BIND | libc::MS_REC), MountAttributes::default());
    assert_eq!(
        attributes(libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC),
        MountAttributes::new(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, 0)
    );
}

#[test]
fn access_time_is_replaced_as_a_whole() {
    assert_eq!(attributes(libc::MS_NOATIME), MountAttributes::new(attr::NOATIME, attr::ATIME));
    assert_eq!(attributes(libc::MS_RELATIME), MountAttributes::new(0, attr::ATIME));
    assert_eq!(attributes(libc::MS_NODIRATIME), MountAttributes::new(attr::NODIRATIME, 0));
}

use super::*;

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

fn rootfs() -> TempDir {
    let rootfs = tempfile::tempdir().unwrap();
    fs::create_dir(rootfs.path().join("etc")).unwrap();
    fs::write(
        rootfs.path().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\nbad:x:y\n",
    )
    .unwrap();
    fs::write(rootfs.path().join("etc/group"), "root:x:0:\nstaff:x:50:web\n").unwrap();
    rootfs
}

#[test]
fn numbers_need_no_database() {
    let nowhere = Path::new("/nonexistent");
    assert_eq!(resolve(nowhere, "7").unwrap(), Ids { uid: 7, gid: None });
    assert_eq!(resolve(nowhere, "7:8").unwrap(), Ids { uid: 7, gid: Some(8) });
}

#[test]
fn names_are_the_containers() {
    let rootfs = rootfs();
    let resolve = |text| resolve(rootfs.path(), text);
    assert_eq!(resolve("web").unwrap(), Ids { uid: 33, gid: Some(34) });
    assert_eq!(resolve("web:staff").unwrap(), Ids { uid: 33, gid: Some(50) });
    assert_eq!(resolve("5:staff").unwrap(), Ids { uid: 5, gid: Some(50) });
    for unknown in ["nobody", "bad", "", "root:", "root:web", "-1"] {
        assert!(matches!(resolve(unknown), Err(UserError::Unknown { .. })), "{unknown:?}");
    }
}

#[test]
fn a_database_may_be_in_any_encoding() {
    let latin = b"m:x:500:501:J\xfcrgen:/home/m:/bin/sh\nw:x:5000:5001:W:/home/w:/bin/sh\n";
    assert_eq!(find(&latin[..], "m"), Some([Some(500), Some(501)]));
    assert_eq!(find(&latin[..], "w"), Some([Some(5000), Some(5001)]));
}

#[test]
fn a_link_does_not_lead_out_of_the_container() {
    let rootfs = rootfs();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "host:x:1:1::/:\n").unwrap();
    fs::remove_file(rootfs.path().join("etc/passwd")).unwrap();
    symlink(outside.path(), rootfs.path().join("etc/passwd")).unwrap();
    assert!(matches!(resolve(rootfs.path(), "host"), Err(UserError::Read { .. })));
}

proptest! {
    #[test]
    fn no_database_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200), name in "[a-z:]{0,3}") {
        find(&bytes[..], &name);
    }
}

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use serde_json::json;
use stockade_protocol::container::Mount;

use super::super::tests::lowered;
use super::*;

fn listed(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|text| Pattern::try_from((*text).to_owned()).unwrap()).collect()
}

/// A container with mounts of these files.
fn mounting(sources: &[&Path]) -> Lowered {
    lowered(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.clear();
        for source in sources {
            mounts
                .push(json!({ "destination": "/x", "type": "bind", "source": source, "options": ["bind"] }));
        }
    })
    .unwrap()
}

#[test]
fn only_what_is_listed_is_connected_and_the_rest_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let path = |name: &str| folder.join(name);
    let _sockets = ["a.sock", "b.sock"].map(|name| UnixListener::bind(path(name)).unwrap());
    std::fs::write(path("c.sock"), "").unwrap();
    let mut lowered = mounting(&[&path("a.sock"), &path("b.sock"), &path("c.sock")]);
    connect_listed(&mut lowered, "c1", &listed(&[&format!("{}/b*.sock", folder.display())]));

    let sources: Vec<_> = lowered.container.mounts.iter().map(|mount| &mount.source).collect();
    assert_eq!(*sources[0], MountSource::Share("c1/m0".to_owned()));
    assert!(matches!(sources[1], MountSource::Socket { number: 0, .. }), "{sources:?}");
    assert_eq!(*sources[2], MountSource::Share("c1/m2".to_owned()));
    let names: Vec<_> = lowered.trees.iter().map(|tree| tree.name.as_str()).collect();
    assert_eq!((names, lowered.sockets.len()), (vec!["rootfs", "m0", "m2"], 1));
    let [warning] = &lowered.warnings[..] else { panic!("{:?}", lowered.warnings) };
    for word in ["mounts[0].source", path("a.sock").to_str().unwrap(), "host_sockets"] {
        assert!(warning.contains(word), "{warning}");
    }
}

#[test]
fn a_socket_that_the_relay_may_not_connect_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("a.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    for (mode, warnings) in [(0o577, 1), (0o200, 0)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let mut lowered = mounting(&[&path]);
        connect_listed(&mut lowered, "c1", &listed(&[path.to_str().unwrap()]));
        let MountSource::Socket { mode: seen, .. } = lowered.container.mounts[0].source else {
            panic!("a share")
        };
        assert_eq!((seen, lowered.warnings.len()), (mode, warnings));
        assert!(
            lowered
                .warnings
                .iter()
                .all(|warning| warning.contains("mounts[0].source") && warning.contains("fail"))
        );
    }
}

#[test]
fn there_is_an_end_to_the_number_of_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("a.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    let mut lowered = mounting(&vec![path.as_path(); MOST + 1]);
    connect_listed(&mut lowered, "c1", &listed(&[path.to_str().unwrap()]));
    assert_eq!((lowered.sockets.len(), lowered.trees.len()), (MOST, 2));
    let number = |mount: &Mount| match mount.source {
        MountSource::Socket { number, .. } => Some(usize::from(number)),
        _ => None,
    };
    let numbers: Vec<_> = lowered.container.mounts.iter().filter_map(number).collect();
    assert_eq!(numbers, (0..MOST).collect::<Vec<_>>());
    assert!(lowered.warnings[0].contains(&format!("{MOST} sockets")), "{:?}", lowered.warnings);
}

#[test]
fn a_link_does_not_stand_for_what_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    for name in ["own", "others"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    let _socket = UnixListener::bind(folder.join("others/secret.sock")).unwrap();
    symlink("../others/secret.sock", folder.join("own/a.sock")).unwrap();
    symlink("../others", folder.join("own/folder")).unwrap();
    let sources = [folder.join("own/a.sock"), folder.join("own/folder/secret.sock")];
    let mut lowered = mounting(&[&sources[0], &sources[1]]);
    let own = [format!("{}/own/*.sock", folder.display()), format!("{}/own/*/*.sock", folder.display())];
    connect_listed(&mut lowered, "c1", &listed(&[&own[0], &own[1]]));
    assert_eq!((lowered.sockets.len(), lowered.trees.len(), lowered.warnings.len()), (0, 3, 2));
    assert!(lowered.warnings.iter().all(|warning| warning.contains("others/secret.sock")));

    // Who lists the socket itself has it by any way.
    connect_listed(&mut lowered, "c1", &listed(&[&format!("{}/others/secret.sock", folder.display())]));
    assert_eq!((lowered.sockets.len(), lowered.trees.len()), (2, 1));
}

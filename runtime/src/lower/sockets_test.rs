use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::super::tests::lowered_with;
use super::super::{Allowed, Lowered};
use super::*;

fn listed(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|text| Pattern::try_from((*text).to_owned()).unwrap()).collect()
}

/// A container with mounts of these files, where sockets of these names may be connected to.
fn mounting(sources: &[&Path], patterns: &[&str]) -> Lowered {
    let allowed = Allowed { host_sockets: &listed(patterns), ..Allowed::default() };
    lowered_with(allowed, |config| {
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
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let path = |name: &str| directory.join(name);
    let _sockets = ["a.sock", "b.sock"].map(|name| UnixListener::bind(path(name)).unwrap());
    std::fs::write(path("c.sock"), "").unwrap();
    let sources = [path("a.sock"), path("b.sock"), path("c.sock")];
    let Lowered { plan, sockets, .. } = mounting(
        &sources.each_ref().map(|path| path.as_path()),
        &[&format!("{}/b*.sock", directory.display())],
    );

    let sources: Vec<_> = plan.guest.mounts.iter().map(|mount| &mount.source).collect();
    assert_eq!(*sources[0], MountSource::Share("c1/m0".to_owned()).into());
    let PlannedSource::Guest(MountSource::Socket { number: 0, .. }) = sources[1] else {
        panic!("{sources:?}")
    };
    assert_eq!(*sources[2], MountSource::Share("c1/m2".to_owned()).into());
    let names: Vec<_> = plan.trees.iter().map(|tree| tree.name.as_str()).collect();
    assert_eq!((names, sockets.len()), (vec!["rootfs", "m0", "m2"], 1));
    let [warning] = &plan.warnings[..] else { panic!("{:?}", plan.warnings) };
    for word in ["mounts[0].source", path("a.sock").to_str().unwrap(), "host_sockets"] {
        assert!(warning.contains(word), "{warning}");
    }
}

#[test]
fn a_socket_that_the_relay_may_not_connect_to_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("a.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    for (mode, warnings) in [(0o577, 1), (0o200, 0)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let plan = mounting(&[&path], &[path.to_str().unwrap()]).plan;
        let PlannedSource::Guest(MountSource::Socket { mode: seen, .. }) = plan.guest.mounts[0].source else {
            panic!("a share")
        };
        assert_eq!((seen, plan.warnings.len()), (mode, warnings));
        let is_meant = |warning: &String| warning.contains("mounts[0].source") && warning.contains("fail");
        assert!(plan.warnings.iter().all(is_meant));
    }
}

#[test]
fn there_is_an_end_to_the_number_of_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("a.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    let Lowered { plan, sockets, .. } = mounting(&vec![path.as_path(); MAX + 1], &[path.to_str().unwrap()]);
    assert_eq!((sockets.len(), plan.trees.len()), (MAX, 2));
    let number = |mount: &PlannedMount| match mount.source {
        PlannedSource::Guest(MountSource::Socket { number, .. }) => Some(usize::from(number)),
        _ => None,
    };
    let numbers: Vec<_> = plan.guest.mounts.iter().filter_map(number).collect();
    assert_eq!(numbers, (0..MAX).collect::<Vec<_>>());
    assert!(plan.warnings[0].contains(&format!("{MAX} sockets")), "{:?}", plan.warnings);
}

#[test]
fn a_link_does_not_stand_for_what_it_leads_to() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    for name in ["own", "others"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    let _socket = UnixListener::bind(directory.join("others/secret.sock")).unwrap();
    symlink("../others/secret.sock", directory.join("own/a.sock")).unwrap();
    symlink("../others", directory.join("own/directory")).unwrap();
    let sources = [directory.join("own/a.sock"), directory.join("own/directory/secret.sock")];
    let mounting = |patterns: &[&str]| mounting(&[&sources[0], &sources[1]], patterns);
    let own =
        [format!("{}/own/*.sock", directory.display()), format!("{}/own/*/*.sock", directory.display())];
    let Lowered { plan, sockets, .. } = mounting(&[&own[0], &own[1]]);
    assert_eq!((sockets.len(), plan.trees.len(), plan.warnings.len()), (0, 3, 2));
    assert!(plan.warnings.iter().all(|warning| warning.contains("others/secret.sock")));

    // Who lists the socket itself has it by any way.
    let Lowered { plan, sockets, .. } = mounting(&[&format!("{}/others/secret.sock", directory.display())]);
    assert_eq!((sockets.len(), plan.trees.len()), (2, 1));
}

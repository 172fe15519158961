use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::super::Root;
use super::super::record::tests::record;
use super::*;
use crate::oci::container_id::ContainerId;

/// The directory of a container that has a network, whose watcher may write now.
fn watched() -> (tempfile::TempDir, Directory, Record) {
    let root = tempfile::tempdir().unwrap();
    let id: ContainerId = "c1".parse().unwrap();
    let directory = Root::new(Some(root.path())).create(&id).unwrap();
    let known = Connected { interface: 2, slot: Some(1) };
    let network = Network {
        path: Some("/run/netns/pod".into()),
        inode: 7,
        interfaces: vec![known],
        ..Network::default()
    };
    let record = Record { network: Some(network), ..record("c1") };
    directory.write(&record).unwrap();
    directory.make_network_directory().unwrap();
    (root, directory, record)
}

#[test]
fn what_the_watcher_remembers_goes_before_the_record_and_goes_with_it() {
    let (_root, directory, record) = watched();
    assert_eq!(directory.read().unwrap().unwrap(), record);
    let mut network = record.network.clone().unwrap();
    network.interfaces.push(Connected { interface: 3, slot: None });
    directory.write_network(&Network { path: None, inode: 8, ..network.clone() }).unwrap();
    // Which namespace it is, is the record's.
    assert_eq!(directory.read().unwrap().unwrap().network, Some(network));
    fs::write(directory.network_directory().join("planted"), "").unwrap();
    let path = directory.path().to_owned();
    directory.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn what_a_taken_over_watcher_plants_is_left_aside() {
    let (root, directory, record) = watched();
    let secret = root.path().join("secret");
    fs::write(&secret, r#"{"interfaces":[],"told":{"interfaces":[],"routes":[]}}"#).unwrap();
    let file = directory.network_directory().join(FILE);
    let many = vec![Connected { interface: 2, slot: None }; 2 * MAX_INTERFACES + 1];
    let plants: [&dyn Fn(); 5] = [
        &|| symlink(&secret, &file).unwrap(),
        &|| nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        &|| drop(UnixListener::bind(&file).unwrap()),
        &|| {
            let progress = Progress { interfaces: many.clone(), told: Picture::default() };
            fs::write(&file, serde_json::to_vec(&progress).unwrap()).unwrap();
        },
        &|| fs::write(&file, vec![b' '; LIMIT as usize + 10]).unwrap(),
    ];
    for plant in plants {
        plant();
        assert_eq!(directory.read().unwrap().unwrap(), record);
        fs::remove_file(&file).unwrap();
    }
    fs::remove_dir(directory.network_directory()).unwrap();
    symlink(root.path(), directory.network_directory()).unwrap();
    directory.remove().unwrap();
    assert!(secret.exists());
}

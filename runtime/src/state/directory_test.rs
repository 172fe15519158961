use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::record::tests::record;
use super::*;
use crate::state::boot_id;
use crate::sys::process::ProcessRef;
use crate::vm::{CONTROL_SOCKET, CONTROL_SOCKET_OF_0_1, FILES_SOCKET};

fn error(result: anyhow::Result<Directory>) -> ContainerError {
    result.unwrap_err().downcast().unwrap()
}

/// What 0.1 wrote of a member of a pod.
const RECORD_OF_0_1: &str = r#"{"id":"before","bundle":"/tmp/before","rootfs":"/tmp/before/rootfs","created":"2026-11-29T16:39:07.562674816Z","annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"pod"},"owner":0,"boot_id":"BOOT","complete":true,"relay":{"pid":101,"start_time":5553},"vmm":null,"cgroup":{"path":"/sys/fs/cgroup/stockade-before","made":["/sys/fs/cgroup/stockade-before"],"scope":null},"hooks":{"create_runtime":[],"create_container":[],"start_container":[],"poststart":[],"poststop":[]},"demand":{"memory":null,"cpus":null},"vm_size":null,"sandbox":"pod","volumes":[],"disks":[],"namespaces":[{"kind":"pid","inode":4026532243},{"kind":"net","inode":4026532245}],"network":null}"#;

#[test]
fn a_record_of_0_1_is_read() {
    let record = Record::parse(RECORD_OF_0_1.replace("BOOT", boot_id()).as_bytes()).unwrap();
    assert_eq!((record.vm(), record.share()), ("pod", "2026-11-29T16:39:07.562674816Z"));
    assert!(record.complete && record.started && !record.paused);
    assert!(record.relay.is_some() && record.cgroup.is_some() && record.files.is_none());
    assert_eq!(record.namespaces.len(), 2);
}

#[test]
fn a_member_is_led_to_the_sockets_that_its_sandbox_has() {
    let pods: [&[&str]; 2] =
        [&[AGENT_SOCKET, CONTROL_SOCKET, FILES_SOCKET], &[AGENT_SOCKET, CONTROL_SOCKET_OF_0_1]];
    for sockets in pods {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(Some(base.path()));
        let (pod, member): (ContainerId, ContainerId) = ("pod".parse().unwrap(), "member".parse().unwrap());
        let sandbox = root.create(&pod).unwrap();
        for name in sockets {
            File::create_new(base.path().join("pod").join(name)).unwrap();
        }
        let directory = root.create(&member).unwrap();
        assert!(!directory.is_in_a_sandbox());
        directory.join(&pod).unwrap();
        assert!(directory.is_in_a_sandbox());
        for name in SOCKETS {
            assert_eq!(base.path().join("member").join(name).exists(), sockets.contains(&name), "{name}");
        }
        directory.remove().unwrap();
        sandbox.remove().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_another_user_can_write_is_not_believed() {
    const OTHER: u32 = 12_345;
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let (own, path) = (nix::unistd::geteuid().as_raw(), base.path().join("a"));
    root.create(&id).unwrap().write(&record("a")).unwrap();
    let is_believed = || {
        let found = [root.peek(&id).is_ok(), root.open(&id).is_ok(), root.records().len() == 1];
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        assert_eq!(root.abandoned().count(), usize::from(found[0]));
        found[0]
    };
    let mode = |mode| fs::set_permissions(base.path(), fs::Permissions::from_mode(mode)).unwrap();
    for (bits, expected) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, true)] {
        mode(bits);
        assert_eq!(is_believed(), expected, "{bits:o}");
        let other: ContainerId = "b".parse().unwrap();
        assert_eq!(root.create(&other).map(|made| made.remove().unwrap()).is_ok(), expected, "{bits:o}");
    }
    mode(0o700);
    for whose in [&*path, base.path()] {
        if std::os::unix::fs::chown(whose, Some(OTHER), None).is_err() {
            // Only root can give a directory away.
            return;
        }
        assert!(!is_believed(), "{}", whose.display());
        assert!(format!("{:#}", root.peek(&id).unwrap_err()).contains("user 12345"));
        std::os::unix::fs::chown(whose, Some(own), None).unwrap();
    }
    assert!(is_believed());
}

#[test]
fn a_new_directory_that_others_take_for_an_abandoned_one_is_made_again() {
    const ENOUGH: usize = 50;
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let (removed, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let made = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for (_, directory) in root.abandoned() {
                        directory.remove().unwrap();
                        removed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut made = Ok(());
        while made.is_ok() && removed.load(Ordering::Relaxed) < ENOUGH {
            made = root.create(&id).and_then(Directory::remove);
        }
        is_over.store(true, Ordering::Relaxed);
        made
    });
    made.unwrap();
}

#[test]
fn a_record_is_read_as_written_and_removed_without_trace() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let directory = root.create(&id).unwrap();
    assert_eq!(directory.read().unwrap(), None);
    directory.write(&record("a")).unwrap();
    assert_eq!(directory.read().unwrap(), Some(record("a")));
    assert_eq!(error(root.create(&id)), ContainerError::Exists("a".to_owned()));
    directory.remove().unwrap();
    assert_eq!(error(root.open(&id)), ContainerError::DoesNotExist("a".to_owned()));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_deleted_while_waiting_does_not_exist() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let first = root.create(&id).unwrap();
    let (waiting, waits) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn({
        let (root, id) = (root.clone(), id.clone());
        move || {
            waiting.send(()).unwrap();
            root.open(&id).map(drop).unwrap_err().downcast::<ContainerError>().unwrap()
        }
    });
    waits.recv().unwrap();
    first.remove().unwrap();
    assert_eq!(waiter.join().unwrap(), ContainerError::DoesNotExist("a".to_owned()));
}

#[test]
fn a_record_of_an_earlier_boot_names_no_process() {
    let base = tempfile::tempdir().unwrap();
    let directory = Root::new(Some(base.path())).create(&"a".parse().unwrap()).unwrap();
    let now = Record { relay: ProcessRef::of(1), vmm: ProcessRef::of(1), ..record("a") };
    directory.write(&now).unwrap();
    assert_eq!(directory.read().unwrap(), Some(now.clone()));
    let earlier = Record { boot_id: "earlier".to_owned(), ..now };
    directory.write(&earlier).unwrap();
    assert_eq!(directory.read().unwrap(), Some(Record { relay: None, vmm: None, ..earlier }));
}

#[test]
fn a_damaged_record_says_so() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let directory = root.create(&"a".parse().unwrap()).unwrap();
    fs::write(base.path().join("a/state.json"), "{").unwrap();
    assert!(format!("{:#}", directory.read().unwrap_err()).contains("damaged"));
}

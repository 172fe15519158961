use std::os::unix::fs::PermissionsExt;

use stockade_protocol::vmm::Template;

use super::store::{ABOUT, NEW, RAM, STATE, ShrinkError};
use super::*;

const ABOUT_VM: &str = "VMM 1:2 3 4 5\n";

fn config(mib: u32) -> Config {
    Config {
        memory_mib: mib,
        vcpus: 2,
        cid: 3,
        kernel_parameters: "quiet".into(),
        most_memory_mib: 4096,
        user: Some(5),
        template: Template::None,
        hot: Vec::new(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let store = Store::at(directory.path()).unwrap();
    (directory, store)
}

/// A template as a builder leaves it.
fn make(store: &Store, key: &Key) -> PathBuf {
    let path = store.0.join(key.name());
    fs::create_dir(&path).unwrap();
    for (name, content) in [(ABOUT, &*key.about), (STATE, "state"), (RAM, "ram")] {
        fs::write(path.join(name), content).unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

#[test]
fn a_template_is_found_by_what_it_is_of() {
    let (_directory, store) = store();
    let key = Key::new(&config(256), ABOUT_VM);
    assert!(store.find(&key).is_none());
    make(&store, &key);
    assert!(store.find(&key).is_some());
    // Another user of the host each time; all else matters.
    assert_eq!(Key::new(&Config { user: None, template: Template::Use, ..config(256) }, ABOUT_VM), key);
    let others = [
        Key::new(&config(512), ABOUT_VM),
        Key::new(&Config { vcpus: 1, ..config(256) }, ABOUT_VM),
        Key::new(&Config { most_memory_mib: 1, ..config(256) }, ABOUT_VM),
        Key::new(&Config { kernel_parameters: "debug".into(), ..config(256) }, ABOUT_VM),
        Key::new(&config(256), "VMM 1:3 3 4 5\n"),
    ];
    for other in others {
        assert!(store.find(&other).is_none(), "{other:?}");
    }
}

#[test]
fn a_template_in_the_place_of_another_is_not_used() {
    let (_directory, store) = store();
    let key = Key::new(&config(256), ABOUT_VM);
    let path = make(&store, &key);
    fs::write(path.join(ABOUT), "something else").unwrap();
    assert!(store.find(&key).is_none());
}

#[test]
fn one_that_is_being_built_is_nobodys() {
    let (_directory, store) = store();
    let key = Key::new(&config(256), ABOUT_VM);
    fs::rename(make(&store, &key), store.0.join(NEW)).unwrap();
    assert!(store.find(&key).is_none());
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn one_without_a_file_is_not_used() {
    let (_directory, store) = store();
    let key = Key::new(&config(256), ABOUT_VM);
    let path = make(&store, &key);
    fs::remove_file(path.join(RAM)).unwrap();
    assert!(store.find(&key).is_none());
}

#[test]
fn links_and_what_others_can_read_are_not_followed() {
    let (directory, store) = store();
    let key = Key::new(&config(256), ABOUT_VM);
    let path = make(&store, &key);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(path.join(RAM), elsewhere.path().join(RAM))
        .or_else(|_| fs::remove_file(path.join(RAM)))
        .unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join(RAM), path.join(RAM)).unwrap();
    assert!(store.find(&key).is_none());
    fs::remove_dir_all(&path).unwrap();
    let path = make(&store, &key);
    assert!(store.find(&key).is_some());
    fs::set_permissions(path.join(STATE), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(store.find(&key).is_none());
    fs::remove_dir_all(&path).unwrap();
    let real = elsewhere.path().join("real");
    fs::rename(make(&store, &key), &real).or_else(|_| fs::create_dir(&real)).unwrap();
    std::os::unix::fs::symlink(&real, directory.path().join(key.name())).unwrap();
    assert!(store.find(&key).is_none());
}

#[test]
fn those_go_first_whose_use_is_the_longest_ago_and_none_in_use() {
    let (_directory, store) = store();
    let keys = [256, 512, 1024].map(|mib| Key::new(&config(mib), ABOUT_VM));
    for key in &keys {
        let path = make(&store, key);
        // A page each, at least.
        fs::write(path.join(RAM), vec![1; 4096]).unwrap();
    }
    let old = SystemTime::UNIX_EPOCH;
    for key in &keys[..2] {
        File::open(store.0.join(key.name())).unwrap().set_modified(old).unwrap();
    }
    let first = store.find(&keys[0]).unwrap();
    store.touch(&first);
    let order: Vec<String> = store.list().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(order[0], keys[1].name());
    assert!(store.is_in_use(&keys[0].name()) && !store.is_in_use(&keys[1].name()));
    assert!(matches!(store.shrink_to(0), Err(ShrinkError::InUse(_))));
    assert_eq!(store.list().unwrap().len(), 1);
    drop(first);
    store.shrink_to(0).unwrap();
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_builder_that_was_killed_is_noted_and_a_failure_counts_for_a_while() {
    let (_directory, store) = store();
    let mut lock = store.lock().unwrap();
    assert!(store.try_lock().unwrap().is_none());
    lock.is_building("256m").unwrap();
    fs::create_dir(store.0.join(NEW)).unwrap();
    drop(lock);
    let mut lock = store.try_lock().unwrap().unwrap();
    store.tidy(&mut lock).unwrap();
    assert!(!store.0.join(NEW).exists());
    let failure = store.failure("256m").unwrap();
    assert_eq!((failure.reason.as_str(), failure.counts()), ("its builder was killed", true));
    let file = store.0.join("256m.failed");
    File::open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(!store.failure("256m").unwrap().counts());
    store.tidy(&mut lock).unwrap();
    assert_eq!(store.failures().unwrap(), []);
    // A reason is one line, however long.
    store.note_failure("512m", &format!("a\nb{}", "\u{e9}".repeat(4000)));
    let reason = store.failure("512m").unwrap().reason;
    assert!(!reason.contains('\n') && reason.len() <= 600, "{reason}");
}

#[test]
fn only_few_classes_are_made_after_a_start() {
    let size = VmSize { mib: 300, default_mib: 256, ..VmSize::default() };
    assert_eq!(class_to_make(size, true), Some(512));
    assert_eq!(class_to_make(VmSize { mib: 256, ..size }, false), Some(256));
    // What the host's cgroups have left, or a bundle has fixed, is anything.
    assert_eq!(class_to_make(size, false), None);
    assert_eq!(class_to_make(VmSize { mib: 256, fixed_mib: Some(256), ..size }, false), None);
    assert_eq!(class_to_make(VmSize { mib: u32::MAX, ..size }, true), None);
}

#[test]
fn what_others_can_write_to_is_no_store() {
    let (directory, _store) = store();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o720)).unwrap();
    assert!(matches!(Store::at(directory.path()), Err(StoreError::Foreign(_))));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    assert!(matches!(Store::at(&link), Err(StoreError::Foreign(_))));
    // One that is missing is no fault, and has nothing.
    assert_eq!(Store::at(&directory.path().join("missing")).unwrap().list().unwrap(), []);
}

#[test]
fn a_file_that_is_replaced_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kernel");
    let identity = || {
        let file = File::open(&path).unwrap();
        identity([&file, &file, &file]).unwrap()
    };
    fs::write(&path, "one").unwrap();
    let first = identity();
    assert_eq!(identity(), first);
    fs::write(directory.path().join("new"), "two").unwrap();
    fs::rename(directory.path().join("new"), &path).unwrap();
    assert_ne!(identity(), first);
}

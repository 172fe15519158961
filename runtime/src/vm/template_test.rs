use std::os::unix::fs::PermissionsExt;

use stockade_protocol::vmm::Template;

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

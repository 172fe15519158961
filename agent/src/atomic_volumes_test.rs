use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::*;

/// A directory as kubelet makes it.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new(version: &str, files: &[(&str, &str)]) -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        volume.swap(version, files);
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn swap(&self, version: &str, files: &[(&str, &str)]) {
        let old = fs::read_link(self.path(DATA)).ok();
        fs::create_dir(self.path(version)).unwrap();
        for (name, text) in files {
            let file = self.path(version).join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        symlink(version, self.path(NEW_DATA)).unwrap();
        fs::rename(self.path(NEW_DATA), self.path(DATA)).unwrap();
        for name in self.keys() {
            if !files.iter().any(|(file, _)| file.split('/').next() == Some(&name)) {
                fs::remove_file(self.path(&name)).unwrap();
            }
        }
        for (name, _) in files {
            let key = name.split('/').next().unwrap();
            let _ = symlink(format!("{DATA}/{key}"), self.path(key));
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.0.path().join(old)).unwrap();
        }
    }

    fn keys(&self) -> Vec<String> {
        keys(self.0.path())
    }

    fn copy_to(&self, to: &Path) -> Result<(), Errno> {
        refresh(open_path(self.0.path()).as_fd(), open_path(to).as_fd())
    }
}

fn keys(directory: &Path) -> Vec<String> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("..")).collect();
    names.sort();
    names
}

fn open_path(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

#[test]
fn a_copy_has_the_content_owners_modes_and_links() {
    let volume = Volume::new("..1", &[("key", "one"), ("directory/deep", "two")]);
    fs::set_permissions(volume.path("..1/key"), fs::Permissions::from_mode(0o440)).unwrap();
    fs::set_permissions(volume.path("..1"), fs::Permissions::from_mode(0o2750)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    volume.copy_to(copy.path()).unwrap();
    assert_eq!(fs::read_to_string(copy.path().join("key")).unwrap(), "one");
    assert_eq!(fs::read_to_string(copy.path().join("directory/deep")).unwrap(), "two");
    assert_eq!(fs::read_link(copy.path().join("key")).unwrap(), Path::new("..data/key"));
    assert_eq!(fs::metadata(copy.path().join("key")).unwrap().mode() & 0o7777, 0o440);
    assert_eq!(fs::metadata(copy.path().join("..data")).unwrap().mode() & 0o7777, 0o2750);
}

#[test]
fn a_watcher_of_the_copy_sees_the_swap_and_then_only_what_is_new() {
    let volume = Volume::new("..1", &[("kept", "old"), ("gone", "old")]);
    let copy = tempfile::tempdir().unwrap();
    volume.copy_to(copy.path()).unwrap();
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    inotify.add_watch(copy.path(), AddWatchFlags::IN_ALL_EVENTS).unwrap();
    let file = inotify.add_watch(&copy.path().join("kept"), AddWatchFlags::IN_DELETE_SELF).unwrap();
    volume.swap("..2", &[("kept", "new"), ("more", "new")]);
    volume.copy_to(copy.path()).unwrap();
    let events = inotify.read_events().unwrap();
    let position = |mask: AddWatchFlags, name: &str| {
        events
            .iter()
            .position(|event| event.mask.contains(mask) && event.name.as_deref() == Some(OsStr::new(name)))
            .unwrap_or_else(|| panic!("no {mask:?} of {name} in {events:?}"))
    };
    let swapped = position(AddWatchFlags::IN_MOVED_TO, DATA);
    assert!(position(AddWatchFlags::IN_CREATE, "..2") < swapped);
    assert!(swapped < position(AddWatchFlags::IN_CREATE, "more"));
    assert!(swapped < position(AddWatchFlags::IN_DELETE, "gone"));
    assert!(swapped < position(AddWatchFlags::IN_DELETE, "..1"));
    assert!(
        events.iter().any(|event| event.wd == file && event.mask.contains(AddWatchFlags::IN_DELETE_SELF))
    );
    assert_eq!(fs::read_to_string(copy.path().join("kept")).unwrap(), "new");
    assert_eq!(keys(copy.path()), ["kept", "more"]);
    assert!(!copy.path().join("..1").exists());
    // Nothing has changed, and nothing is touched.
    volume.copy_to(copy.path()).unwrap();
    let touched = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO;
    let events = inotify.read_events().unwrap_or_default();
    assert!(!events.iter().any(|event| event.mask.intersects(touched)), "{events:?}");
}

#[test]
fn what_is_too_large_or_something_else_is_not_copied_and_an_old_copy_stays() {
    let volume = Volume::new("..1", &[("key", "one")]);
    let copy = tempfile::tempdir().unwrap();
    volume.copy_to(copy.path()).unwrap();
    volume.swap("..2", &[("key", "two")]);
    fs::File::options().write(true).open(volume.path("key")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert_eq!(volume.copy_to(copy.path()), Err(Errno::EFBIG));
    assert_eq!(fs::read_to_string(copy.path().join("key")).unwrap(), "one");
    assert!(!copy.path().join("..2").exists());

    let volume = Volume::new("..1", &[("key", "one")]);
    fs::write(volume.path("file"), "no link").unwrap();
    assert_eq!(volume.copy_to(tempfile::tempdir().unwrap().path()), Err(Errno::ENOTSUP));
    for target in ["../outside", "..", "/etc", "plain"] {
        let volume = tempfile::tempdir().unwrap();
        symlink(target, volume.path().join(DATA)).unwrap();
        let to = tempfile::tempdir().unwrap();
        let refused = refresh(open_path(volume.path()).as_fd(), open_path(to.path()).as_fd());
        assert_eq!(refused, Err(Errno::ENOTSUP), "{target}");
    }
}

#[test]
fn what_vanishes_while_it_is_copied_leaves_the_old_copy() {
    let volume = Volume::new("..1", &[("key", "one")]);
    let copy = tempfile::tempdir().unwrap();
    volume.copy_to(copy.path()).unwrap();
    symlink("..gone", volume.path(NEW_DATA)).unwrap();
    fs::rename(volume.path(NEW_DATA), volume.path(DATA)).unwrap();
    assert_eq!(volume.copy_to(copy.path()), Err(Errno::ENOENT));
    assert_eq!(fs::read_to_string(copy.path().join("key")).unwrap(), "one");
}

use std::os::unix::{
    fs::{FileTypeExt, MetadataExt},
    net::UnixStream,
};

use super::*;

/// A mount of a socket.
pub fn mount(number: u16, mode: u32) -> Mount {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Mount {
        destination: "/s".to_owned(),
        source: MountSource::Socket { number, mode, uid, gid },
        flags: 0,
        propagation: vec![],
        data: String::new(),
        copy_up: false,
    }
}

#[test]
fn sockets_have_their_modes_listen_and_go() {
    let root = tempfile::tempdir().unwrap();
    // Longer than a socket's address.
    let id = "i".repeat(200);
    let mut sockets = Sockets::make_below(root.path(), &id, &[mount(7, 0o660), mount(8, 0o4700)]).unwrap();
    let directory = root.path().join(&id);
    for (name, mode) in [("7", 0o660), ("8", 0o4700)] {
        let found = fs::symlink_metadata(directory.join(name)).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, mode);
    }
    assert!(accept(&sockets.get_mut(7).unwrap().listener).is_none());
    let opened = fs::File::open(&directory).unwrap();
    let _client = UnixStream::connect(Path::new(&path_of(&opened)).join("7")).unwrap();
    assert!(accept(&sockets.get_mut(8).unwrap().listener).is_none());
    assert!(accept(&sockets.get_mut(7).unwrap().listener).is_some());
    drop(sockets);
    assert!(!directory.exists());
}

#[test]
fn nothing_is_made_for_other_mounts() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("root");
    let share = Mount { source: MountSource::Share("c/m0".to_owned()), ..mount(0, 0) };
    let mut sockets = Sockets::make_below(&directory, "c", &[share]).unwrap();
    assert!(sockets.iter_mut().next().is_none() && !directory.exists());
}

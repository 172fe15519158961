use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::symlink},
};

use tempfile::TempDir;

use super::*;

struct Tree {
    outer: TempDir,
}

impl Tree {
    /// `outer/secret` beside `outer/root`, which is the root.
    fn new() -> (Self, Root) {
        let tree = Self { outer: tempfile::tempdir().unwrap() };
        fs::create_dir(tree.root()).unwrap();
        fs::create_dir(tree.outer.path().join("secret")).unwrap();
        let root = Root::new(fs::File::open(tree.root()).unwrap().into());
        (tree, root)
    }

    fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }

    /// What a descriptor refers to, relative to the root.
    fn name(&self, fd: &OwnedFd) -> PathBuf {
        let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        path.strip_prefix(self.root()).expect("outside of the root").to_owned()
    }

    fn open_or_create(&self, root: &Root, path: &str, missing: Missing) -> Result<PathBuf, Errno> {
        root.open_or_create(Path::new(path), missing).map(|fd| self.name(&fd))
    }
}

#[test]
fn makes_what_is_missing() {
    let (tree, root) = Tree::new();
    assert_eq!(tree.open_or_create(&root, "/a/b/c", Missing::Directory), Ok("a/b/c".into()));
    assert_eq!(tree.open_or_create(&root, "/a/x/file", Missing::File), Ok("a/x/file".into()));
    assert!(tree.root().join("a/b/c").is_dir());
    assert!(tree.root().join("a/x/file").is_file());
    assert_eq!(tree.open_or_create(&root, "/", Missing::Directory), Ok("".into()));
}

#[test]
fn links_do_not_lead_out() {
    let (tree, root) = Tree::new();
    symlink("/", tree.root().join("absolute")).unwrap();
    symlink("../../..", tree.root().join("climbing")).unwrap();
    symlink("../secret", tree.root().join("beside")).unwrap();
    assert_eq!(tree.open_or_create(&root, "/absolute/x", Missing::Directory), Ok("x".into()));
    assert_eq!(tree.open_or_create(&root, "/climbing/y", Missing::Directory), Ok("y".into()));
    assert_eq!(tree.open_or_create(&root, "/../../z", Missing::Directory), Ok("z".into()));
    // The link names /secret of the container, which is made; the one outside stays empty.
    assert_eq!(tree.open_or_create(&root, "/beside/w", Missing::Directory), Ok("secret/w".into()));
    assert_eq!(fs::read_dir(tree.outer.path().join("secret")).unwrap().count(), 0);
}

#[test]
fn follows_links_to_what_is_not_there_yet() {
    let (tree, root) = Tree::new();
    fs::create_dir(tree.root().join("etc")).unwrap();
    symlink("../run/resolve/stub.conf", tree.root().join("etc/resolv.conf")).unwrap();
    assert_eq!(
        tree.open_or_create(&root, "/etc/resolv.conf", Missing::File),
        Ok("run/resolve/stub.conf".into())
    );
    assert!(tree.root().join("run/resolve/stub.conf").is_file());
}

#[test]
fn gives_up_on_links_in_a_circle() {
    let (tree, root) = Tree::new();
    symlink("b", tree.root().join("a")).unwrap();
    symlink("a", tree.root().join("b")).unwrap();
    assert_eq!(tree.open_or_create(&root, "/a/x", Missing::Directory), Err(Errno::ELOOP));
}

#[test]
fn gives_up_on_links_that_lengthen_themselves() {
    let (tree, root) = Tree::new();
    symlink("more/more", tree.root().join("more")).unwrap();
    assert!(tree.open_or_create(&root, "/more", Missing::Directory).is_err());
}

#[test]
fn a_file_in_the_way_is_an_error() {
    let (tree, root) = Tree::new();
    fs::write(tree.root().join("file"), "").unwrap();
    assert_eq!(tree.open_or_create(&root, "/file/x", Missing::Directory), Err(Errno::ENOTDIR));
}

#[test]
fn parents_are_made_and_names_split() {
    let (tree, root) = Tree::new();
    let (directory, name) = root.parent(Path::new("/dev/net/tun")).unwrap();
    assert_eq!((tree.name(&directory), name), ("dev/net".into(), Path::new("tun")));
    assert_eq!(root.parent(Path::new("/")).unwrap_err(), Errno::EINVAL);
}

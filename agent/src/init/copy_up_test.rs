use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[test]
fn everything_is_copied_as_it_is_and_links_are_not_followed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| from.path().join(name);
    fs::create_dir_all(at("directory/below")).unwrap();
    fs::write(at("directory/below/file"), "content").unwrap();
    fs::set_permissions(at("directory/below/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(at("directory"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/etc", at("link")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();

    copy_content(File::open(from.path()).unwrap().as_fd(), File::open(to.path()).unwrap().as_fd()).unwrap();
    let copy = |name: &str| to.path().join(name);
    assert_eq!(fs::read_to_string(copy("directory/below/file")).unwrap(), "content");
    for name in ["directory", "directory/below/file", "link", "fifo"] {
        let [before, after] = [at(name), copy(name)].map(|path| fs::symlink_metadata(path).unwrap());
        assert_eq!(
            (before.mode(), before.uid(), before.gid()),
            (after.mode(), after.uid(), after.gid()),
            "{name}"
        );
    }
    assert_eq!(fs::read_link(copy("link")).unwrap().to_str(), Some("/etc"));
}

#[test]
fn directories_in_directories_have_an_end() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("f/".repeat(MAX_DEPTH + 1))).unwrap();
    let copied =
        copy_content(File::open(from.path()).unwrap().as_fd(), File::open(to.path()).unwrap().as_fd());
    assert_eq!(copied, Err(Errno::ELOOP));
}

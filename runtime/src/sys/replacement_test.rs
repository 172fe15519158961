use std::io::Write;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

#[test]
fn what_somebody_has_put_in_the_way_is_neither_followed_nor_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("precious"), "precious").unwrap();
    let in_the_way: [&dyn Fn(); 3] = [
        &|| symlink(at("precious"), at(".pid.new")).unwrap(),
        &|| mkfifo(&at(".pid.new"), Mode::S_IRWXU).unwrap(),
        &|| fs::write(at(".pid.new"), "left over").unwrap(),
    ];
    for put in in_the_way {
        put();
        let mut new = Replacement::begin(&at("pid"), 0o644).unwrap();
        new.file.write_all(b"77").unwrap();
        new.put().unwrap();
        assert_eq!(fs::read_to_string(at("pid")).unwrap(), "77");
        assert!(fs::symlink_metadata(at("pid")).unwrap().is_file());
    }
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "precious");
    fs::create_dir(at(".pid.new")).unwrap();
    Replacement::begin(&at("pid"), 0o644).unwrap_err();
}

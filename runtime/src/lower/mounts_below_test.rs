use super::*;

const MOUNTINFO: &[u8] = b"\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /dev rw,nosuid shared:2 - devtmpfs dev rw
23 22 0:6 / /dev/pts rw,nosuid,noexec,relatime shared:3 - devpts devpts rw
24 21 0:7 / /a\\040b rw,nosuid,nodev,noexec,noatime - tmpfs none rw
25 24 0:8 / /a\\040b/x ro,relatime master:7 - tmpfs none rw
26 24 0:9 / /a\\040b/x/y rw,relatime - proc proc rw
27 24 0:10 / /a\\040b/x rw,relatime - tmpfs none rw
";

fn options(words: &[&str]) -> Options {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Options::parse(&words)
}

fn below(path: &str, flags: u64) -> Below {
    Below { path: path.to_owned(), flags, has_terminals: false }
}

#[test]
fn a_bind_mount_begins_with_the_flags_of_its_source() {
    let mounts = Mounts::parse(MOUNTINFO);
    let locked = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let source = |words: &[&str]| {
        let options = options(words);
        options.with_source(mounts.source(Path::new("/a b/file"), &options, false).flags)
    };
    assert_eq!(source(&["bind"]), libc::MS_BIND | locked | libc::MS_NOATIME);
    assert_eq!(source(&["bind", "exec"]), libc::MS_BIND | locked | libc::MS_NOATIME);
    assert_eq!(source(&["bind", "strictatime"]), libc::MS_BIND | locked | libc::MS_STRICTATIME);
    assert_eq!(mounts.source(Path::new("/no/such"), &options(&["bind"]), true).flags, 0);
}

#[test]
fn what_is_mounted_below_keeps_its_own_flags_but_for_recursive_options() {
    let mounts = Mounts::parse(MOUNTINFO);
    let source = |words: &[&str]| mounts.source(Path::new("/a b"), &options(words), true);
    let plain = source(&["rbind", "ro"]);
    assert_eq!(plain.below, [below("x", 0), below("x/y", 0)]);
    assert!(plain.propagates && plain.has_kernel_files && !plain.has_more);
    let recursive = source(&["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"]);
    assert_eq!(recursive.below, [], "nothing differs");
    assert_eq!(source(&["rbind", "rro"]).below[0], below("x", libc::MS_RDONLY));
    assert!(!mounts.source(Path::new("/a b"), &options(&["bind"]), false).propagates);
}

#[test]
fn terminals_are_told_apart() {
    let found = Mounts::parse(MOUNTINFO).source(Path::new("/dev"), &options(&["rbind"]), true);
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
    assert_eq!(found.below, [Below { path: "pts".to_owned(), flags, has_terminals: true }]);
}

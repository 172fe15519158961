use std::process::Command;

use super::*;

const IDENTITY: Identity =
    Identity { uuid: *b"0123456789abcdef", seed: *b"fedcba9876543210", time: 1_700_000_000 };

/// What a program of e2fsprogs says of a file system.
fn ask(program: &str, args: &[&str], size: u64) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    make(file.as_file(), size, IDENTITY).unwrap();
    assert_eq!(file.as_file().metadata().unwrap().len(), size);
    let output = Command::new(program).args(args).arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn e2fsck_finds_nothing() {
    const GROUP: u64 = 128 << 20;
    let sizes =
        [MIN, 100 << 20, GROUP, GROUP + 4096, GROUP + (4 << 20), 16 * GROUP, 17 * GROUP - 4096, 20 << 30];
    for size in sizes {
        let said = ask("/sbin/e2fsck", &["-f", "-n"], size);
        let lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
        assert!(lines.len() == 6 && lines[5].contains(": 10/"), "{size}: {said}");
        assert!(
            lines.iter().zip(1..=5).all(|(line, pass)| line.starts_with(&format!("Pass {pass}"))),
            "{size}: {said}"
        );
    }
}

#[test]
fn it_has_the_features_that_were_meant() {
    let said = ask("/sbin/dumpe2fs", &["-h"], 1 << 30);
    let features = said.lines().find(|line| line.starts_with("Filesystem features:")).unwrap();
    let mut features: Vec<_> = features.split_whitespace().skip(2).collect();
    features.sort_unstable();
    let expected = [
        "dir_index",
        "dir_nlink",
        "ext_attr",
        "extent",
        "extra_isize",
        "filetype",
        "flex_bg",
        "huge_file",
        "large_file",
        "sparse_super2",
        "uninit_bg",
    ];
    assert_eq!(features, expected);
    assert!(said.contains("Filesystem UUID:          30313233-3435-3637-3839-616263646566"), "{said}");
}

#[test]
fn little_is_written_however_large_it_is() {
    use std::os::unix::fs::MetadataExt;
    let file = tempfile::tempfile().unwrap();
    make(&file, 1 << 40, IDENTITY).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < 8 << 20);
}

#[test]
fn sizes_have_limits() {
    let file = tempfile::tempfile().unwrap();
    for size in [0, MIN - 1, MAX + 1, u64::MAX] {
        assert_eq!(make(&file, size, IDENTITY).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{size}");
    }
}

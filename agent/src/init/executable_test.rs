use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;

fn directory(files: &[(&str, u32)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, mode) in files {
        let path = directory.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    directory
}

fn text(directory: &TempDir) -> &str {
    directory.path().to_str().unwrap()
}

#[test]
fn the_first_executable_of_the_path_wins() {
    let (plain, first, second) =
        (directory(&[("tool", 0o644)]), directory(&[("tool", 0o755)]), directory(&[("tool", 0o755)]));
    let search = format!("{}:/nowhere:{}:{}", text(&plain), text(&first), text(&second));
    assert_eq!(look_up("tool", &search).unwrap(), first.path().join("tool"));
}

#[test]
fn a_missing_program_reads_as_with_other_runtimes() {
    for (name, message) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("", "exec: \"\": executable file not found in $PATH"),
        ("/nope/x", "exec: \"/nope/x\": stat /nope/x: no such file or directory"),
    ] {
        let error = look_up(name, "/nowhere").unwrap_err();
        assert_eq!((error.kind, &*error.message), (ErrorKind::ExecutableNotFound, message));
    }
}

#[test]
fn what_may_not_be_executed_is_another_error() {
    let plain = directory(&[("tool", 0o644)]);
    let by_search = look_up("tool", text(&plain)).unwrap_err();
    assert_eq!(by_search.message, "exec: \"tool\": permission denied");
    let by_path = look_up(plain.path().join("tool").to_str().unwrap(), "").unwrap_err();
    assert!(by_path.message.ends_with(": permission denied"));
    let a_directory = look_up(text(&plain), "").unwrap_err();
    assert!(a_directory.message.ends_with(": is a directory"));
    for error in [by_search, by_path, a_directory] {
        assert_eq!(error.kind, ErrorKind::NotExecutable);
    }
}

#[test]
fn a_directory_of_that_name_is_passed_over() {
    let (outer, inner) = (tempfile::tempdir().unwrap(), directory(&[("tool", 0o755)]));
    fs::create_dir(outer.path().join("tool")).unwrap();
    let search = format!("{}:{}", text(&outer), text(&inner));
    assert_eq!(look_up("tool", &search).unwrap(), inner.path().join("tool"));
    assert_eq!(look_up("tool", text(&outer)).unwrap_err().kind, ErrorKind::ExecutableNotFound);
}

use super::*;

fn words(words: &[&str]) -> impl Iterator<Item = OsString> {
    words.iter().map(OsString::from).collect::<Vec<_>>().into_iter()
}

#[test]
fn takes_both_paths_in_any_order() {
    let expected = (PathBuf::from("a"), PathBuf::from("o"));
    assert_eq!(parse(words(&["--agent", "a", "--output", "o"])).unwrap(), expected);
    assert_eq!(parse(words(&["--output", "o", "--agent", "a"])).unwrap(), expected);
}

#[test]
fn names_what_is_wrong_with_the_arguments() {
    for (args, text) in [
        (&["--agent"][..], "--agent needs a path"),
        (&["--agent", "a"], "usage"),
        (&["--frobnicate", "a"], "unknown argument \"--frobnicate\""),
    ] {
        let error = parse(words(args)).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn replaces_without_touching_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("initramfs");
    fs::write(&path, "old").unwrap();
    let mut old = fs::File::open(&path).unwrap();

    replace(&path, b"new").unwrap();

    let mut kept = String::new();
    std::io::Read::read_to_string(&mut old, &mut kept).unwrap();
    assert_eq!(kept, "old");
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn leaves_nothing_behind_where_it_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("taken");
    fs::create_dir(&path).unwrap();
    assert!(replace(&path, b"new").is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

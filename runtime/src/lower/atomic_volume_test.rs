use std::os::unix::fs::symlink;

use super::*;

#[test]
fn only_what_is_read_and_has_a_version_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree { source: directory.path().to_owned(), readonly: true, ..Tree::default() };
    assert!(!is_atomic(&tree));
    symlink("plain", directory.path().join(DATA)).unwrap();
    assert!(!is_atomic(&tree));
    fs::remove_file(directory.path().join(DATA)).unwrap();
    symlink("..2024_1", directory.path().join(DATA)).unwrap();
    assert_eq!(is_atomic(&tree), fs::read_to_string(NOTIFY).is_ok_and(|text| text == "1\n"));
    assert!(!is_atomic(&Tree { readonly: false, ..tree }));
}

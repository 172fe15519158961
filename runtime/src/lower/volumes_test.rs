use super::*;

fn tree(source: &Path, readonly: bool) -> Tree {
    Tree { source: source.to_owned(), readonly, ..Tree::default() }
}

#[test]
fn what_is_written_to_has_one_name_for_all_and_what_is_read_has_that_of_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let mut pod = PodVolumes::default();
    let written = name(&tree(directory.path(), false), Some(&pod)).unwrap();
    assert_eq!(name(&tree(&link, false), Some(&pod)), Some(written.clone()));
    assert_eq!(name(&tree(directory.path(), true), Some(&pod)), None);
    pod.writable.insert(written.clone());
    assert_eq!(name(&tree(directory.path(), true), Some(&pod)), Some(written.clone()));
    assert_eq!(name(&tree(directory.path(), false), None), None);
    let recursive = Tree { recursive: true, ..tree(directory.path(), false) };
    assert_ne!(name(&recursive, Some(&pod)), Some(written));
}

#[test]
fn files_and_what_is_changed_on_the_way_stay_the_containers_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pod = PodVolumes::default();
    assert_eq!(name(&tree(&file, false), Some(&pod)), None);
    assert_eq!(name(&tree(&directory.path().join("none"), false), Some(&pod)), None);
    let mapped = crate::vm::IdMap { mappings: Default::default(), recursive: false };
    let mapped = Tree { id_map: Some(mapped), ..tree(directory.path(), false) };
    assert_eq!(name(&mapped, Some(&pod)), None);
}

use super::*;

fn tree(source: &Path, readonly: bool) -> Tree {
    Tree { source: source.to_owned(), readonly, ..Tree::default() }
}

#[test]
fn what_is_written_to_has_one_name_for_all_and_what_is_read_has_that_of_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let mut pod = PodVolumes::default();
    let written = name(&tree(folder.path(), false), Some(&pod)).unwrap();
    assert_eq!(name(&tree(&link, false), Some(&pod)), Some(written.clone()));
    assert_eq!(name(&tree(folder.path(), true), Some(&pod)), None);
    pod.writable.insert(written.clone());
    assert_eq!(name(&tree(folder.path(), true), Some(&pod)), Some(written.clone()));
    assert_eq!(name(&tree(folder.path(), false), None), None);
    let recursive = Tree { recursive: true, ..tree(folder.path(), false) };
    assert_ne!(name(&recursive, Some(&pod)), Some(written));
}

#[test]
fn files_and_what_is_changed_on_the_way_stay_the_containers_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pod = PodVolumes::default();
    assert_eq!(name(&tree(&file, false), Some(&pod)), None);
    assert_eq!(name(&tree(&folder.path().join("none"), false), Some(&pod)), None);
    let mapped = crate::vm::IdMap { mappings: Default::default(), recursive: false };
    let mapped = Tree { id_map: Some(mapped), ..tree(folder.path(), false) };
    assert_eq!(name(&mapped, Some(&pod)), None);
}

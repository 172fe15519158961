use super::super::record::tests::record;
use super::*;
use crate::sys::process::ProcessRef;

fn error(result: anyhow::Result<Folder>) -> ContainerError {
    result.unwrap_err().downcast().unwrap()
}

#[test]
fn a_record_is_read_as_written_and_removed_without_trace() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let folder = root.create(&id).unwrap();
    assert_eq!(folder.read().unwrap(), None);
    folder.write(&record("a")).unwrap();
    assert_eq!(folder.read().unwrap(), Some(record("a")));
    assert_eq!(error(root.create(&id)), ContainerError::Exists("a".to_owned()));
    folder.remove().unwrap();
    assert_eq!(error(root.open(&id)), ContainerError::DoesNotExist("a".to_owned()));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_deleted_while_waiting_does_not_exist() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let id: ContainerId = "a".parse().unwrap();
    let first = root.create(&id).unwrap();
    let (waiting, waits) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn({
        let (root, id) = (root.clone(), id.clone());
        move || {
            waiting.send(()).unwrap();
            root.open(&id).map(drop).unwrap_err().downcast::<ContainerError>().unwrap()
        }
    });
    waits.recv().unwrap();
    first.remove().unwrap();
    assert_eq!(waiter.join().unwrap(), ContainerError::DoesNotExist("a".to_owned()));
}

#[test]
fn a_record_of_an_earlier_boot_names_no_process() {
    let base = tempfile::tempdir().unwrap();
    let folder = Root::new(Some(base.path())).create(&"a".parse().unwrap()).unwrap();
    let now = Record { relay: ProcessRef::of(1), vmm: ProcessRef::of(1), ..record("a") };
    folder.write(&now).unwrap();
    assert_eq!(folder.read().unwrap(), Some(now.clone()));
    let earlier = Record { boot_id: "earlier".to_owned(), ..now };
    folder.write(&earlier).unwrap();
    assert_eq!(folder.read().unwrap(), Some(Record { relay: None, vmm: None, ..earlier }));
}

#[test]
fn a_damaged_record_says_so() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(Some(base.path()));
    let folder = root.create(&"a".parse().unwrap()).unwrap();
    fs::write(base.path().join("a/state.json"), "{").unwrap();
    assert!(format!("{:#}", folder.read().unwrap_err()).contains("damaged"));
}

use super::*;

const USERS: VmmUsers = VmmUsers { first: 1000, count: 3 };

#[test]
fn a_user_is_taken_as_long_as_somebody_has_its_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks");
    let reserve = |start| reserve_in(&path, USERS, start);
    let (first, second) = (reserve(1).unwrap(), reserve(1).unwrap());
    assert_eq!((first.id, second.id), (1001, 1002));
    let copy = first.lock.try_clone().unwrap();
    drop(first);
    assert_eq!(reserve(1).unwrap().id, 1000, "1001 is still taken");
    drop(copy);
    assert_eq!(reserve(1).unwrap().id, 1001);
}

#[test]
fn when_all_are_taken_the_key_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks");
    let taken: Vec<_> = (0..3).map(|_| reserve_in(&path, USERS, 0).unwrap()).collect();
    let error = reserve_in(&path, USERS, 0).unwrap_err();
    assert!(error.to_string().contains("vmm_users.count"), "{error}");
    drop(taken);
}

#[test]
fn what_a_vmm_inherits_cannot_be_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let user = reserve_in(&directory.path().join("locks"), USERS, 0).unwrap();
    assert!(io::Write::write(&mut File::from(user.lock), b"x").is_err());
}

#[test]
fn a_user_namespace_may_not_have_the_users() {
    assert!(is_mapped("         0          0 4294967295\n", USERS));
    assert!(!is_mapped("         0       1000          1\n         1     100000      500\n", USERS));
    assert!(is_mapped("0 1000 1\n1 100000 65536\n", USERS));
    assert!(!is_mapped("", USERS));
}

use super::*;

#[test]
fn mounts_are_cloned_unless_they_are_joined_and_the_late_ones_never() {
    let all = || Namespaces {
        pid: Namespace::New,
        mount: Namespace::New,
        uts: Namespace::New,
        ipc: Namespace::New,
        cgroup: Namespace::New,
        time: Namespace::New,
        user: Namespace::Guest,
    };
    let expected = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    assert_eq!(to_clone(&all()), expected);
    assert_eq!(to_clone(&Namespaces::default()), CloneFlags::CLONE_NEWNS);
    let in_user_namespace = Namespaces { user: Namespace::New, ..all() };
    assert_eq!(to_clone(&in_user_namespace), expected | CloneFlags::CLONE_NEWUSER);
    let joins = Namespaces { mount: Namespace::Container("a".into()), ..all() };
    assert_eq!(to_clone(&joins), expected.difference(CloneFlags::CLONE_NEWNS));
}

#[test]
fn a_namespace_of_nobody_is_an_error() {
    let namespaces = Namespaces { ipc: Namespace::Container("gone".into()), ..Namespaces::default() };
    let error = Joined::resolve(&namespaces, |_| None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Spec);
    assert!(error.message.contains("gone"));
}

#[test]
fn what_is_not_as_asked_is_said() {
    let mut warnings = Vec::new();
    let namespaces = Namespaces { mount: Namespace::New, ..Namespaces::default() };
    assert!(has_own_mounts(&namespaces, &mut warnings));
    assert!(warnings.is_empty());
    assert!(has_own_mounts(&Namespaces::default(), &mut warnings));
    assert_eq!(warnings.len(), 1);
}

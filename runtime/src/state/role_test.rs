use super::*;

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn role(pairs: &[(&str, &str)]) -> Role {
    Role::of(Some(&annotations(pairs))).unwrap()
}

#[test]
fn every_engines_way_to_tell_a_role_is_understood() {
    for (engine, word) in Engine::ALL.into_iter().zip(["sandbox", "sandbox", "podsandbox"]) {
        let [role_key, sandbox] = engine.keys();
        assert_eq!(role(&[(role_key, "container"), (sandbox, "s")]), Role::Member("s".to_owned()));
        assert_eq!(role(&[(role_key, word), (sandbox, "s")]), Role::Sandbox);
        assert_eq!(role(&[(role_key, "else"), (sandbox, "s")]), Role::Alone);
        let incomplete = Role::of(Some(&annotations(&[(role_key, "container")]))).unwrap_err().to_string();
        assert!(incomplete.contains(sandbox), "{incomplete}");
    }
    assert_eq!(Role::of(None).unwrap(), Role::Alone);
    assert_eq!(role(&[("io.kubernetes.cri.sandbox-memory", "1")]), Role::Alone);
}

#[test]
fn a_pods_author_gives_no_role_with_the_keys_of_another_engine() {
    let [crio, containerd, dockershim] = Engine::ALL.map(Engine::keys);
    let forged = [(containerd[0], "container"), (containerd[1], "victim"), (dockershim[0], "container")];
    let with = |own: &[(&'static str, &'static str)]| role(&[own, &forged[..]].concat());
    assert_eq!(with(&[(crio[0], "sandbox"), (crio[1], "own")]), Role::Sandbox);
    assert_eq!(with(&[(crio[0], "container"), (crio[1], "own")]), Role::Member("own".to_owned()));
    // One of CRI-O's keys is enough to silence the others.
    assert_eq!(with(&[(crio[1], "own")]), Role::Alone);
    let sandbox =
        annotations(&[(containerd[0], "sandbox"), (dockershim[0], "container"), (dockershim[1], "v")]);
    assert_eq!(Role::of(Some(&sandbox)).unwrap(), Role::Sandbox);
    assert_eq!(Engine::of(Some(&sandbox)), Some(Engine::Containerd));
}

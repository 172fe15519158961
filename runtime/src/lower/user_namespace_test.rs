use super::*;
use serde_json::json;

fn checked(users: serde_json::Value) -> Result<Option<IdMappings>, SpecError> {
    let users: Vec<Spec> = serde_json::from_value(users).unwrap();
    let groups: Vec<Spec> =
        serde_json::from_value(json!([{ "containerID": 0, "hostID": 0, "size": 1 }])).unwrap();
    lists(Some(&users), Some(&groups), "linux")
}

#[test]
fn ids_are_found_in_any_of_several_ranges() {
    let mappings = checked(json!([
        { "containerID": 0, "hostID": 1000, "size": 1 },
        { "containerID": 1, "hostID": 100_000, "size": 65536 },
    ]));
    let mappings = mappings.unwrap().unwrap();
    assert_eq!(
        [0, 1, 65536, 65537].map(|id| mappings.user(id)),
        [Some(1000), Some(100_000), Some(165_535), None]
    );
    assert_eq!(user_namespace::text(&mappings.users), "0 1000 1\n1 100000 65536\n");
    assert_eq!(parse(&user_namespace::text(&mappings.users)), mappings.users);
}

#[test]
fn ranges_that_the_kernel_would_refuse_are_named() {
    for (list, path, problem) in [
        (json!([{ "containerID": 0, "hostID": 1, "size": 0 }]), "linux.uidMappings[0]", "size 0"),
        (
            json!([{ "containerID": 0, "hostID": 1, "size": 5 }, { "containerID": 4, "hostID": 9, "size": 1 }]),
            "linux.uidMappings[1]",
            "overlaps",
        ),
        (
            json!([{ "containerID": 0, "hostID": 5, "size": 5 }, { "containerID": 9, "hostID": 1, "size": 5 }]),
            "linux.uidMappings[1]",
            "host's",
        ),
        (
            json!([{ "containerID": 0, "hostID": 4294967295u32, "size": 1 }]),
            "linux.uidMappings[0]",
            "4294967294",
        ),
        (
            (0..341).map(|id| json!({ "containerID": id, "hostID": id, "size": 1 })).collect(),
            "linux.uidMappings",
            "340",
        ),
        (
            (0..300)
                .map(|id| json!({ "containerID": id, "hostID": 1_000_000_000 + id, "size": 1 }))
                .collect(),
            "linux.uidMappings",
            "too long",
        ),
    ] {
        let error = checked(list).unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.problem.contains(problem), "{error}");
    }
    let one: Vec<Spec> =
        serde_json::from_value(json!([{ "containerID": 0, "hostID": 0, "size": 1 }])).unwrap();
    assert_eq!(lists(Some(&one), None, "mounts[1]").unwrap_err().path, "mounts[1].gidMappings");
    assert_eq!(lists(Some(&[]), Some(&one), "mounts[1]").unwrap_err().path, "mounts[1].uidMappings");
    assert_eq!(lists(Some(&[]), None, "linux").unwrap(), None);
}

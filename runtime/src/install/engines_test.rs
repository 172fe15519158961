use super::*;

#[test]
fn dockers_version_is_what_it_prints() {
    for (text, version) in [
        ("Docker version 26.1.5+dfsg1, build 411e817\n", Some(26)),
        ("Docker version 20.10.24+dfsg1, build 297e128\n", Some(20)),
        ("podman version 4.3.1\n", None),
        ("", None),
    ] {
        assert_eq!(major_version(text), version, "{text}");
    }
    assert_eq!(docker_version(Path::new("/host")), None);
}

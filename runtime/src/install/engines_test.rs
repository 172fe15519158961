use super::*;

#[test]
fn docker_is_told_of_the_binary_or_of_the_shim_but_not_of_both() {
    let runtime = |text: &str| Format::Json.get(text, &["runtimes", "stockade"]).unwrap().unwrap();
    let set = |text: &str, shim| Format::Json.set(text, &docker("/bin/stockade", shim)).unwrap();
    let by_shim = json!({ "runtimeType": "/bin/shim" });
    let by_path = json!({ "path": "/bin/stockade" });
    let text = set("{\"debug\": true}", None);
    assert_eq!(runtime(&text), by_path);
    let edited =
        text.replace("true", "false").replace("\"path\"", "\"runtimeArgs\": [\"--debug\"], \"path\"");
    let text = set(&edited, Some("/bin/shim"));
    assert_eq!(runtime(&text), by_shim);
    assert!(text.contains("\"debug\": false"), "{text}");
    let edited = text.replace("\"runtimeType\"", "\"options\": {}, \"runtimeType\"");
    assert_eq!(runtime(&set(&edited, None)), by_path);
    // What somebody had there before comes back.
    let places: Vec<Keys> = docker("", Some("")).into_iter().map(|setting| setting.keys).collect();
    let own = json!({ "runtimes": { "stockade": { "path": "/old", "runtimeArgs": ["-x"] } } }).to_string();
    let back = Format::Json.take_back(&set(&own, Some("/bin/shim")), &places, Some(&own)).unwrap().unwrap();
    assert_eq!(runtime(&back), json!({ "path": "/old", "runtimeArgs": ["-x"] }));
}

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

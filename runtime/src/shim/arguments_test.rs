use super::*;

fn parse(line: &str) -> anyhow::Result<Arguments> {
    Arguments::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn containerds_own_command_lines_are_understood() {
    let start = "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id one \
                 -debug start";
    let start = parse(start).expect("start");
    assert_eq!((start.action, start.id.as_str(), start.debug), (Action::Start, "one", true));
    assert_eq!(start.address, "/run/containerd/containerd.sock");
    assert_eq!(
        start.of_server().join(" "),
        "containerd-shim-stockade-v2 -namespace k8s.io -id one -address /run/containerd/containerd.sock"
    );
    let delete = parse("--namespace=default -id two -bundle /run/b -address x delete").expect("delete");
    assert_eq!((delete.action, delete.bundle), (Action::Delete, Some("/run/b".into())));
    assert_eq!(parse("-v").expect("version").action, Action::Version);
    assert_eq!(parse("-info").expect("info").action, Action::Info);
}

#[test]
fn what_is_wrong_is_named() {
    for (line, expected) in [
        ("-id one start", "-namespace is missing"),
        ("-namespace n -id ../x start", "-id"),
        ("-namespace n -id x", "no action"),
        ("-namespace n -id x stop", "\"stop\""),
        ("-namespace n -what x -id x start", "-what"),
        ("start -id", "-id needs a value"),
    ] {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

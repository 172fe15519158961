use super::*;

#[test]
fn a_failed_row_shows_its_remedy() {
    let report = Report {
        ok: false,
        checks: vec![
            Row::ok("a", "fine"),
            Row::failed("b", "broken", "mend it"),
            Row::warning("c", "odd", "look"),
        ],
    };
    let text = report.to_string();
    assert!(text.contains("FAILED   b") && text.contains("→ mend it"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][1]["verdict"], "failed");
    assert_eq!(json["ok"], false);
}

#[test]
fn labels_are_what_kubernetes_takes() {
    let checks = vec![Row::ok(VERSION, "v"), Row::ok("/dev/kvm", "x"), Row::warning("cgroup v2", "a b", "c")];
    let labels = Report { ok: true, checks }.labels();
    let version = version::RUNTIME;
    let expected = format!(
        "stockade.io/ready=true\nstockade.io/version={version}\nstockade.io/dev-kvm=ok\nstockade.io/cgroup-v2=warning\n"
    );
    assert_eq!(labels, expected);
}

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

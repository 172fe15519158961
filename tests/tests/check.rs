//! `stockade check` on a host that can run microVMs.

use serde_json::Value;
use stockade_tests::cli::Stockade;

#[test]
fn it_passes_where_the_other_tests_run() {
    let stockade = Stockade::new();
    let outcome = stockade.run(&["check"]).success();
    assert!(outcome.stdout.contains("/dev/kvm"), "{outcome:#?}");
    let outcome = stockade.run(&["check", "--format", "json"]).success();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let rows = report["checks"].as_array().expect("checks");
    assert!(rows.len() >= 6, "{report:#}");
    for row in rows {
        assert_eq!(row["ok"], true, "{row:#}");
        assert!(row["name"].is_string() && row["found"].is_string(), "{row:#}");
    }
}

#[test]
fn it_fails_with_a_remedy_where_something_is_missing() {
    let stockade = Stockade::with_config("kernel = \"/no/such/kernel\"");
    let outcome = stockade.run(&["check"]);
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(outcome.stdout.contains("/no/such/kernel"), "{outcome:#?}");
}

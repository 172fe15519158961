//! Many containers, one after the other and side by side, leave the host as it was.

use std::process::Stdio;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::Snapshot;

#[test]
fn fifty_in_a_row() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("exit 3");
    let before = Snapshot::take();
    for n in 0..50 {
        let outcome = stockade.run_bundle(&bundle, &format!("row-{n}"));
        assert_eq!(outcome.status, 3, "{n}: {outcome:#?}");
    }
    before.assert_same_now();
}

#[test]
fn five_at_once() {
    let stockade = Stockade::new();
    let bundles: Vec<_> = (0..5).map(|n| Bundle::script(&format!("echo {n}; exit {n}"))).collect();
    let before = Snapshot::take();
    for _ in 0..3 {
        let children: Vec<_> = bundles
            .iter()
            .enumerate()
            .map(|(n, bundle)| {
                stockade
                    .command(&["run", "-b", text(bundle.path()), &format!("once-{n}")])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("run")
            })
            .collect();
        for (n, child) in children.into_iter().enumerate() {
            let outcome = Outcome::wait(child, "run");
            assert_eq!(
                (outcome.status, outcome.stdout.as_str()),
                (n as i32, format!("{n}\n").as_str()),
                "{outcome:#?}"
            );
        }
        before.assert_same_now();
    }
}

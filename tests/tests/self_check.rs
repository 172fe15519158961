//! The self-check (`tests/selfcheck`) in containers of many kinds: it must find that everything is as config.json says,
//! and find every deviation.
//!
//! The configurations are generated from seeds, always the same ones. `STOCKADE_SELF_CHECK_SEED` is another first seed and
//! `STOCKADE_SELF_CHECK_COUNT` another number of them; a failure says with which values it is repeated alone.

#[path = "self_check/alterations.rs"]
mod alterations;
#[path = "self_check/fixed.rs"]
mod fixed;
#[path = "self_check/fixture.rs"]
mod fixture;
#[path = "self_check/generator/mod.rs"]
mod generator;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::compared;
use stockade_tests::terminal::ConsoleSocket;

use fixture::Checked;

const FIRST_SEED: u64 = 1000;
const COUNT: u64 = 30;

/// How the line of a property begins that the self-check could not see.
const UNSEEN: &str = "cannot see ";

/// What a number of the environment says.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Runs the self-check as the container's process.
fn run(config: &Value) -> String {
    let checked = Checked::new(config, &[("config.json", config.clone())]);
    let stockade = Stockade::new();
    if config["process"]["terminal"] == true {
        let console = ConsoleSocket::listen(checked.bundle.path());
        let path = text(checked.bundle.path());
        stockade.run(&["create", "--bundle", path, "--console-socket", console.path(), "checked"]).success();
        let mut terminal = console.receive();
        stockade.run(&["start", "checked"]).success();
        let output = terminal.rest().replace('\r', "");
        stockade.run(&["delete", "--force", "checked"]).success();
        return output;
    }
    said(stockade.run_bundle(&checked.bundle, "checked"))
}

/// Runs another process, and the self-check by exec with the process of `config`.
fn execute(config: &Value, files: &[(&str, Value)]) -> String {
    let mut container = config.clone();
    container["process"]["args"] = json!([fixture::PROGRAM, "--stay"]);
    let checked = Checked::new(&container, files);
    let stockade = Stockade::new();
    stockade.create(&checked.bundle, "checked");
    stockade.run(&["start", "checked"]).success();
    let process = checked.bundle.path().join("process.json");
    std::fs::write(&process, config["process"].to_string()).expect("process.json");
    let outcome = stockade.run(&["exec", "--process", text(&process), "checked"]);
    stockade.run(&["delete", "--force", "checked"]).success();
    said(outcome)
}

/// Says to the self-check that it comes by exec.
fn by_exec(config: &Value) -> Value {
    let mut config = config.clone();
    config["process"]["args"].as_array_mut().expect("args").insert(1, "--executed".into());
    config
}

/// Its output; where it did not come so far, what else was said.
fn said(outcome: Outcome) -> String {
    if outcome.stderr.is_empty() && [0, 1].contains(&outcome.status) {
        outcome.stdout
    } else {
        format!("{outcome:#?}")
    }
}

/// What was compared, where the self-check has seen everything and found no difference; or else what it said.
fn compared_in(output: &str) -> Result<BTreeSet<String>, &str> {
    let is_fine = output.lines().last().is_some_and(|line| line.starts_with("checked "))
        && !output.lines().any(|line| line.starts_with(UNSEEN));
    let compared = output.lines().filter_map(|line| line.strip_prefix("compared "));
    if is_fine { Ok(compared.map(str::to_owned).collect()) } else { Err(output) }
}

#[test]
fn generated_configurations_are_what_a_process_finds() {
    let (first, count) =
        (setting("STOCKADE_SELF_CHECK_SEED", FIRST_SEED), setting("STOCKADE_SELF_CHECK_COUNT", COUNT));
    let mut failures = String::new();
    let mut compared = BTreeSet::new();
    for seed in first..first + count {
        let mut config = generator::config(seed);
        // A terminal is the init's here; exec has its own tests for that.
        let executed = seed % 3 == 0 && config["process"]["terminal"] != true;
        let output = if executed {
            config = by_exec(&config);
            execute(&config, &[("config.json", config.clone())])
        } else {
            run(&config)
        };
        match compared_in(&output) {
            Ok(entries) => compared.extend(entries),
            Err(output) => {
                failures += &format!(
                    "\nSTOCKADE_SELF_CHECK_SEED={seed} STOCKADE_SELF_CHECK_COUNT=1{}:\n{output}\n{config:#}\n",
                    if executed { " (by exec)" } else { "" },
                );
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    if count >= COUNT {
        let missing: Vec<_> = generator::properties().filter(|entry| !compared.contains(*entry)).collect();
        assert!(missing.is_empty(), "no configuration had {missing:?}");
    }
}

#[test]
fn a_full_configuration_is_what_a_process_and_an_exec_find() {
    let config = fixed::full();
    compared_in(&run(&config)).unwrap_or_else(|output| panic!("{output}"));
    let config = by_exec(&config);
    let found = execute(&config, &[("config.json", config.clone())]);
    let compared = compared_in(&found).unwrap_or_else(|output| panic!("by exec: {output}"));
    let missing: Vec<_> = generator::properties().filter(|entry| !compared.contains(*entry)).collect();
    // There is no terminal, and seccomp allows what no rule names.
    assert_eq!(missing, ["linux.seccomp.defaultErrnoRet", "process.consoleSize"], "{found}");
}

#[test]
fn a_minimal_configuration_is_what_a_process_finds() {
    let output = run(&fixed::minimal());
    // There is no /proc.
    let (unseen, seen): (Vec<_>, Vec<_>) = output.lines().partition(|line| line.starts_with(UNSEEN));
    assert!(!unseen.is_empty() && unseen.iter().all(|line| line.contains("No such file")), "{output}");
    compared_in(&seen.join("\n")).unwrap_or_else(|output| panic!("{output}"));
}

#[test]
fn every_deviation_is_found_and_nothing_else() {
    let mut config = fixed::full();
    config["process"]["args"] = json!([fixture::PROGRAM, "--executed", "/altered"]);
    let table = alterations::table();
    let mut files = vec![("altered/as-it-is.json".to_owned(), config.clone())];
    for (number, alteration) in table.iter().enumerate() {
        let mut altered = config.clone();
        (alteration.alter)(&mut altered);
        files.push((format!("altered/{number:03}.json"), altered));
    }
    let files: Vec<_> = files.iter().map(|(name, config)| (name.as_str(), config.clone())).collect();
    let output = execute(&config, &files);

    let lines_of = |name: &str| -> Vec<&str> {
        let prefix = format!("/altered/{name}.json: ");
        output.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect()
    };
    let unaltered = lines_of("as-it-is");
    assert!(matches!(unaltered[..], [line] if line.starts_with("checked ")), "{output}");
    let mut wrong = String::new();
    let mut found_entries = BTreeSet::new();
    for (number, alteration) in table.iter().enumerate() {
        let lines = lines_of(&format!("{number:03}"));
        let paths: BTreeSet<_> = lines.iter().filter_map(|line| line.split(": ").next()).collect();
        if paths != BTreeSet::from_iter(alteration.differences.iter().copied()) {
            wrong += &format!(
                "\n{number}: expected differences of {:?}:\n{}\n",
                alteration.differences,
                lines.join("\n")
            );
        }
        if let Some(line) = alteration.line.filter(|line| !lines.contains(line)) {
            wrong += &format!("\n{number}: expected the line {line:?} in\n{}\n", lines.join("\n"));
        }
        found_entries.extend(paths.into_iter().filter_map(compared::entry));
    }
    assert!(wrong.is_empty(), "{wrong}");
    let missing: Vec<_> = compared::COMPARED.iter().filter(|entry| !found_entries.contains(*entry)).collect();
    assert!(missing.is_empty(), "no alteration of {missing:?}");
}

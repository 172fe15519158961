//! docs/spec.md says the truth about itself: it is complete, the tests that it names exist, and what it calls compared is.

#[path = "spec_document/fields.rs"]
mod fields;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use stockade_tests::compared;

/// One row of a table.
#[derive(Debug)]
struct Row {
    /// The property, or all properties that begin so (`windows.*`).
    property: String,
    place: String,
    tests: String,
    self_check: String,
}

/// What the second column may say.
const PLACES: [&str; 6] = ["guest", "host", "both", "refused", "warned about", "no part of Linux"];

/// Newer than the crate that reads config.json.
const UNKNOWN_TO_THE_CRATE: [&str; 1] = ["vm.hwConfig.*"];

/// The checkout.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a directory above tests/").to_owned()
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(checkout().join("docs/spec.md")).expect("docs/spec.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [property, place, _how, tests, self_check] = cells[..] else {
            panic!("not five cells: {line}");
        };
        let own = |cell: &str| cell.trim_end_matches(" |").trim().to_owned();
        Row {
            property: property.trim_matches('`').to_owned(),
            place: own(place),
            tests: own(tests),
            self_check: own(self_check),
        }
    })
    .collect()
}

#[test]
fn every_property_of_the_specification_has_one_row() {
    let properties = fields::of::<Spec>().expect("all properties");
    assert!(properties.len() > 200, "{}", properties.join("\n"));
    let rows = rows();
    let mut wrong = String::new();
    for property in &properties {
        let count = rows.iter().filter(|row| row.is_about(property)).count();
        if count != 1 {
            wrong += &format!("\n{property} has {count} rows");
        }
    }
    for row in &rows {
        let is_known = properties.iter().any(|property| row.is_about(property));
        if is_known == UNKNOWN_TO_THE_CRATE.contains(&row.property.as_str()) {
            wrong += &format!("\n{} is no property, or has become one", row.property);
        }
        if !PLACES.contains(&row.place.as_str()) {
            wrong += &format!("\n{}: {:?} is none of {PLACES:?}", row.property, row.place);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

impl Row {
    fn is_about(&self, property: &str) -> bool {
        match self.property.strip_suffix(".*") {
            Some(beginning) => property.strip_prefix(beginning).is_some_and(|rest| rest.starts_with('.')),
            None => self.property == property,
        }
    }
}

#[test]
fn every_property_that_is_applied_or_refused_has_a_test_that_exists() {
    let sources = sources();
    let mut wrong = String::new();
    for row in rows() {
        let tests: Vec<_> = row.tests.split('`').skip(1).step_by(2).collect();
        let needs_one = !["warned about", "no part of Linux"].contains(&row.place.as_str());
        if tests.is_empty() && needs_one {
            wrong += &format!("\n{} names no test", row.property);
        }
        for test in tests {
            let exists = test.split_once("::").is_some_and(|(file, function)| {
                let definition = format!("fn {function}(");
                sources.iter().any(|(path, text)| {
                    path.file_stem().is_some_and(|stem| stem == file) && text.contains(&definition)
                })
            });
            if !exists {
                wrong += &format!("\n{}: there is no {test}", row.property);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The sources of all crates.
fn sources() -> Vec<(PathBuf, String)> {
    let mut directories: Vec<_> =
        ["agent/src", "protocol", "runtime/src", "sys/src", "tests/tests", "vmm/src"]
            .map(|f| checkout().join(f))
            .into();
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source");
                sources.push((path, text));
            }
        }
    }
    sources
}

#[test]
fn every_property_of_the_guest_is_compared_by_the_self_check_or_says_why_not() {
    let mut wrong = String::new();
    let mut used = BTreeSet::new();
    for row in rows() {
        let entry = compared::entry(&row.property);
        match row.self_check.as_str() {
            "compared" => match entry {
                Some(entry) => drop(used.insert(entry)),
                None => wrong += &format!("\n{}: the self-check does not compare it", row.property),
            },
            "" | "–" if ["guest", "both"].contains(&row.place.as_str()) => {
                wrong += &format!("\n{}: neither `compared` nor a reason", row.property);
            }
            _ => {}
        }
    }
    let unused = compared::COMPARED.iter().filter(|entry| !used.contains(*entry));
    unused.for_each(|entry| wrong += &format!("\n{entry} is compared, and no row says so"));
    assert!(wrong.is_empty(), "{wrong}");
}

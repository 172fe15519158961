//! What was compared, and how it came out.

use std::collections::BTreeSet;
use std::fmt::Display;

use stockade_tests::compared;

/// The differences between a config.json and what is there.
#[derive(Debug, Default)]
pub struct Findings {
    checked: usize,
    entries: BTreeSet<&'static str>,
    differences: Vec<String>,
    unseen: Vec<String>,
}

impl Findings {
    /// One property that should be equal; `what` names the part of it, where it has parts.
    pub fn equal<T: PartialEq + Display>(&mut self, path: &str, what: &str, found: T, wanted: T) {
        let subject = if what.is_empty() { String::new() } else { format!("{what} ") };
        self.holds(path, found == wanted, || format!("{subject}is {found}, config.json says {wanted}"));
    }

    /// The same of lists.
    pub fn equal_lists<T: PartialEq + std::fmt::Debug>(&mut self, path: &str, found: &[T], wanted: &[T]) {
        self.holds(path, found == wanted, || format!("is {found:?}, config.json says {wanted:?}"));
    }

    /// One property that is as it should be, or else what it is.
    pub fn holds(&mut self, path: &str, is_so: bool, difference: impl FnOnce() -> String) {
        self.count(path);
        if !is_so {
            self.differences.push(format!("{path}: {}", difference()));
        }
    }

    /// A property that cannot be seen from here.
    pub fn unseen(&mut self, path: &str, why: impl Display) {
        self.unseen.push(format!("cannot see {path}: {why}"));
    }

    fn count(&mut self, path: &str) {
        let entry = compared::entry(path);
        self.entries.insert(entry.unwrap_or_else(|| panic!("{path} is missing in compared.rs")));
        self.checked += 1;
    }

    /// Whether everything is as config.json says.
    pub fn are_none(&self) -> bool {
        self.differences.is_empty()
    }

    /// What there is to be said.
    pub fn lines(&self, list: bool) -> Vec<String> {
        let mut lines = self.differences.clone();
        lines.extend(self.unseen.iter().cloned());
        if list {
            lines.extend(self.entries.iter().map(|entry| format!("compared {entry}")));
        }
        if self.differences.is_empty() {
            lines.push(format!("checked {} properties", self.checked));
        }
        lines
    }
}

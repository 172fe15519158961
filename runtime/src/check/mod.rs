//! What `stockade check` looks at: one row per thing that a microVM needs of its host, each with its remedy.

mod guest_files;
mod host;
mod kvm_guest;
mod kvm_probe;
mod templates;
pub mod version;

use std::fmt;

use serde::Serialize;

use crate::config::Config;

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything is as needed.
    Ok,
    /// Only some containers need what is missing.
    Warning,
    /// No container can run without what is missing.
    Failed,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Row {
    name: &'static str,
    /// Whether everything that every container needs is there.
    ok: bool,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Row {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: true, verdict: Verdict::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: false, verdict: Verdict::Failed, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// The results of all checks.
#[derive(Debug, Serialize)]
pub struct Report {
    ok: bool,
    checks: Vec<Row>,
}

impl Report {
    /// Whether containers can run.
    pub fn is_good(&self) -> bool {
        self.ok
    }
}

/// The name of the row with the version.
const VERSION: &str = "version";

/// The prefix of the labels of a Kubernetes node.
const LABELS: &str = "stockade.io";

/// Makes all checks.
pub fn report() -> Report {
    let mut rows =
        vec![Row::ok(VERSION, version::line()), host::kernel(), host::privileges(), kvm_probe::row()];
    match Config::load() {
        Ok(config) => rows.extend([
            guest_files::vmm(&config.vmm),
            guest_files::kernel(&config.kernel),
            guest_files::initramfs(&config.initramfs),
            host::memory(config.memory_mib),
            templates::row(&config),
        ]),
        Err(error) => rows.push(Row::failed("configuration", error.to_string(), "correct the file")),
    }
    rows.extend([
        host::cgroups(),
        host::taps(),
        host::user_namespaces(),
        host::descriptors(),
        host::landlock(),
    ]);
    Report { ok: rows.iter().all(|row| row.ok), checks: rows }
}

impl Report {
    /// The report as labels of a Kubernetes node, one on each line, for `kubectl label`.
    pub fn labels(&self) -> String {
        let verdict = |row: &Row| match row.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        };
        let label = |name: &str, value: &str| format!("{LABELS}/{name}={value}\n");
        let rows = self.checks.iter().filter(|row| row.name != VERSION);
        let rows = rows.map(|row| label(&label_name(row.name), verdict(row)));
        let head = [label("ready", if self.ok { "true" } else { "false" }), label(VERSION, version::RUNTIME)];
        head.into_iter().chain(rows).collect()
    }
}

/// A row's name with what a label's name may hold: letters, digits and dashes.
fn label_name(name: &str) -> String {
    let dashes = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.to_ascii_lowercase().chars().map(dashes).collect::<String>().trim_matches('-').to_owned()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.checks {
            let verdict = match row.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
            };
            writeln!(f, "{verdict:<8} {:<16} {}", row.name, row.found)?;
            if let Some(remedy) = &row.remedy {
                writeln!(f, "{:<25} → {remedy}", "")?;
            }
        }
        let summary =
            if self.ok { "this host can run microVMs" } else { "this host cannot run microVMs as it is" };
        writeln!(f, "\n{summary}")
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;

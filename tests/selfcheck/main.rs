//! Runs in a container, compares a config.json with what a process there finds, and says every difference.
//!
//! ```text
//! self-check [--list] [--executed] FILE|DIRECTORY... [-- ANYTHING]
//! self-check --stay
//! ```
//!
//! A difference is one line that begins with the JSON path; with several files (or a directory of them) the file's name
//! comes before it. `--list` names what was compared, by its entry in [`stockade_tests::compared`]. What cannot be
//! seen from where the program runs (no /proc, say) is named too. The exit status is 1 if there is any difference.
//! `--executed` says that it is no container's init. With `--stay` it waits to be killed, so that others can be executed beside it.
//!
//! It takes the rules of the kernel and of the specification as its own, and shares no code with what it checks.

mod capabilities;
mod cgroup;
mod config;
mod device_rules;
mod devices;
mod findings;
mod mount_options;
mod mount_tree;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod propagation;
mod rlimits;
mod scheduling;
mod seccomp;
mod sysctl;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use findings::Findings;

fn main() -> ExitCode {
    let (flags, files): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).take_while(|word| word != "--").partition(|word| word.starts_with("--"));
    if flags.iter().any(|flag| flag == "--stay") {
        loop {
            nix::unistd::pause();
        }
    }
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    match configs(&files).and_then(|files| check_all(&files, has("--list"), has("--executed"))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("self-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Checks every file; whether there was no difference at all.
fn check_all(files: &[PathBuf], list: bool, executed: bool) -> Result<bool> {
    let mut all_same = true;
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let config: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let findings = check(&config, executed)?;
        let prefix = if files.len() > 1 { format!("{}: ", file.display()) } else { String::new() };
        for line in findings.lines(list) {
            println!("{prefix}{line}");
        }
        all_same &= findings.are_none();
    }
    Ok(all_same)
}

fn check(config: &Value, executed: bool) -> Result<Findings> {
    let mut findings = Findings::default();
    process::check(config, &mut findings)?;
    capabilities::check(config, &mut findings)?;
    rlimits::check(config, &mut findings)?;
    scheduling::check(config, executed, &mut findings)?;
    namespaces::check(config, &mut findings)?;
    mounts::check(config, &mut findings)?;
    devices::check(config, &mut findings);
    device_rules::check(config, &mut findings)?;
    paths::check(config, &mut findings)?;
    sysctl::check(config, &mut findings);
    cgroup::check(config, &mut findings)?;
    seccomp::check(config, &mut findings)?;
    Ok(findings)
}

/// The files that the arguments name: a directory stands for those in it, by name.
fn configs(arguments: &[String]) -> Result<Vec<PathBuf>> {
    anyhow::ensure!(!arguments.is_empty(), "which config.json?");
    let mut files = Vec::new();
    for argument in arguments.iter().map(Path::new) {
        if argument.is_dir() {
            let entries = std::fs::read_dir(argument)?.collect::<Result<Vec<_>, _>>()?;
            let mut names: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
            names.sort();
            files.extend(names);
        } else {
            files.push(argument.to_owned());
        }
    }
    Ok(files)
}

//! VMs whose guest is hostile (`tests/hostile/guest`), and what must hold whatever such a guest does.

pub mod lies;
pub mod oracle;
pub mod pod;
pub mod script;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bundle::{self, Bundle};
use crate::cli::{Outcome, Stockade, built, text};
use script::Script;

/// What the guests boot with, in MiB: all of it is there at once, for nobody plugs more.
const MEMORY_MIB: u32 = 512;

/// `stockade` whose VMs run the hostile guest.
pub struct Hostile {
    /// The runtime.
    pub stockade: Stockade,
    _script: TempDir,
}

impl Hostile {
    /// A guest that does what its script says.
    pub fn new(script: &Script) -> Self {
        Self::with(script, "")
    }

    /// The same, with these kernel parameters: a word `hostile=…` is for a guest that does not get as far as its script.
    pub fn with(script: &Script, parameters: &str) -> Self {
        let directory = bundle::directory();
        let initramfs = directory.path().join("script");
        fs::write(&initramfs, script.encode()).expect("write the script");
        let stockade = Stockade::with_config(&format!(
            "kernel = {:?}\ninitramfs = {:?}\nkernel_parameters = {parameters:?}\nmemory_mib = {MEMORY_MIB}\n",
            text(&kernel()),
            text(&initramfs),
        ));
        Self { stockade, _script: directory }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        delete_all(&self.stockade);
    }
}

/// Deletes every container, also those that a failed test has left to the tests after it.
pub fn delete_all(stockade: &Stockade) {
    let _ = stockade.command(&["delete", "--force", "--regex", "."]).status();
}

fn kernel() -> PathBuf {
    built("x86_64-unknown-linux-gnu/release/hostile-guest")
}

/// A bundle of which the hostile guest runs nothing: what it would run is the group of attacks that its ID names.
pub fn bundle() -> Bundle {
    Bundle::busybox(&["/bin/true"])
}

/// Starts a command whose output goes to a file: a pipe would be held by what lives on.
pub fn logged(command: &mut Command, log: &Path) -> Child {
    let log = File::create(log).expect("log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log).spawn().expect("stockade")
}

/// The outcomes of a group: which cases have passed, and which have not and why.
#[track_caller]
pub fn assert_all_passed(outcome: &Outcome, least: usize) {
    let output = &outcome.stdout;
    let failed: Vec<&str> = output.lines().filter(|line| line.starts_with("FAIL ")).collect();
    let passed = output.lines().filter(|line| line.starts_with("pass ")).count();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), passed + failed.len(), failed.join("\n"));
    assert!(passed >= least, "only {passed} of at least {least} cases have run: {outcome:#?}");
}

//! A pod whose guest is hostile to single members of it.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::oracle::Oracle;
use super::script::Script;
use super::{Hostile, bundle, logged};
use crate::bundle::Bundle;
use crate::cli::{Outcome, Stockade, text};
use crate::host;

fn member() -> Bundle {
    bundle().edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
    })
}

/// A pod of which the guest is hostile to members.
pub struct Pod {
    hostile: Hostile,
    /// What must hold.
    pub oracle: Oracle,
    relay: i32,
    bundle: Bundle,
    /// Of every member.
    pub member: Bundle,
}

impl Pod {
    /// It runs, and does what the script says.
    pub fn new(script: Script) -> Self {
        let hostile = Hostile::new(&script);
        let mut oracle = Oracle::new();
        let bundle = bundle().edit(|config: &mut Value| {
            config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
        });
        let member = member();
        oracle.guard(&member.rootfs().join("etc"));
        let relay = hostile.stockade.create(&bundle, "pod");
        hostile.stockade.run(&["start", "pod"]).success();
        Self { hostile, oracle, relay, bundle, member }
    }

    /// The runtime.
    pub fn stockade(&self) -> &Stockade {
        &self.hostile.stockade
    }

    /// `create` of a member, to its end.
    pub fn create(&self, id: &str) -> Outcome {
        let mut child = self.begin_create(id);
        let status = wait(&mut child, id);
        let stderr = fs::read_to_string(self.log(id)).expect("log");
        Outcome { status, stdout: String::new(), stderr }
    }

    /// `create` of a member, whose output goes to a file: pipes would be held by what lives on.
    pub fn begin_create(&self, id: &str) -> Child {
        let mut command = self.stockade().command(&["create", "--bundle", text(self.member.path()), id]);
        logged(&mut command, &self.log(id))
    }

    fn log(&self, id: &str) -> PathBuf {
        self.bundle.path().join(format!("{id}.log"))
    }

    /// After an attack on a member: the host is rid of it, and the pod lives.
    #[track_caller]
    pub fn assert_rid_of(&self, id: &str) {
        self.oracle.assert_commands_end(self.stockade(), id);
        assert!(!host::has_ended(self.relay), "the pod has ended with {id}");
    }

    /// At the end of all attacks.
    #[track_caller]
    pub fn assert_clean(self) {
        self.oracle.assert_commands_end(self.stockade(), "pod");
        self.oracle.assert_nothing_left();
    }
}

/// Waits for a command that must end in time.
#[track_caller]
pub fn wait(child: &mut Child, name: &str) -> i32 {
    let begun = Instant::now();
    host::wait_for_end(child.id() as i32);
    let status = child.wait().expect("wait");
    assert!(begun.elapsed() < Duration::from_secs(50), "{name} took {:?}", begun.elapsed());
    status.code().unwrap_or(-1)
}

/// Runs all cases and fails with those that have failed.
pub fn each<T>(cases: Vec<(String, T)>, mut case: impl FnMut(&str, T)) {
    let count = cases.len();
    let mut failed = Vec::new();
    for (name, input) in cases {
        eprintln!("case {name}");
        if panic::catch_unwind(AssertUnwindSafe(|| case(&name, input))).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} of {count} cases have failed: {failed:?}", failed.len());
}

/// One line, which no guest can make look like another or let steer a terminal.
#[track_caller]
pub fn assert_is_a_line(stderr: &str) {
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr:?}");
    assert!(!stderr.trim_end().chars().any(char::is_control), "{stderr:?}");
    assert!(stderr.starts_with("stockade: ") && stderr.len() < 1 << 20, "{} bytes", stderr.len());
}

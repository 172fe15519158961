//! The attacks, in groups: a container whose ID is a group's name runs it.

mod cpu_exits;
mod devices;
mod files;
mod files_handles;
mod files_links;
mod files_names;
mod files_shape;
mod files_sizes;
mod harness;
mod memory;
mod packets;
mod registers;
mod rings;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::agent::Agent;
use crate::boot::Boot;
use crate::cpu;
use crate::entry;
use crate::script::{Script, at};

type Group = fn(&mut Report<'_>);

const GROUPS: [(&str, Group); 14] = [
    ("registers", registers::run),
    ("rings", rings::run),
    ("queues", rings::run_layouts),
    ("cpu", cpu_exits::run),
    ("memory", memory::run),
    ("unplugged", memory::run_unplugged),
    ("disk", devices::run_disk),
    ("nic", devices::run_nic),
    ("packets", packets::run),
    ("vsock-broken", packets::run_broken),
    ("files", files::run),
    ("files-links", files_links::run),
    ("files-shape", files_shape::run),
    ("sealed", files_links::run_sealed),
];

/// Runs the group of this name, if there is one, and ends the container's process.
pub fn run(agent: &mut Agent, container: &[u8]) {
    let Some((_, group)) = GROUPS.iter().find(|(name, _)| name.as_bytes() == container) else { return };
    let mut report = Report { agent, container: container.to_vec(), failed: 0, count: 0 };
    group(&mut report);
    let Report { agent, failed, count, .. } = report;
    agent.print(container, &format!("{count} cases, {failed} failed\n"));
    agent.end(container, if failed == 0 { at::ENDED_WELL } else { at::ENDED_BADLY });
}

/// What is done before the host is told that a container is created: attacks on what is not sealed yet.
pub fn before_created(container: &[u8]) {
    if container == b"sealed" {
        files_links::write_everywhere();
    }
}

/// What some guests do in place of starting an agent at all: by a word of the command line.
pub fn before_the_agent(command_line: &[u8], _script: &Script) {
    if Boot::has(command_line, "hostile=halt") {
        cpu::halt();
    }
    if Boot::has(command_line, "hostile=crash") {
        entry::triple_fault();
    }
    if Boot::has(command_line, "hostile=reset") {
        cpu::reset();
    }
    if Boot::has(command_line, "hostile=babble") {
        loop {
            crate::say!("this guest says much, and its agent never comes");
            cpu::nap();
        }
    }
}

/// What a case has come to: why it has failed.
pub type Outcome = Result<(), String>;

/// Where outcomes go.
pub struct Report<'a> {
    pub agent: &'a mut Agent,
    container: Vec<u8>,
    failed: u32,
    count: u32,
}

impl Report<'_> {
    /// Says that a case begins: if it is the VMM's last, its console tells which it was.
    pub fn begin(&mut self, name: &str) {
        crate::say!("hostile guest: {name}");
    }

    /// Says what has come of it.
    pub fn end(&mut self, name: &str, outcome: Outcome) {
        self.count += 1;
        let line = match outcome {
            Ok(()) => format!("pass {name}\n"),
            Err(why) => {
                self.failed += 1;
                crate::say!("hostile guest: FAIL {name}: {why}");
                format!("FAIL {name}: {why}\n")
            }
        };
        self.agent.print(&self.container, &line);
    }

    /// Both.
    pub fn case(&mut self, name: &str, body: impl FnOnce(&mut Agent) -> Outcome) {
        self.begin(name);
        let outcome = body(self.agent);
        self.end(name, outcome);
    }
}

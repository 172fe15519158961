//! Errors about a VM that does not start, does not answer or has ended.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade_protocol::vmm::{CpuPosition, DeviceFailure, Stage};

use super::Control;
use super::control::Glance;
use crate::text::table::printable;

/// Lines of the console that an error carries.
const CONSOLE_LINES: usize = 8;

/// Why a VM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The VMM or its guest has ended.
    #[error("the VM failed: {reason}{}; {}{}", of_kernel(*stage, kernel), got_as_far(*stage), shown(console))]
    Failed {
        /// The VMM's explanation.
        reason: String,
        /// Path of the guest's kernel.
        kernel: PathBuf,
        /// The last stage reached.
        stage: Option<Stage>,
        /// The console's last lines.
        console: String,
    },
    /// Nothing happened for too long.
    #[error(
        "the VM does not answer: nothing happened for {} seconds while waiting for {what}; {}{}{}{}",
        waited.as_secs(), got_as_far(*stage), at(*cpu), failed(failures), shown(console)
    )]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long the command has waited.
        waited: Duration,
        /// The last stage reached.
        stage: Option<Stage>,
        /// What the guest's first CPU executes.
        cpu: Option<CpuPosition>,
        /// Devices that have failed.
        failures: Vec<DeviceFailure>,
        /// The console's last lines.
        console: String,
    },
    /// A signal asked the command to stop.
    #[error("interrupted by signal {0}")]
    Interrupted(u32),
    /// The VM of a sandbox is gone.
    #[error("the VM of the sandbox ended meanwhile")]
    SandboxEnded,
    /// The container that the command is about is gone.
    #[error("the container ended meanwhile")]
    ContainerEnded,
    /// The agent's message does not follow the protocol.
    #[error("this stockade does not understand the guest's agent: {0}")]
    Agent(String),
    /// A system call failed.
    #[error("cannot wait for the VM: {0}")]
    System(#[from] io::Error),
}

impl MachineError {
    /// Nothing happened for too long in a VM whose VMM has its sockets in `directory`.
    pub fn silent(
        what: &'static str,
        waited: Duration,
        stage: Option<Stage>,
        directory: Option<BorrowedFd<'_>>,
    ) -> Self {
        let Glance { console, cpu, failures } = directory.map(Control::glance_at_all).unwrap_or_default();
        Self::Silent { what, waited, stage, cpu, failures, console }
    }
}

fn got_as_far(stage: Option<Stage>) -> String {
    match stage {
        Some(stage) => format!("the last thing known is that {}", stage.describe()),
        None => "the VMM had not started".to_owned(),
    }
}

/// The address that the CPU executes, for a reader who has the kernel's symbols.
fn at(cpu: Option<CpuPosition>) -> String {
    cpu.map_or_else(String::new, |CpuPosition { instruction, interrupts }| {
        let on = if interrupts { "on" } else { "off" };
        format!("; its CPU is at {instruction:#x} with interrupts {on}")
    })
}

/// The devices that have failed, and why.
fn failed(failures: &[DeviceFailure]) -> String {
    let one = |DeviceFailure { device, cause, .. }: &DeviceFailure| {
        printable(&format!("; its device {device} has failed: {cause}"))
    };
    failures.iter().map(one).collect()
}

/// Names the kernel's file if the VM failed before the kernel was in memory, because the file may be the cause.
fn of_kernel(stage: Option<Stage>, kernel: &Path) -> String {
    if stage < Some(Stage::Loaded) { format!(" (kernel {})", kernel.display()) } else { String::new() }
}

/// The console's last lines as one line.
pub fn shown(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A panic's reason comes before its register dump and stack.
    let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
    let first = panic.unwrap_or(lines.len().saturating_sub(CONSOLE_LINES));
    let last = &lines[first..lines.len().min(first + CONSOLE_LINES)];
    if last.is_empty() {
        "; the guest's console is empty".to_owned()
    } else {
        let text: String = last.join(" | ").chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        format!("; the guest's console: {text}")
    }
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;

//! Checks whether /dev/kvm runs guests, by running one: under nested virtualisation, a device that can be opened proves
//! little.
//!
//! The guest runs in a child process under a time limit, because an instruction that the hypervisor below does not
//! handle may also hang.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Row;
use super::kvm_guest::{self, Progress, STAGES};
use crate::sys::process;

const NAME: &str = "/dev/kvm";

/// The guest runs two dozen instructions.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// A child's message: the stage whose number follows has passed.
const PASSED: u8 = b'+';
/// A child's message: the stage whose number follows has failed.
const FAILED: u8 = b'-';
/// A child's last message: the guest has come to its end.
const DONE: u8 = b'=';
/// A child's last message: the guest has not come to its end, for the reason in the text that follows.
const BROKEN: u8 = b'!';

/// What the probe found.
#[derive(Debug, Default)]
struct Outcome {
    passed: Vec<&'static str>,
    failed: Vec<&'static str>,
    /// Why the guest did not come to its end.
    broken: Option<String>,
}

/// Runs the guest, and reports the result.
pub fn row() -> Row {
    let outcome = match probe() {
        Ok(outcome) => outcome,
        Err(cause) => return Row::failed(NAME, format!("cannot probe it: {cause}"), "try again"),
    };
    let passed = outcome.passed.join(", ");
    match outcome {
        Outcome { passed: none, broken: Some(reason), .. } if none.is_empty() => {
            Row::failed(NAME, reason, device_remedy())
        }
        Outcome { failed, broken: None, .. } if failed.is_empty() => {
            Row::ok(NAME, format!("a guest ran {passed}"))
        }
        Outcome { failed, broken, .. } => {
            let failed = if failed.is_empty() {
                String::new()
            } else {
                format!("; KVM_EXIT_INTERNAL_ERROR on {}", failed.join(", "))
            };
            let broken = broken.map(|reason| format!("; then {reason}")).unwrap_or_default();
            Row::failed(
                NAME,
                format!("it opens, but cannot run a guest: passed {passed}{failed}{broken}"),
                "this host's own hypervisor does not virtualise that: use bare metal, or a cloud machine with \
                 complete nested virtualisation",
            )
        }
    }
}

fn device_remedy() -> &'static str {
    if std::path::Path::new("/dev/kvm").exists() {
        "give this user access to /dev/kvm (group kvm), and make sure that no other hypervisor uses the processor's \
         virtualisation"
    } else {
        "enable virtualisation in the firmware (or nested virtualisation in the cloud) and load kvm_intel or kvm_amd"
    }
}

fn probe() -> io::Result<Outcome> {
    let (mut reader, mut writer) = io::pipe()?;
    let body = || {
        let mut report = writer.try_clone().ok();
        let mut tell = |bytes: &[u8]| {
            if let Some(report) = &mut report {
                // A parent that has given up needs no report.
                let _ = report.write_all(bytes);
            }
        };
        let result = kvm_guest::run(&mut |progress| match progress {
            Progress::Passed(stage) => tell(&[PASSED, stage]),
            Progress::Failed(stage) => tell(&[FAILED, stage]),
        });
        match result {
            Ok(()) => tell(&[DONE]),
            Err(reason) => {
                tell(&[BROKEN]);
                tell(reason.as_bytes());
            }
        }
        0
    };
    // SAFETY: commands have one thread.
    let child = unsafe { process::clone(0, None, body) }?;
    writer.flush()?;
    drop(writer);
    let mut bytes = Vec::new();
    let in_time = read_until(&mut reader, &mut bytes, Instant::now() + TIME_LIMIT);
    child.kill();
    Ok(judge(&bytes, in_time?))
}

/// Reads to the end; false if the end does not come in time.
fn read_until(reader: &mut io::PipeReader, bytes: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        if ready == 0 {
            return Ok(false);
        }
        let mut chunk = [0; 256];
        let length = reader.read(&mut chunk)?;
        if length == 0 {
            return Ok(true);
        }
        bytes.extend_from_slice(&chunk[..length]);
    }
}

fn judge(bytes: &[u8], in_time: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut rest = bytes;
    let name = |stage: u8| STAGES.get(usize::from(stage)).map(|stage| stage.name);
    loop {
        match rest {
            [PASSED, stage, more @ ..] => (outcome.passed.extend(name(*stage)), rest = more),
            [FAILED, stage, more @ ..] => (outcome.failed.extend(name(*stage)), rest = more),
            [DONE, ..] if outcome.passed.len() + outcome.failed.len() == STAGES.len() => return outcome,
            [BROKEN, reason @ ..] => {
                outcome.broken = Some(String::from_utf8_lossy(reason).into_owned());
                return outcome;
            }
            _ => {
                let hung = format!("the guest hung for {} seconds", TIME_LIMIT.as_secs());
                let early = "the guest ended too early".to_owned();
                outcome.broken = Some(if in_time { early } else { hung });
                return outcome;
            }
        };
    }
}

#[cfg(test)]
#[path = "kvm_probe_test.rs"]
mod tests;

use std::process::{self, Command};

use super::*;
use crate::sys::process::waited_for_processor;
use crate::sys::signals;

const TIME: Duration = Duration::from_millis(1100);

/// The outcome of a wait for a silent VM whose VMM is this process; `meanwhile` runs beside it.
fn wait_for_silent(vmm: &process::Child, meanwhile: impl FnOnce() + Send) -> MachineError {
    let pidfd = Pidfd::open(vmm.id() as i32).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let directory = std::fs::File::open(directory.path()).unwrap();
    let (silent, _other) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| {
            let interrupts = signals::block_all().unwrap();
            let mut shared = Shared::new(pidfd, directory.as_fd(), interrupts).unwrap().with_timeout(TIME);
            shared.ready(silent.as_fd(), PollFlags::POLLIN, "an answer").unwrap_err()
        });
        meanwhile();
        wait.join().unwrap()
    })
}

#[test]
fn a_vm_that_waits_for_a_processor_gets_more_time() {
    let busy =
        || Command::new("taskset").args(["-c", "0", "sh", "-c", "while :; do :; done"]).spawn().unwrap();
    let mut all = [busy(), busy(), busy(), busy()];
    let pidfd = Pidfd::open(all[0].id() as i32).unwrap();
    let error = wait_for_silent(&all[0], || {
        while waited_for_processor(&pidfd) < 2 * TIME {
            std::thread::yield_now();
        }
        pidfd.signal(libc::SIGKILL).unwrap();
    });
    for child in &mut all {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(matches!(error, MachineError::SandboxEnded), "{error}");
}

#[test]
fn a_vm_that_sleeps_gets_no_more_time() {
    let mut idle = Command::new("sleep").arg("1000000").spawn().unwrap();
    let error = wait_for_silent(&idle, || ());
    idle.kill().unwrap();
    idle.wait().unwrap();
    assert!(matches!(error, MachineError::Silent { waited: TIME, .. }), "{error}");
}

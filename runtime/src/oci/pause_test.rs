use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Longest that the program may take to begin to wait.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn it_waits_and_leaves_no_zombie() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("pause");
    fs::write(&path, PROGRAM).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut child = Command::new(&path).spawn().expect("an executable");
    let begin = Instant::now();
    let ignores_sigchld = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("SigIgn").trim();
        u64::from_str_radix(mask, 16).expect("a mask") & 1 << (libc::SIGCHLD - 1) != 0
    };
    while !ignores_sigchld() {
        assert!(begin.elapsed() < LIMIT, "it does not ignore SIGCHLD");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(child.try_wait().expect("wait").is_none(), "it has ended");
    child.kill().expect("kill");
    child.wait().expect("wait");
}

//! Plays an attacker who has taken over a thread of the VMM, of its file server or of a relay: the feature `takeover` of those
//! crates has every thread try all of [`attempts`] right after its seccomp filter is in force, and report what came of each.
//! `tests/tests/takeover.rs` reads the reports.
//!
//! An attempt counts as *done* when it has got what it was after, not when a call has returned without an error: a root directory
//! that can be opened is no way out while there is nothing in it.

mod attempts;
mod call;

use std::ffi::CStr;

pub use attempts::ABSTRACT_SOCKET;

/// What a filter of this build does with a call that it does not allow, in place of killing the process: the call fails with an error
/// that no call has by itself here, so that the report tells what has held.
pub const MISMATCH: u32 = libc::SECCOMP_RET_ERRNO | FILTERED as u32;

/// That error.
pub const FILTERED: i32 = libc::ENOANO;

/// Where reports go, if the test has made the file.
pub const REPORT_FILE: &CStr = c"/tmp/stockade-takeover";

/// A file that the test has put into the root of every tree that the pod has.
pub const TREE_MARK: &CStr = c"a-tree-of-the-pod";

/// The report's descriptor: one that nothing else gets.
pub const REPORT: i32 = 200;

/// Opens the report, while the process still sees the host's files.
pub fn open_report() {
    // SAFETY: the path ends with a NUL, and the descriptor's number is this crate's.
    unsafe {
        let opened = libc::open(REPORT_FILE.as_ptr(), libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC);
        if opened >= 0 {
            libc::dup3(opened, REPORT, 0);
            libc::close(opened);
        }
    }
}

/// Tries everything as the thread of this name: one line each.
///
/// ```text
///  NAME: ATTEMPT: filtered
///  NAME: ATTEMPT: errno 1
///  NAME: ATTEMPT: DONE
/// ```
pub fn attempt_everything(name: &str) {
    let mut report = String::new();
    for (attempt, run) in attempts::all() {
        let outcome = match run() {
            Ok(()) => "DONE".to_owned(),
            Err(FILTERED) => "filtered".to_owned(),
            Err(errno) => format!("errno {errno}"),
        };
        report += &format!("{name}: {attempt}: {outcome}\n");
    }
    // SAFETY: writes bytes that outlive the call. It fails where the test has no report.
    unsafe { libc::write(REPORT, report.as_ptr().cast(), report.len()) };
}

//! The program `containerd-shim-stockade-v2`, which containerd executes once for each container: it only tells where the pod's shim
//! listens. For all else it becomes `stockade`, whose code a shim has.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use super::arguments::{Action, Arguments};
use super::settings::{RUNTIME, beside};
use super::{NAME, print_version, start};

/// The program, from its arguments to its exit status.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let launched = Arguments::parse(words.iter().cloned()).and_then(|arguments| match arguments.action {
        Action::Version => {
            print_version();
            Ok(())
        }
        Action::Start if start::finds(&arguments)? => Ok(()),
        _ => become_shim(&words),
    });
    launched.map_or_else(|error| super::fail(&error), |()| ExitCode::SUCCESS)
}

/// Whether `program`, the first word of a command line, means the shim.
pub fn is_meant(program: Option<OsString>) -> bool {
    program.is_some_and(|program| Path::new(&program).file_name() == Some(NAME.as_ref()))
}

/// Executes the runtime beside this program, or else the one in PATH, as the shim.
fn become_shim(words: &[OsString]) -> anyhow::Result<()> {
    let runtime = beside().unwrap_or_else(|| PathBuf::from(RUNTIME));
    let cause = Command::new(&runtime).arg0(NAME).args(words).exec();
    Err(cause)
        .with_context(|| format!("cannot execute {}, which is to be beside this program", runtime.display()))
}

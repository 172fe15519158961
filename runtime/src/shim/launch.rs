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

/// The variables by which a service manager talks to its service (sd_notify(3), sd_listen_fds(3)).
const OF_SERVICE: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

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
    let cause = shim(&runtime, words).exec();
    Err(cause)
        .with_context(|| format!("cannot execute {}, which is to be beside this program", runtime.display()))
}

/// The shim, without what containerd's service manager has told containerd: to a runtime it would mean that the container is
/// the service.
fn shim(runtime: &Path, words: &[OsString]) -> Command {
    let mut shim = Command::new(runtime);
    shim.arg0(NAME).args(words);
    for variable in OF_SERVICE {
        shim.env_remove(variable);
    }
    shim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_service_manager_is_not_the_containers() {
        let shim = shim(Path::new("stockade"), &["start".into()]);
        let changed: Vec<_> = shim.get_envs().collect();
        for variable in ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
            assert!(changed.contains(&(variable.as_ref(), None)), "{variable}: {changed:?}");
        }
    }
}

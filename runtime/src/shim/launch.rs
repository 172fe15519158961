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

/// What the service manager has told containerd, a service: it is not for containers, although they would be told it by a runtime that
/// has it in its environment, and could answer.
const OF_CONTAINERD: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Executes the runtime beside this program, or else the one in PATH, as the shim.
fn become_shim(words: &[OsString]) -> anyhow::Result<()> {
    let runtime = beside().unwrap_or_else(|| PathBuf::from(RUNTIME));
    let cause = shim(&runtime, words).exec();
    Err(cause)
        .with_context(|| format!("cannot execute {}, which is to be beside this program", runtime.display()))
}

fn shim(runtime: &Path, words: &[OsString]) -> Command {
    let mut shim = Command::new(runtime);
    shim.arg0(NAME).args(words);
    for variable in OF_CONTAINERD {
        shim.env_remove(variable);
    }
    shim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_do_not_speak_to_containerd_s_service_manager() {
        let program = shim(Path::new("/bin/sh"), &["-c".into(), "echo ${NOTIFY_SOCKET-none} $KEPT".into()])
            .env("KEPT", "kept")
            .output()
            .unwrap();
        assert_eq!(program.stdout, b"none kept\n");
        let mut shim = shim(Path::new("/bin/sh"), &[]);
        let removed = shim.env("KEPT", "kept").get_envs().filter(|(_, value)| value.is_none());
        assert_eq!(
            removed.map(|(name, _)| name).collect::<Vec<_>>(),
            ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"]
        );
    }
}

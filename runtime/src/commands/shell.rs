//! `stockade shell`: a shell in the guest itself, beside its agent, for debugging.
//!
//! The guest has no shell of its own. The host's configuration names one, which the guest is shown read-only for as
//! long as the shell runs.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use stockade_protocol::agent::{GUEST, SHARES};
use stockade_protocol::container::WindowSize;
use stockade_protocol::container::{Process, Scheduling, User};

use crate::config::Config;
use crate::life_cycle::{self, Exec, Handle};
use crate::options::Globals;
use crate::relay::preserve_fds::Preserved;
use crate::state::ContainerError;
use crate::vm::{Files, Tree, shares};

/// The shell's name in its share; a binary such as busybox, which holds several programs, runs the one of this name.
const NAME: &str = "sh";

/// Open a shell in a container's guest, outside of the container, to debug the guest.
#[derive(Debug, Args)]
#[command(after_help = "The key debug_shell in /etc/stockade/config.toml names a static shell of the host. \
The shell runs as root in the guest, and has no more access to the host than a container.

Examples:
  stockade shell mine
  echo 'cat /proc/meminfo' | stockade shell mine")]
pub struct Shell {
    /// ID of a container in the guest
    #[arg(value_name = "ID")]
    id: String,
}

impl Shell {
    /// Runs the shell; the exit status is the shell's.
    ///
    /// # Errors
    /// That there is no shell to run, or why it does not run.
    pub fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let shell = Config::load()?.debug_shell.context(
            "there is no shell in the guest; set `debug_shell` in /etc/stockade/config.toml to a static shell of the \
             host, such as \"/bin/busybox\", to allow one",
        )?;
        let handle = Handle::peek(globals, &self.id)?;
        handle.relay()?;
        let tree = Tree {
            source: shell,
            name: NAME.to_owned(),
            property: "debug_shell".to_owned(),
            readonly: true,
            ..Tree::default()
        };
        let share = Share::attach(&handle, &tree)?;
        let executed = life_cycle::exec(&Exec {
            handle: &handle,
            container: GUEST,
            labels: None,
            host_label: None,
            process: share.process(),
            cgroup: None,
            ignore_paused: true,
            pid_file: None,
            console_socket: None,
            pidfd_socket: None,
            preserved: Preserved::default(),
            detached: false,
        })?;
        let status = life_cycle::attend(&executed.signals, &executed.relay.process)?;
        drop(executed.raw);
        Ok(ExitCode::from(status))
    }
}

/// The shell's binary in the VM's share; dropping this removes it.
struct Share<'a> {
    handle: &'a Handle,
    name: String,
}

impl<'a> Share<'a> {
    fn attach(handle: &'a Handle, shell: &Tree) -> anyhow::Result<Self> {
        // No container's ID has this character.
        let share = Self { handle, name: format!("@shell-{}", std::process::id()) };
        let tree = shares::clone_tree(shell)?;
        let trees = vec![(shell.name.clone(), tree)];
        share.files()?.add_share(&share.name, trees, &mut handle.wait())?;
        Ok(share)
    }

    fn files(&self) -> anyhow::Result<Files> {
        let vmm = self.handle.vmm().ok_or(ContainerError::NotRunning)?;
        Ok(Files::connect(self.handle.directory.as_fd(), vmm.as_fd())?)
    }

    fn process(&self) -> Process {
        let directory = format!("{SHARES}/{}", self.name);
        let terminal = io::stdin().is_terminal().then(WindowSize::default);
        let name = std::env::var("TERM").ok().filter(|_| terminal.is_some());
        let env = [Some(format!("PATH={directory}:/bin")), name.map(|name| format!("TERM={name}"))];
        Process {
            args: vec![format!("{directory}/{NAME}")],
            env: env.into_iter().flatten().collect(),
            cwd: "/".to_owned(),
            user: User::default(),
            capabilities: None,
            rlimits: Vec::new(),
            no_new_privileges: false,
            oom_score_adj: None,
            terminal,
            streams: Vec::new(),
            scheduling: Scheduling::default(),
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let removed = self.files().and_then(|mut files| Ok(files.remove_share(&self.name)?));
        if let Err(error) = removed {
            // With its VM the share is gone too.
            tracing::debug!("share {}: {error}", self.name);
        }
    }
}

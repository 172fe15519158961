//! The commands, one per file: its options and what it does with them.

pub mod check;
pub mod checkpoint;
pub mod completion;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod exit_status;
pub mod features;
pub mod install;
pub mod kill;
pub mod list;
pub mod logs;
pub mod man;
pub mod metrics;
pub mod mounts;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod shell;
pub mod spec;
pub mod start;
pub mod state;
pub mod template;
pub mod top;
pub mod uninstall;
pub mod update;

use std::process::ExitCode;

use clap::Subcommand;

use crate::options::Globals;

/// The commands; each is a file.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Create a container, start it, and wait for its end
    Run(run::Run),
    /// Create a container; its process waits for `start`
    Create(create::Create),
    /// Start the process of a created container
    Start(start::Start),
    /// Execute another process in a container
    Exec(exec::Exec),
    /// Print a container's state as JSON
    State(state::State),
    /// List the containers
    List(list::List),
    /// List the processes of a container
    Ps(ps::Ps),
    /// Print a container's statistics and events as JSON lines
    Events(events::Events),
    /// Show live what containers and their VMs use
    Top(top::Top),
    /// Print what sandboxes and their containers use, for Prometheus
    Metrics(metrics::Metrics),
    /// Change the limits of a container
    Update(Box<update::Update>),
    /// Send a signal to a container
    Kill(kill::Kill),
    /// Freeze every process of a container
    Pause(pause::Pause),
    /// Let the processes of a paused container go on
    Resume(resume::Resume),
    /// Remove a container and everything it holds
    Delete(delete::Delete),
    /// Write a config.json to start from
    Spec(spec::Spec),
    /// Say whether this host can run microVMs, and what to do if it cannot
    Check(check::Check),
    /// Make, list and remove templates: saved VMs from which other VMs start
    Template(template::Template),
    /// Open a shell in a container's guest, outside of the container, to debug the guest
    Shell(shell::Shell),
    /// Print the console of a container's guest
    Logs(logs::Logs),
    /// Print as JSON which parts of config.json this runtime can apply
    Features(features::Features),
    /// Save a running container: refused, there are no snapshots yet
    Checkpoint(checkpoint::Checkpoint),
    /// Restore a saved container: refused, there are no snapshots yet
    Restore(restore::Restore),
    /// Change a container's mounts: refused, they are fixed when it is created
    Mounts(mounts::Mounts),
    /// Make this runtime known to an engine: podman, Docker, containerd, CRI-O
    Install(install::Install),
    /// Undo what install has changed in an engine's files
    Uninstall(uninstall::Uninstall),
    /// Print a shell's completion script
    Completion(completion::Completion),
    /// Write the manual pages
    Man(man::Man),
}

/// Executes the command; `definition` makes the command line's definition, for the commands that describe it.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(
    globals: &Globals,
    command: Command,
    definition: fn() -> clap::Command,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(command) => return command.run(globals),
        Command::Exec(command) => return command.run(globals),
        Command::Shell(command) => return command.run(globals),
        Command::Check(command) => return command.run(),
        Command::Create(command) => command.run(globals)?,
        Command::Start(command) => command.run(globals)?,
        Command::State(command) => command.run(globals)?,
        Command::List(command) => command.run(globals)?,
        Command::Ps(command) => command.run(globals)?,
        Command::Events(command) => command.run(globals)?,
        Command::Metrics(command) => command.run(globals)?,
        Command::Update(command) => command.run(globals)?,
        Command::Top(command) => command.run(globals)?,
        Command::Kill(command) => command.run(globals)?,
        Command::Pause(command) => command.run(globals)?,
        Command::Resume(command) => command.run(globals)?,
        Command::Delete(command) => command.run(globals)?,
        Command::Spec(command) => command.run(globals)?,
        Command::Logs(command) => command.run(globals)?,
        Command::Features(command) => command.run()?,
        Command::Template(command) => command.run()?,
        Command::Checkpoint(command) => command.run()?,
        Command::Restore(command) => command.run()?,
        Command::Mounts(command) => command.run()?,
        Command::Install(command) => command.run()?,
        Command::Uninstall(command) => command.run()?,
        Command::Completion(command) => command.run(definition())?,
        Command::Man(command) => command.run(definition())?,
    }
    Ok(ExitCode::SUCCESS)
}

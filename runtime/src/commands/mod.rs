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
pub mod top;
pub mod uninstall;
pub mod update;

use std::process::ExitCode;

use crate::cli::{Command, Globals};

/// Does what the command line asks for.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(globals: &Globals, command: Command) -> anyhow::Result<ExitCode> {
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
        Command::Checkpoint(command) => command.run()?,
        Command::Restore(command) => command.run()?,
        Command::Mounts(command) => command.run()?,
        Command::Install(command) => command.run()?,
        Command::Uninstall(command) => command.run()?,
        Command::Completion(command) => command.run()?,
        Command::Man(command) => command.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

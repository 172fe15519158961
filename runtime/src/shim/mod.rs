//! `containerd-shim-stockade-v2`: containerd's own way to this runtime, one process for each pod.
//!
//! ```text
//!   containerd ── ttrpc ──→ shim            one for each pod: answers, reaps, publishes events
//!       ↑                     ├─ executes → stockade create, start, exec, delete
//!       └──── events ─────────┤
//!                             └─ in itself: signals, pause, limits, statistics, the guest's events
//! ```
//!
//! The relays are its children, because it is their reaper, and have containerd's FIFOs as their streams. It keeps nothing that
//! is not in the records of `--root` but what containerd has told it: the FIFOs' names and the IDs of execs.

mod address;
mod arguments;
mod clean_up;
mod execute;
mod life;
mod messages;
mod metrics;
mod publisher;
mod rootfs;
mod server;
mod service;
mod settings;
mod start;
mod stdio;
mod tasks;
mod terminal;
mod wire;

use std::process::ExitCode;

use arguments::{Action, Arguments};

use crate::check::version;
use crate::log;

/// The program's name.
const NAME: &str = "containerd-shim-stockade-v2";

/// Bytes of a thread's stack; what is not used is not there.
const STACK: usize = 512 << 10;

/// The shim, from its arguments to its exit status.
pub fn main() -> ExitCode {
    let done = Arguments::parse(std::env::args_os().skip(1)).and_then(|arguments| match arguments.action {
        Action::Version => {
            println!("{NAME} {}", version::RUNTIME);
            Ok(())
        }
        Action::Start => start::run(arguments),
        Action::Delete => clean_up::run(&arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {}", log::explain(&error));
            ExitCode::FAILURE
        }
    }
}

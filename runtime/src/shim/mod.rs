//! `containerd-shim-stockade-v2`: containerd's own way to this runtime, one process for each pod.
//!
//! ```text
//!   containerd ── ttrpc ──→ shim            one for each pod: answers, reaps, publishes events
//!       ↑                     ├─ forks → stockade create, start, exec, delete
//!       └──── events ─────────┤
//!                             └─ in itself: the start of a pod's member, signals, pause, limits, statistics, the guest's events
//! ```
//!
//! The relays are its children, because it is their reaper, and have containerd's FIFOs as their streams. It keeps nothing that
//! is not in the records of `--root` but what containerd has told it: the FIFOs' names and the IDs of execs.

mod address;
mod arguments;
mod clean_up;
mod command;
mod ends;
mod execute;
mod guest;
mod id_maps;
mod launch;
mod let_go;
mod life;
mod messages;
mod metrics;
mod pod_bundle;
mod pod_config;
mod publisher;
mod rootfs;
mod sandbox;
mod sandbox_messages;
mod server;
mod service;
mod settings;
mod start;
mod stdio;
mod tasks;
mod terminal;
mod wire;
mod workers;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Action, Arguments};
pub use launch::{is_meant, main as launch};
use messages::{Any, RuntimeInfo, RuntimeVersion};
use prost::Message;

use crate::check::version;
use crate::commands::features;
use crate::log;

/// The program's name.
const NAME: &str = "containerd-shim-stockade-v2";

/// Bytes of a thread's stack, on which its forks go on; what is not used is not there.
const STACK: usize = 2 << 20;

/// The shim, which `stockade` is by this name, from its arguments to its exit status.
pub fn main() -> ExitCode {
    let done = Arguments::parse(std::env::args_os().skip(1)).and_then(|arguments| match arguments.action {
        Action::Version => {
            print_version();
            Ok(())
        }
        Action::Info => info(),
        Action::Start => start::run(arguments),
        Action::Delete => clean_up::run(&arguments),
    });
    done.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn print_version() {
    println!("{NAME} {}", version::RUNTIME);
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("{NAME}: {}", log::explain(error));
    ExitCode::FAILURE
}

/// Tells containerd, since version 2, what the runtime can do.
fn info() -> anyhow::Result<()> {
    let features = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
        value: features::features().to_string().into_bytes(),
    };
    let info = RuntimeInfo {
        name: "io.containerd.stockade.v2".to_owned(),
        version: Some(RuntimeVersion { version: version::RUNTIME.to_owned() }),
        features: Some(features),
    };
    Ok(std::io::stdout().write_all(&info.encode_to_vec())?)
}

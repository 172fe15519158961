//! `containerd-shim-stockade-v2`, which containerd runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_runtime::shim()
}

//! `stockade`, the command that engines and people run.

use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_runtime::main()
}

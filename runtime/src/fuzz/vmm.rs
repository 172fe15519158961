//! What a VMM answers that its guest has taken over.

use std::time::Duration;

use super::peer;
use crate::deadline::Deadline;
use crate::machine::{Control, shown};

/// An answer to the question that the first byte names.
pub fn run(input: &[u8]) {
    let Some((kind, words)) = input.split_first() else { return };
    let (stream, _vmm) = peer::saying(words);
    let mut control = Control::over(stream, peer::PATIENCE).unwrap();
    if let Err(error) = ask(&mut control, *kind) {
        let _ = error.to_string();
    }
}

fn ask(control: &mut Control, kind: u8) -> anyhow::Result<()> {
    match kind % 8 {
        0 => _ = control.figures()?,
        1 => _ = control.memory_mib()?,
        2 => _ = control.threads()?,
        3 => {
            let console = String::from_utf8_lossy(&control.console()?).into_owned();
            assert!(!shown(&console).contains(char::is_control), "it steers a terminal");
        }
        4 => _ = control.failures()?,
        5 => control.add_vcpus(2)?,
        6 => control.remove_device(1)?,
        _ => {
            _ = {
                let patience = Duration::from_millis(1);
                control.set_memory(512, patience, Deadline::within(peer::PATIENCE))?
            }
        }
    }
    Ok(())
}

//! What a VMM answers that its guest has taken over.

use std::time::Duration;

use super::peer;
use crate::sys::deadline::Deadline;
use crate::vm::{Control, call, shown};

/// An answer to the question that the first byte names.
pub fn run(input: &[u8]) {
    let Some((kind, words)) = input.split_first() else { return };
    let words = if kind & 0x80 == 0 { peer::welcomed_by_vmm(words) } else { words.to_vec() };
    let (stream, _vmm) = peer::saying(&words);
    let mut control = Control::over_by(stream, Deadline::within(peer::TIMEOUT)).unwrap();
    if let Err(error) = ask(&mut control, *kind) {
        let _ = error.to_string();
    }
}

fn ask(control: &mut Control, kind: u8) -> anyhow::Result<()> {
    match kind % 8 {
        0 => _ = control.call(call::ReadFigures())?,
        1 => _ = control.call(call::Memory())?,
        2 => _ = control.call(call::Threads())?,
        3 => {
            let console = String::from_utf8_lossy(&control.call(call::Console())?).into_owned();
            assert!(!shown(&console).contains(char::is_control), "it steers a terminal");
        }
        4 => _ = control.call(call::Failures())?,
        5 => control.call(call::AddVcpus(2))?,
        6 => control.call(call::RemoveDevice(1))?,
        _ => {
            _ = {
                let idle_timeout = Duration::from_millis(1);
                control.set_memory(512, idle_timeout, Deadline::within(peer::TIMEOUT))?
            }
        }
    }
    Ok(())
}

//! What an agent answers and tells, and what the commands make of it.

use std::os::unix::net::UnixStream;
use std::time::{Duration, UNIX_EPOCH};

use stockade_protocol::agent::{ProcessId, Purpose};

use super::peer;
use crate::commands::ps;
use crate::oci::container_id::ContainerId;
use crate::stats::{CgroupFiles, Stats};
use crate::vm::agent::{ClientError, Connection, Events, call};

/// A connection of the kind that the first byte names.
pub fn run(input: &[u8]) {
    let Some((kind, words)) = input.split_first() else { return };
    let words = if kind & 0x80 == 0 { peer::welcomed(words) } else { words.to_vec() };
    let (stream, _agent) = peer::saying(&words);
    let outcome = converse(kind & 0x7f, stream);
    if let Err(error) = outcome {
        let _ = error.to_string();
    }
}

fn converse(kind: u8, stream: UnixStream) -> Result<(), ClientError> {
    let wait = &mut peer::wait();
    let id = String::from("c");
    let purpose = if kind == 0 { Purpose::Events("c".into()) } else { Purpose::Control };
    let mut control = Connection::greet(stream, purpose, wait)?;
    match kind {
        0 => {
            let mut events = Events::over(control)?;
            // The end of what it says is an error.
            loop {
                events.receive()?;
            }
        }
        1 => {
            for name in control.call(call::Containers(), wait)? {
                let _ = name.parse::<ContainerId>();
            }
        }
        2 => {
            let files = CgroupFiles::new(control.call(call::CgroupFiles(id), wait)?);
            // JSON has all that comes of it.
            serde_json::to_string(&Stats::new(&files)).unwrap();
        }
        3 => {
            let processes = control.call(call::Processes(id), wait)?;
            let table = ps::table(&processes, UNIX_EPOCH + Duration::from_secs(1 << 31));
            assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "it steers a terminal: {table:?}");
        }
        4 => _ = control.call(call::State(id), wait)?,
        5 => control.call(call::Pause(id), wait)?,
        6 => control.call(call::Resume(id), wait)?,
        7 => control.call(call::Update(id, Vec::new()), wait)?,
        8 => control.call(call::SetCpus(2), wait)?,
        9 => control.call(call::Signal(id, 9, true), wait)?,
        10 => control.call(call::Delete(id), wait)?,
        _ => {
            let process = ProcessId { container: id, exec: None };
            control.call(call::Start(process), wait)?;
        }
    }
    Ok(())
}

//! What an agent answers and tells, and what the commands make of it.

use std::os::unix::net::UnixStream;
use std::time::{Duration, UNIX_EPOCH};

use stockade_protocol::agent::{ProcessId, Purpose};

use super::peer;
use crate::agent::{ClientError, Connection, Events};
use crate::commands::ps;
use crate::container_id::ContainerId;
use crate::stats::{CgroupFiles, Stats};

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
            for name in control.containers(wait)? {
                let _ = name.parse::<ContainerId>();
            }
        }
        2 => {
            let files = CgroupFiles::new(control.cgroup_files("c", wait)?);
            // JSON has all that comes of it.
            serde_json::to_string(&Stats::new(&files)).unwrap();
        }
        3 => {
            let processes = control.processes("c", wait)?;
            let table = ps::table(&processes, UNIX_EPOCH + Duration::from_secs(1 << 31));
            assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "it steers a terminal: {table:?}");
        }
        4 => _ = control.state("c", wait)?,
        5 => control.pause("c", wait)?,
        6 => control.resume("c", wait)?,
        7 => control.update("c", Vec::new(), wait)?,
        8 => control.set_cpus(2, wait)?,
        9 => control.signal("c", 9, true, wait)?,
        10 => control.delete("c", wait)?,
        _ => {
            let process = ProcessId { container: "c".into(), exec: None };
            control.start(&process, wait)?;
        }
    }
    Ok(())
}

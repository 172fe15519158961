//! Looking at all containers at the same time: one after the other, each VM that hangs would delay the rest.

use std::thread;

use crate::oci::container_id::ContainerId;
use crate::state::{Directory, Record, Root};

/// Largest number of containers that are looked at in parallel; each costs some descriptors.
const AT_A_TIME: usize = 64;

/// What was found.
#[derive(Debug)]
pub struct Outcomes<T> {
    /// The results of the containers, in the order of their IDs.
    pub found: Vec<T>,
    /// One line for each directory whose container is damaged or was never completed; it stays until it is deleted.
    pub problems: Vec<String>,
}

/// Looks at every container.
///
/// # Errors
/// When the directory of the containers' state cannot be read.
pub fn for_each<T: Send>(
    root: &Root,
    look: impl Fn(&Directory, Record) -> T + Sync,
) -> anyhow::Result<Outcomes<T>> {
    let mut outcomes = Outcomes { found: Vec::new(), problems: Vec::new() };
    for ids in root.containers()?.chunks(AT_A_TIME) {
        let looks = thread::scope(|scope| {
            let look = &look;
            let begin = |id| {
                let thread = thread::Builder::new().spawn_scoped(scope, move || look_at(root, id, look));
                // If no more threads can be started, the calling thread does the work.
                thread.map_err(|_| look_at(root, id, look))
            };
            let threads: Vec<_> = ids.iter().map(begin).collect();
            let looks = threads.into_iter().map(|begun| match begun {
                Ok(thread) => thread.join().ok().flatten(),
                Err(look) => look,
            });
            looks.flatten().collect::<Vec<_>>()
        });
        for look in looks {
            match look {
                Ok(found) => outcomes.found.push(found),
                Err(problem) => outcomes.problems.push(problem),
            }
        }
    }
    Ok(outcomes)
}

/// Looks at one container; `None` if it has just gone, or if nothing but its ID is known yet.
fn look_at<T>(
    root: &Root,
    id: &ContainerId,
    look: impl Fn(&Directory, Record) -> T,
) -> Option<Result<T, String>> {
    let directory = root.peek(id).ok()?;
    match directory.read() {
        Ok(Some(record)) => Some(Ok(look(&directory, record))),
        Ok(None) if directory.is_busy() => None,
        Ok(None) => {
            Some(Err(format!("container {id} was never created completely; delete --force removes it")))
        }
        Err(error) => Some(Err(format!("container {id}: {error:#}"))),
    }
}

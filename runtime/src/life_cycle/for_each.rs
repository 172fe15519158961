//! Looking at all containers at once: whoever asks many VMs one after the other waits for each that hangs.

use std::thread;

use crate::oci::container_id::ContainerId;
use crate::state::{Directory, Record, Root};

/// Containers that are looked at at the same time; each costs some descriptors.
const AT_A_TIME: usize = 64;

/// What was found.
#[derive(Debug)]
pub struct Outcomes<T> {
    /// Of every container, in the order of their IDs.
    pub found: Vec<T>,
    /// Of what is no container any more or not yet, and stays until it is deleted: one line each.
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
                // Where the caller may have no more threads, this one looks.
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

/// `None` for a container that has just gone, or that nothing is known of yet but its ID.
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

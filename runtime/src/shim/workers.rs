//! Threads for what waits: for a guest, for a command, for containerd. One that has nothing more to do stays for a moment, because
//! requests and events come in groups, and then ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::STACK;
use crate::log;

/// How long a thread waits for more to do.
const LINGERS: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

static WORKERS: Workers =
    Workers { state: Mutex::new(State { jobs: VecDeque::new(), idle: 0 }), changed: Condvar::new() };

struct Workers {
    state: Mutex<State>,
    changed: Condvar,
}

/// There are never more jobs than threads that are idle: each of these takes one before it ends.
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
}

/// Does a job in a thread that does nothing else meanwhile.
///
/// # Errors
/// When there can be no more threads.
pub fn run(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let job: Job = Box::new(job);
    let mut state = WORKERS.state();
    if state.idle > state.jobs.len() {
        state.jobs.push_back(job);
        WORKERS.changed.notify_one();
        return Ok(());
    }
    drop(state);
    thread::Builder::new().stack_size(STACK).spawn(|| WORKERS.work(job)).map(drop)
}

impl Workers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, first: Job) {
        let mut job = first;
        loop {
            job();
            log::about_nothing();
            let mut state = self.state();
            state.idle += 1;
            let waited = self.changed.wait_timeout_while(state, LINGERS, |state| state.jobs.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            let Some(next) = state.jobs.pop_front() else { return };
            job = next;
        }
    }
}

#[cfg(test)]
#[path = "workers_test.rs"]
mod tests;

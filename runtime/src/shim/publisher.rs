//! Events for containerd, in their order: they wait while containerd is not there, and go on when it is.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;

use super::arguments::Arguments;
use super::messages::{Any, Envelope, Forward, Request};
use super::{wire, workers};
use crate::sys::descriptors;

/// Largest number of events that wait. When containerd comes back, it asks for the tasks' states; what an overflow
/// loses is the oldest.
const MAX_WAITING: usize = 4096;

/// Time between two attempts while containerd is not there.
const PAUSE: Duration = Duration::from_secs(1);

/// How long containerd may take to accept one event.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Debug)]
pub struct Publisher {
    namespace: String,
    /// containerd's ttrpc socket.
    socket: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Envelope>,
    /// Whether a thread delivers.
    is_busy: bool,
    connection: Option<UnixStream>,
    last_id: u32,
}

impl Publisher {
    /// The publisher of the shim with these arguments and this ttrpc socket of containerd, if it has named one.
    pub fn new(arguments: &Arguments, ttrpc: Option<String>) -> Self {
        Self {
            namespace: arguments.namespace.clone(),
            socket: ttrpc.unwrap_or_else(|| format!("{}.ttrpc", arguments.address)),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event after those before it; this never waits.
    pub fn publish(&'static self, topic: &str, event: Any) {
        let mut state = self.state();
        if state.waiting.len() >= MAX_WAITING {
            state.waiting.pop_front();
            tracing::warn!("containerd takes no events; the oldest of {MAX_WAITING} is lost");
        }
        state.waiting.push_back(Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event),
        });
        if !state.is_busy {
            // Without a thread, the next event tries again.
            state.is_busy = workers::run(|| self.deliver()).is_ok();
        }
    }

    /// Waits until all is delivered, or until the time is over.
    pub fn flush(&self, within: Duration) {
        let end = Instant::now() + within;
        let mut state = self.state();
        while state.is_busy {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("containerd has not taken {} events", state.waiting.len());
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn deliver(&self) {
        let mut is_told = false;
        loop {
            let mut state = self.state();
            let Some(envelope) = state.waiting.pop_front() else {
                state.is_busy = false;
                self.changed.notify_all();
                return;
            };
            let connection = state.connection.take();
            state.last_id = state.last_id.wrapping_add(2) | 1;
            let id = state.last_id;
            drop(state);
            match self.forward(&envelope, connection, id) {
                Ok(connection) => {
                    is_told = false;
                    self.state().connection = connection;
                }
                Err(cause) => {
                    if !is_told {
                        tracing::warn!("cannot publish {}, and tries again: {cause}", envelope.topic);
                        is_told = true;
                    }
                    self.state().waiting.push_front(envelope);
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Delivers one event; a connection that containerd has closed meanwhile is replaced.
    fn forward(
        &self,
        envelope: &Envelope,
        connection: Option<UnixStream>,
        id: u32,
    ) -> io::Result<Option<UnixStream>> {
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: Forward { envelope: Some(envelope.clone()) }.encode_to_vec(),
        };
        let former = connection.and_then(|connection| {
            let answer = wire::call(&connection, id, &request).ok()?;
            Some((connection, answer))
        });
        let (connection, answer) = match former {
            Some(delivered) => delivered,
            None => {
                let connection = descriptors::connect_in_time(self.socket.as_ref())?;
                connection.set_read_timeout(Some(ACCEPTED_WITHIN))?;
                connection.set_write_timeout(Some(ACCEPTED_WITHIN))?;
                let answer = wire::call(&connection, id, &request)?;
                (connection, answer)
            }
        };
        if let Err(refusal) = answer {
            // It would be refused again.
            tracing::warn!("containerd refuses {}: {refusal}", envelope.topic);
        }
        Ok(Some(connection))
    }
}

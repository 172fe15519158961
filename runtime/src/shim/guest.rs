//! A connection on which a guest tells what becomes of a container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stockade_protocol::agent::ContainerEvent;

use crate::vm::agent::{ClientError, Events};

/// How long a guest is not listened to after it has told something. containerd keeps every event until all its clients have taken
/// it, and its CRI plug-in writes a file for each out-of-memory event, so a guest could occupy it for all pods.
const PACE: Duration = Duration::from_secs(1);

/// A connection to a guest: the main thread waits for it, and whoever tells a container's end reads the rest.
#[derive(Debug)]
pub struct Guest {
    fd: OwnedFd,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    events: Events,
    /// When it is listened to again.
    next: Instant,
}

/// What has come from a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub is_out_of_memory: bool,
    /// Whether the connection has ended.
    pub is_over: bool,
}

impl Guest {
    /// Takes over a connection.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub fn new(events: Events) -> io::Result<Arc<Self>> {
        let fd = events.as_fd().try_clone_to_owned()?;
        Ok(Arc::new(Self { fd, heard: Mutex::new(Heard { events, next: Instant::now() }) }))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is not listened to yet.
    pub fn quiet_for(&self) -> Duration {
        self.heard().next.saturating_duration_since(Instant::now())
    }

    /// Reads what has come about container `id`, at most so many times. It never waits.
    pub fn hear(&self, id: &str, times: usize) -> News {
        let mut heard = self.heard();
        let mut news = News::default();
        for _ in 0..times {
            match heard.events.receive() {
                Ok(found) if found.is_empty() => break,
                Ok(found) => {
                    for ContainerEvent::OutOfMemory { .. } in found {
                        news.is_out_of_memory = true;
                    }
                }
                Err(error) => {
                    if !matches!(error, ClientError::Closed) {
                        tracing::warn!("events of container {id}: {error}");
                    }
                    news.is_over = true;
                    break;
                }
            }
        }
        if news.is_out_of_memory {
            heard.next = Instant::now() + PACE;
        }
        news
    }
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod tests;

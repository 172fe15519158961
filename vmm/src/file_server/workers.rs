//! The threads that answer requests: there is always one more than the busy ones.
//!
//! A request may block as long as its file blocks, so it has a thread of its own. When the last idle thread gets a request,
//! it starts another thread, up to a limit that the device's turns keep far away. Idle threads stay: each costs a few pages,
//! and a burst that needed them may come again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    devices::fs::channel::{ChannelError, ServerEnd, Wanted},
    files::{FileServer, ThreadState},
};

/// Largest number of threads. Only if more than a quarter as many shares were stuck, others would have to wait.
const MAX: usize = 64;

/// Stack of a thread, in bytes.
const STACK: usize = 256 << 10;

/// Why a thread cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The channel to the device failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The host has no threads left.
    #[error("a thread of the file server: {0}")]
    Thread(#[from] io::Error),
}

/// What the threads share.
#[derive(Debug)]
pub struct Workers {
    server: Arc<FileServer>,
    channel: ServerEnd,
    /// Called when a thread cannot go on.
    on_failure: fn(&WorkerError),
    idle: AtomicUsize,
    threads: AtomicUsize,
}

impl Workers {
    /// Starts the first thread, which calls `confine` for itself and all threads that it starts.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(
        server: Arc<FileServer>,
        channel: ServerEnd,
        confine: impl FnOnce() -> io::Result<()> + Send + 'static,
        on_failure: fn(&WorkerError),
    ) -> io::Result<()> {
        let workers = Arc::new(Self {
            server,
            channel,
            on_failure,
            idle: AtomicUsize::new(0),
            threads: AtomicUsize::new(1),
        });
        spawn(move || {
            if let Err(error) = confine().map_err(WorkerError::from).and_then(|()| workers.serve()) {
                (workers.on_failure)(&error);
            }
        })
    }

    fn serve(self: &Arc<Self>) -> Result<(), WorkerError> {
        let mut state = ThreadState::new()?;
        loop {
            self.idle.fetch_add(1, Ordering::Relaxed);
            let wanted = self.channel.next()?;
            if self.idle.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.grow();
            }
            match wanted {
                Wanted::Reset => {
                    self.server.reset();
                    self.channel.has_reset()?;
                }
                Wanted::Request { slot, request, room } => {
                    #[cfg(feature = "takeover")]
                    try_to_get_out();
                    match self.server.handle(&mut state, self.channel.slot(slot), request, room) {
                        Ok(length) => self.channel.reply(slot, length)?,
                        Err(malformed) => self.channel.malformed(slot, &malformed.to_string())?,
                    }
                }
            }
        }
    }

    /// Starts another thread, if there may be one.
    fn grow(self: &Arc<Self>) {
        if self.threads.fetch_add(1, Ordering::Relaxed) < MAX {
            let workers = Arc::clone(self);
            let serve = move || {
                if let Err(error) = workers.serve() {
                    (workers.on_failure)(&error);
                }
            };
            if spawn(serve).is_ok() {
                return;
            }
        }
        // The existing threads go on.
        self.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tries the attempts again when the server has trees.
#[cfg(feature = "takeover")]
fn try_to_get_out() {
    /// After this number of requests, a container's program has been looked up.
    const REQUESTS: usize = 40;
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    if SEEN.fetch_add(1, Ordering::Relaxed) == REQUESTS {
        stockade_takeover::attempt_everything("vmm FileWorker with trees");
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(body).map(drop)
}

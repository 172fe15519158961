//! The end of a scrape whose peers take for ever: a guest that has taken its VMM over sends a byte at a time.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Stack of the thread that waits, in bytes.
const STACK: usize = 64 << 10;

/// Connections that are shut down after some time, unless this is dropped before.
#[derive(Debug)]
pub struct CutOff {
    streams: Arc<Streams>,
    /// Dropped, it ends the thread that waits.
    _over: Sender<()>,
}

/// `None` once the time is over.
#[derive(Debug)]
struct Streams(Mutex<Option<Vec<UnixStream>>>);

impl CutOff {
    /// None yet.
    ///
    /// # Errors
    /// When there can be no thread that waits.
    pub fn after(time: Duration) -> io::Result<Self> {
        let streams = Arc::new(Streams(Mutex::new(Some(Vec::new()))));
        let (over, is_over) = channel();
        let theirs = Arc::clone(&streams);
        let wait = move || wait(&is_over, time, &theirs);
        thread::Builder::new().name("metrics-end".into()).stack_size(STACK).spawn(wait)?;
        Ok(Self { streams, _over: over })
    }

    /// This one too.
    ///
    /// # Errors
    /// `TimedOut` when the time is over, or dup(2)'s.
    pub fn cover(&self, stream: &UnixStream) -> io::Result<()> {
        let mut streams = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = streams.as_mut().ok_or(io::ErrorKind::TimedOut)?;
        streams.push(stream.try_clone()?);
        Ok(())
    }
}

fn wait(is_over: &Receiver<()>, time: Duration, streams: &Streams) {
    if is_over.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
        let streams = streams.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        for stream in streams.iter().flatten() {
            // Of one that has ended nothing is left to be shut down.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
#[path = "cut_off_test.rs"]
mod tests;

//! A task's terminal: the relay has the slave, and the shim copies between the master and containerd's FIFOs, by two threads that
//! end with the task.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade_protocol::container::WindowSize;

use super::STACK;
use super::stdio::Streams;
use crate::sys::{descriptors, terminal};

/// Bytes that are copied at a time.
const CHUNK: usize = 4 << 10;

/// Room for the name that comes with the master.
const NAME: usize = 256;

/// The socket at which the runtime delivers a terminal's master, in the bundle.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    /// Makes the socket `name` in the bundle.
    ///
    /// # Errors
    /// bind(2)'s.
    pub fn new(bundle: &Path, name: &str) -> anyhow::Result<Self> {
        let path = bundle.join(name);
        let listen = || {
            let listener = descriptors::listen(File::open(bundle)?.as_fd(), name)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let listener = listen().with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Self { listener, path })
    }

    /// The master, which a command that has succeeded has sent.
    ///
    /// # Errors
    /// When there is none.
    pub fn receive(&self) -> anyhow::Result<OwnedFd> {
        let receive = || {
            let (stream, _) = self.listener.accept()?;
            let (_, mut sent) = descriptors::receive(stream.as_fd(), &mut [0; NAME])?;
            sent.pop().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        receive().context("the runtime has sent no terminal")
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // The bundle goes soon.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The terminal of a task that runs.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<OwnedFd>,
    delivered: Arc<Delivered>,
}

/// Whether all output has been copied.
#[derive(Debug, Default)]
pub struct Delivered {
    is_done: Mutex<bool>,
    changed: Condvar,
}

impl Delivered {
    fn done(&self) {
        *self.is_done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it has, or the time is over.
    pub fn wait(&self, within: Duration) {
        let is_done = self.is_done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_done, within, |is_done| !*is_done);
        drop(waited);
    }
}

impl Terminal {
    /// Begins to copy.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn attend(master: OwnedFd, streams: Streams) -> io::Result<Self> {
        let master = Arc::new(master);
        let delivered = Arc::new(Delivered::default());
        let Streams { stdin, stdout, stderr: _ } = streams;
        let (from, done) = (File::from(master.try_clone()?), Arc::clone(&delivered));
        thread::Builder::new().stack_size(STACK).spawn(move || {
            copy_output(from, File::from(stdout));
            done.done();
        })?;
        let to = File::from(master.try_clone()?);
        thread::Builder::new().stack_size(STACK).spawn(move || copy_input(File::from(stdin), to))?;
        Ok(Self { master, delivered })
    }

    /// Sets the size, of which the relay then tells the guest.
    ///
    /// # Errors
    /// ioctl(2)'s.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        terminal::set_size(self.master.as_fd(), size)
    }

    /// What tells that all output has been copied.
    pub fn delivered(&self) -> Arc<Delivered> {
        Arc::clone(&self.delivered)
    }
}

/// Copies until the slave is closed, which a master reports as an error.
fn copy_output(mut master: File, mut output: File) {
    let mut bytes = [0; CHUNK];
    loop {
        match master.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                if output.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Copies until there is no more input, or until the slave is closed.
fn copy_input(mut input: File, mut master: File) {
    let mut bytes = [0; CHUNK];
    loop {
        let mut fds =
            [PollFd::new(input.as_fd(), PollFlags::POLLIN), PollFd::new(master.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if fds[1].any().unwrap_or(true) {
            return;
        }
        match input.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if master.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
        }
    }
}

//! Trees for the guest, handed to the VM's file server.
//!
//! A tree is a cloned mount that nobody sees but who has its descriptor. Nothing is mounted in the VM's namespace, and nothing
//! has to be unmounted: the file server closes what a share has when it is removed or the VM ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use stockade_protocol::frame::{self, FrameError};
use stockade_protocol::vmm::{FilesRequest, FilesResponse};
use stockade_sys::fd_passing;

use super::FILES_SOCKET;
use super::{MachineError, Wait};
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;
use crate::sys::process::ProcessRef;

/// How long a message may take once it has begun, and an answer at all where the caller does not wait for something else too.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the removal of a share may take. What its files' servers hold up ends with the VM.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// Longest answer, in bytes.
const LONGEST: usize = 64 << 10;

/// Why the guest does not get its files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such socket, or nobody accepts.
    #[error("cannot reach the VM's file server: {0}")]
    Connect(io::Error),
    /// The connection failed.
    #[error("the VM's file server does not answer: {0}")]
    Frame(#[from] FrameError),
    /// The VM is not going to answer.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The server closed the connection.
    #[error("the VM's file server closed its connection")]
    Closed,
    /// The server's own explanation.
    #[error("the VM's file server refused: {0}")]
    Refused(String),
}

/// A connection to a file server.
#[derive(Debug)]
pub struct Files(UnixStream);

impl Files {
    /// Connects to the file server of the VM whose sockets are in `folder`. It answers once it has begun.
    ///
    /// # Errors
    /// [`FilesError::Connect`].
    pub fn connect(folder: BorrowedFd<'_>) -> Result<Self, FilesError> {
        let stream = descriptors::connect(folder, FILES_SOCKET).map_err(FilesError::Connect)?;
        // For what is sent with descriptors, in one piece.
        stream.set_write_timeout(Some(TIMEOUT)).map_err(FilesError::Connect)?;
        Ok(Self(stream))
    }

    /// The server's process; `None` for a connection that is older than it.
    pub fn server(&self) -> Option<ProcessRef> {
        let peer = getsockopt(&self.0, PeerCredentials).ok()?.pid();
        // Before the server has taken the socket over, it is this process's own.
        ProcessRef::of(peer).filter(|_| peer != std::process::id() as i32)
    }

    /// Adds a share with these trees.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn add_share(
        &mut self,
        name: &str,
        trees: &[(String, OwnedFd)],
        wait: &mut impl Wait,
    ) -> Result<(), FilesError> {
        self.ask(&FilesRequest::AddShare { name: name.to_owned() }, &[], wait)?;
        self.add_trees(name, trees, wait)
    }

    /// Shows trees in a share that there is. What it has of the same name stays.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn add_trees(
        &mut self,
        share: &str,
        trees: &[(String, OwnedFd)],
        wait: &mut impl Wait,
    ) -> Result<(), FilesError> {
        for trees in trees.chunks(descriptors::PER_MESSAGE) {
            let names = trees.iter().map(|(name, _)| name.clone()).collect();
            let raw: Vec<RawFd> = trees.iter().map(|(_, tree)| tree.as_raw_fd()).collect();
            self.ask(&FilesRequest::AddTrees { share: share.to_owned(), names }, &raw, wait)?;
        }
        Ok(())
    }

    /// Removes a share, and all that the guest has open there.
    ///
    /// # Errors
    /// [`FilesError`]; that it takes too long is one.
    pub fn remove_share(&mut self, name: &str) -> Result<(), FilesError> {
        self.send(&FilesRequest::RemoveShare { name: name.to_owned() }, &[])?;
        self.answer(Deadline::within(REMOVED_WITHIN))
    }

    fn ask(
        &mut self,
        request: &FilesRequest,
        descriptors: &[RawFd],
        wait: &mut impl Wait,
    ) -> Result<(), FilesError> {
        self.send(request, descriptors)?;
        wait.begin();
        wait.ready(self.0.as_fd(), PollFlags::POLLIN, "the VM's file server")?;
        self.answer(Deadline::within(TIMEOUT))
    }

    fn send(&self, request: &FilesRequest, descriptors: &[RawFd]) -> Result<(), FilesError> {
        let frame = frame::encode(request)?;
        Ok(fd_passing::send(self.0.as_fd(), &frame, descriptors).map_err(FrameError::from)?)
    }

    fn answer(&self, deadline: Deadline) -> Result<(), FilesError> {
        match frame::read(&mut deadline.on(&self.0), LONGEST)?.ok_or(FilesError::Closed)? {
            FilesResponse::Done => Ok(()),
            FilesResponse::Error(reason) => Err(FilesError::Refused(reason)),
        }
    }
}

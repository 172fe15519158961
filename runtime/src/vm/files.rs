//! Trees for the guest, handed to the VM's file server.
//!
//! A tree is a cloned mount that is visible only through its descriptor. Nothing is mounted in the VM's namespace, and
//! nothing has to be unmounted: the file server closes the trees of a share when the share is removed or the VM ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use stockade_protocol::call::{Call, Response as _};
use stockade_protocol::frame::FrameError;
use stockade_protocol::vmm::{FilesRequest, FilesResponse, VERSION, call};

use super::control::{Control, ControlError};
use super::exchange::{Exchange, ExchangeError, Mismatch};
use super::{FILES_SOCKET, MachineError, Wait, mounted};
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;
use crate::sys::process::ProcessRef;

/// Time limit for a message that has begun, and for an answer if the caller does not also wait for something else.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the removal of a share may take. If the servers of its files delay it, it ends with the VM.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// Longest answer, in bytes.
const LIMIT: usize = 64 << 10;

/// Why the guest does not get its files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The socket does not exist, or nobody accepts.
    #[error("cannot reach the VM's file server: {0}")]
    Connect(io::Error),
    /// The connection failed.
    #[error("the VM's file server does not answer: {0}")]
    Frame(#[from] FrameError),
    /// The VM will not answer.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The server closed the connection.
    #[error("the VM's file server closed its connection")]
    Closed,
    /// The server's own error.
    #[error("the VM's file server refused: {0}")]
    Refused(String),
    /// The server is of a release that speaks another version.
    #[error(transparent)]
    Version(Mismatch),
    /// The VMM of 0.1 refuses to serve what is mounted for it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Nothing can be mounted for the VMM of 0.1.
    #[error("cannot mount the container's files for the VM: {0}")]
    Mount(io::Error),
}

impl From<ExchangeError> for FilesError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Frame(error) => Self::Frame(error),
            ExchangeError::Closed => Self::Closed,
            ExchangeError::Version(mismatch) => Self::Version(mismatch),
        }
    }
}

/// A connection that gives trees to a VM's guest.
#[derive(Debug)]
pub struct Files(Server);

#[derive(Debug)]
enum Server {
    /// A file server, which gets descriptors.
    Process(Exchange),
    /// The VMM of 0.1, in whose mount namespace the trees are mounted.
    Mounts(Control, OwnedFd),
}

impl Files {
    /// Connects to the file server of this VMM's VM, whose sockets are in `directory`. The server answers once it has
    /// started.
    ///
    /// # Errors
    /// [`FilesError::Connect`].
    pub fn connect(directory: BorrowedFd<'_>, vmm: BorrowedFd<'_>) -> Result<Self, FilesError> {
        let server = match descriptors::connect(directory, FILES_SOCKET) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Control::connect(directory).and_then(|control| {
                    // Nobody enters the mount namespace of a VMM that has a file server.
                    control.has::<call::AddShare>().map_err(io::Error::other)?;
                    Ok(Server::Mounts(control, vmm.try_clone_to_owned()?))
                })
            }
            connected => connected
                .and_then(|stream| Exchange::new(stream, FILES_SOCKET, VERSION, LIMIT, TIMEOUT))
                .map(Server::Process),
        };
        server.map(Self).map_err(FilesError::Connect)
    }

    /// The server's process; `None` if the connection was made before the server started, or if the server is the VMM.
    pub fn server(&self) -> Option<ProcessRef> {
        let Server::Process(exchange) = &self.0 else { return None };
        let peer = getsockopt(&exchange.as_fd(), PeerCredentials).ok()?.pid();
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
        trees: Vec<(String, OwnedFd)>,
        wait: &mut impl Wait,
    ) -> Result<(), FilesError> {
        match &mut self.0 {
            Server::Process(exchange) => ask(exchange, call::files::AddShare(name.to_owned()), &[], wait)?,
            Server::Mounts(control, vmm) => {
                mounted::attach(vmm.as_fd(), name, &trees).map_err(FilesError::Mount)?;
                return Ok(control.call(call::AddShare(name.to_owned()))?);
            }
        }
        self.add_trees(name, trees, wait)
    }

    /// Shows trees in an existing share. A tree of the same name in it stays.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn add_trees(
        &mut self,
        share: &str,
        trees: Vec<(String, OwnedFd)>,
        wait: &mut impl Wait,
    ) -> Result<(), FilesError> {
        let exchange = match &mut self.0 {
            Server::Process(exchange) => exchange,
            Server::Mounts(_, vmm) => {
                return mounted::attach_more(vmm.as_fd(), share, &trees).map_err(FilesError::Mount);
            }
        };
        let mut trees = trees.into_iter().peekable();
        while trees.peek().is_some() {
            let (names, trees): (_, Vec<_>) = trees.by_ref().take(descriptors::PER_MESSAGE).unzip();
            ask(exchange, call::files::AddTrees(share.to_owned(), names), &trees, wait)?;
        }
        Ok(())
    }

    /// Removes a share, and all that the guest has open there.
    ///
    /// # Errors
    /// [`FilesError`]; taking too long is also an error.
    pub fn remove_share(&mut self, name: &str) -> Result<(), FilesError> {
        match &mut self.0 {
            Server::Process(exchange) => {
                let deadline = Deadline::within(REMOVED_WITHIN);
                exchange.send(&call::files::RemoveShare(name.to_owned()).request(), &[], deadline)?;
                answer::<call::files::RemoveShare>(exchange, deadline)
            }
            Server::Mounts(control, vmm) => {
                control.call(call::RemoveShare(name.to_owned()))?;
                mounted::detach(vmm.as_fd(), name).map_err(FilesError::Mount)
            }
        }
    }
}

fn ask<C>(
    exchange: &mut Exchange,
    call: C,
    descriptors: &[OwnedFd],
    wait: &mut impl Wait,
) -> Result<(), FilesError>
where
    C: Call<Request = FilesRequest, Response = FilesResponse, Answer = ()>,
{
    exchange.send(&call.request(), descriptors, Deadline::within(TIMEOUT))?;
    wait.begin();
    wait.ready(exchange.as_fd(), PollFlags::POLLIN, "the VM's file server")?;
    answer::<C>(exchange, Deadline::within(TIMEOUT))
}

fn answer<C>(exchange: &mut Exchange, deadline: Deadline) -> Result<C::Answer, FilesError>
where
    C: Call<Request = FilesRequest, Response = FilesResponse>,
{
    let response: FilesResponse = exchange.receive(deadline)?;
    C::answer(response.accepted().map_err(FilesError::Refused)?).ok_or(FilesError::Closed)
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;

//! Requests of the runtime on the `files` socket, about shares and the trees in them.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use stockade_protocol::{
    frame::FrameBuffer,
    vmm::{FilesRequest, FilesResponse, MAX_TREES},
};
use stockade_sys::fd_passing;

use crate::{files::FileServer, greeting::Greeting};

/// Longest request, in bytes: names of trees.
const REQUEST_LIMIT: usize = 128 << 10;

/// Bytes that are read at a time.
const PIECE: usize = 4 << 10;

/// How long the runtime may take to read a response before its connection is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Stack of a thread that removes a share, in bytes.
const STACK: usize = 128 << 10;

const LISTENER: u64 = 0;
const FIRST_CONNECTION: u64 = 1;

struct Connection {
    stream: UnixStream,
    greeting: Greeting,
    requests: FrameBuffer,
    /// Descriptors that belong to the next complete request.
    descriptors: Vec<OwnedFd>,
}

/// Serves as long as the process lives.
///
/// # Errors
/// epoll(7) fails.
pub fn serve(listener: &UnixListener, server: &Arc<FileServer>) -> Result<(), Errno> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let watch = |fd: BorrowedFd<'_>, token| epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token));
    watch(listener.as_fd(), LISTENER)?;
    let mut connections = HashMap::<u64, Connection>::new();
    let mut next = FIRST_CONNECTION;
    let mut events = [EpollEvent::empty(); 8];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in &events[..ready] {
            let token = event.data();
            if token == LISTENER {
                // The client has gone already, or there is no descriptor left for it, and it sees the connection end.
                if let Ok((stream, _)) = listener.accept()
                    && prepare(&stream).is_ok()
                    && watch(stream.as_fd(), next).is_ok()
                {
                    let requests = FrameBuffer::new(REQUEST_LIMIT);
                    let greeting = Greeting::default();
                    let connection = Connection { stream, greeting, requests, descriptors: Vec::new() };
                    connections.insert(next, connection);
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&token)
                && answer(connection, server).is_err()
            {
                // Dropping a connection closes it, which ends its registration too.
                connections.remove(&token);
            }
        }
    }
}

fn prepare(stream: &UnixStream) -> io::Result<()> {
    // Blocking, for the answers: reading happens only when there is something to read.
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))
}

/// Reads what has come and answers what is complete; an error drops the connection.
fn answer(connection: &mut Connection, server: &Arc<FileServer>) -> io::Result<()> {
    let mut bytes = [0; PIECE];
    let before = connection.descriptors.len();
    let length = fd_passing::receive(&connection.stream, &mut bytes, MAX_TREES, &mut connection.descriptors)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if before > 0 && connection.descriptors.len() > before {
        // Two requests at once: whose descriptors are these?
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors in the middle of a request"));
    }
    connection.requests.extend(&bytes[..length]);
    let Connection { stream, greeting, requests, .. } = connection;
    if !greeting.hear(requests, stream)? {
        return Ok(());
    }
    while let Some(request) = requests.next().map_err(io::Error::other)? {
        let trees = std::mem::take(&mut connection.descriptors);
        match request {
            FilesRequest::RemoveShare { name } => {
                greeting.welcome(stream)?;
                remove(name, stream, server)?;
            }
            request => greeting.answer(stream, &response(add(request, trees, server)))?,
        }
    }
    Ok(())
}

fn response(result: Result<(), String>) -> FilesResponse {
    result.map_or_else(FilesResponse::Error, |()| FilesResponse::Done)
}

/// Removes a share on a thread of its own: closing a file of a file system that hangs may take for ever.
fn remove(name: String, stream: &UnixStream, server: &Arc<FileServer>) -> io::Result<()> {
    let (stream, server) = (stream.try_clone()?, Arc::clone(server));
    let remove = move || {
        // The client may have gone.
        let removed = server.remove_share(&name).map_err(|error| error.to_string());
        let _ = Greeting::Done.answer(&stream, &response(removed));
    };
    thread::Builder::new().name("remove".into()).stack_size(STACK).spawn(remove).map(drop)
}

fn add(request: FilesRequest, trees: Vec<OwnedFd>, server: &FileServer) -> Result<(), String> {
    let done = match request {
        FilesRequest::RemoveShare { .. } => Ok(()),
        FilesRequest::AddShare { name } => server.add_share(&name),
        FilesRequest::AddTrees { share, names } => {
            if names.len() != trees.len() {
                return Err(format!("{} names of trees came with {} descriptors", names.len(), trees.len()));
            }
            server.add_trees(&share, names.into_iter().zip(trees).collect())
        }
    };
    done.map_err(|error| error.to_string())
}

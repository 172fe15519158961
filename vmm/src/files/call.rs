//! One request, and what the nodes name that it is about.

use std::sync::Arc;

use super::{
    FileServer, ThreadState,
    abi::ROOT_NODE,
    nodes::{NUMBER_BITS, Node},
    reply::Reply,
    request::{Failure, Request, refuse},
    share::{self, Share},
    share_of,
    sys::Errno,
};

/// One request with all that its operation needs.
pub struct Call<'a> {
    /// Who serves.
    pub server: &'a FileServer,
    /// Who works.
    pub thread: &'a mut ThreadState,
    /// What is asked.
    pub request: Request<'a>,
    /// Where the answer goes.
    pub reply: Reply<'a>,
}

/// What a node's number names.
pub enum Place {
    /// The file system's root.
    Root,
    /// A share's directory.
    Share(Arc<Share>),
    /// A file or directory of the host.
    Node(Arc<Share>, Arc<Node>),
}

impl Call<'_> {
    /// What the request is about.
    pub fn place(&self) -> Result<Place, Errno> {
        self.place_of(self.request.header.nodeid)
    }

    /// What this number names.
    pub fn place_of(&self, number: u64) -> Result<Place, Errno> {
        let unknown = Errno::new(libc::ESTALE);
        if share_of(number) == 0 {
            return if number == ROOT_NODE { Ok(Place::Root) } else { Err(unknown) };
        }
        let share = self.server.share(number).ok_or(unknown)?;
        if number & ((1 << NUMBER_BITS) - 1) == share::DIRECTORY {
            return Ok(Place::Share(share));
        }
        let node = share.nodes.get(number)?;
        Ok(Place::Node(share, node))
    }

    /// The host's file or directory that the request is about; in virtual directories, nothing can be changed.
    pub fn node(&self) -> Result<(Arc<Share>, Arc<Node>), Failure> {
        self.node_of(self.request.header.nodeid)
    }

    /// The host's file or directory of this number.
    pub fn node_of(&self, number: u64) -> Result<(Arc<Share>, Arc<Node>), Failure> {
        match self.place_of(number)? {
            Place::Root | Place::Share(_) => refuse(libc::EROFS),
            Place::Node(share, node) => Ok((share, node)),
        }
    }

    /// The share that the request is about.
    pub fn share(&self) -> Result<Arc<Share>, Errno> {
        self.server.share(self.request.header.nodeid).ok_or(Errno::new(libc::EBADF))
    }

    /// What the operation makes belongs to the caller, and keeps the bits that it is made with.
    pub fn become_caller(&mut self) -> Result<(), Errno> {
        let header = self.request.header;
        self.thread.become_caller(header.uid, header.gid)?;
        self.thread.keep_set_ids(true)
    }
}

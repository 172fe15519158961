//! Requests to the file server (linux/fuse.h), with whatever in them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;
use crate::virtio::{INDIRECT, NEXT, Ring, Slot, VERSION_1, WRITE, id, pages};

/// Opcodes.
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const GETLK: u32 = 31;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const TMPFILE: u32 = 51;
}

pub const ROOT: u64 = 1;

/// open(2)'s flags, as the host's kernel has them.
pub mod flag {
    pub const WRONLY: u32 = 0o1;
    pub const RDWR: u32 = 0o2;
    pub const CREAT: u32 = 0o100;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const DIRECT: u32 = 0o40000;
    pub const PATH: u32 = 0o10000000;
    pub const TMPFILE: u32 = 0o20200000;
}

/// What the host keeps outside of everything that is shared, in a file's content: a reply that has it is the proof of a
/// leak.
pub const SECRET: &[u8] = b"SECRET-OF-THE-HOST";

pub const HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// Room for a request, and as much for its reply.
const ROOM: u64 = 1 << 21;
const REQUESTS: u32 = 1;
const FORGETS: u32 = 0;

/// Made once: sessions come one after the other.
static BUFFERS: AtomicU64 = AtomicU64::new(0);

/// One life of the device.
pub struct Session {
    pub slot: Slot,
    ring: Ring,
    forgets: Ring,
    request: u64,
    reply: u64,
    unique: u64,
    /// Nodes that the server has given.
    pub given: Vec<u64>,
    /// A reply had the host's secret in it.
    pub leaked: bool,
    /// Uid and gid of requests.
    pub caller: (u32, u32),
}

/// An error of the host's, as a positive number; or that there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Errno(i32),
    /// The device has failed, or is silent.
    NoAnswer,
}

/// What a request is answered by.
pub type Answer<T> = Result<T, Refusal>;

/// An inode as LOOKUP gives it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: u64,
    pub mode: u32,
}

impl Session {
    /// A fresh device with an INIT answered.
    pub fn start() -> Result<Self, String> {
        let mut session = Self::open()?;
        match session.init(7, 38) {
            Ok(_) => Ok(session),
            Err(refusal) => {
                let failed = session.slot.has_failed();
                Err(format!("INIT after a reset: {refusal:?}, the device has failed: {failed}"))
            }
        }
    }

    /// A fresh device.
    pub fn open() -> Result<Self, String> {
        let slot = Slot::find(id::FS).ok_or_else(|| String::from("there is no file system device"))?;
        if BUFFERS.load(Ordering::Relaxed) == 0 {
            BUFFERS.store(pages(2 * ROOM), Ordering::Relaxed);
        }
        let request = BUFFERS.load(Ordering::Relaxed);
        let (ring, forgets) = (Ring::new(128), Ring::new(16));
        slot.negotiate(VERSION_1 | slot.offered() & INDIRECT);
        slot.set_queue(FORGETS, &forgets);
        slot.set_queue(REQUESTS, &ring);
        slot.go();
        Ok(Self {
            slot,
            ring,
            forgets,
            request,
            reply: request + ROOM,
            unique: 0,
            given: Vec::new(),
            leaked: false,
            caller: (0, 0),
        })
    }

    pub fn init(&mut self, major: u32, minor: u32) -> Answer<Vec<u8>> {
        let mut body = words(&[major, minor, u32::MAX, 0]);
        body.resize(64, 0);
        self.ask(op::INIT, 0, &body)
    }

    /// A request whose header is right.
    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Answer<Vec<u8>> {
        let length = (HEADER + body.len()) as u32;
        self.ask_raw(opcode, node, body, length, 1 << 16)
    }

    /// A request of which the header says this length, with so much room for the reply.
    pub fn ask_raw(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        length: u32,
        room: u32,
    ) -> Answer<Vec<u8>> {
        self.unique += 2;
        let (uid, gid) = self.caller;
        let mut bytes = words(&[length, opcode]);
        bytes.extend(longs(&[self.unique, node]));
        bytes.extend(words(&[uid, gid, 1, 0]));
        bytes.extend_from_slice(body);
        self.send(&bytes, room)
    }

    /// Any bytes in place of a request; an empty answer where the server gives none.
    pub fn send(&mut self, bytes: &[u8], room: u32) -> Answer<Vec<u8>> {
        for (address, byte) in (self.request..).zip(bytes) {
            cpu::write8(address, *byte);
        }
        let flags = if room > 0 { NEXT } else { 0 };
        self.ring.describe(0, self.request, bytes.len() as u32, flags, 1);
        self.ring.describe(1, self.reply, room, WRITE, 0);
        self.ring.offer(0);
        self.slot.notify(REQUESTS);
        self.answer()
    }

    fn answer(&mut self) -> Answer<Vec<u8>> {
        let Some((_, written)) = self.ring.wait(self.slot) else { return Err(Refusal::NoAnswer) };
        let reply: Vec<u8> = (0..u64::from(written)).map(|at| cpu::read8(self.reply + at)).collect();
        self.leaked |= contains(&reply, SECRET);
        if reply.len() < OUT_HEADER {
            return Ok(Vec::new());
        }
        match i32::from_le_bytes([reply[4], reply[5], reply[6], reply[7]]) {
            0 => Ok(reply[OUT_HEADER..].to_vec()),
            errno => Err(Refusal::Errno(-errno)),
        }
    }

    /// A request in as many descriptors as it has bytes, or as fit.
    pub fn send_in_pieces(&mut self, bytes: &[u8], room: u32) -> Answer<Vec<u8>> {
        for (address, byte) in (self.request..).zip(bytes) {
            cpu::write8(address, *byte);
        }
        let pieces = bytes.len().min(100) as u16;
        for index in 0..pieces {
            let length = if index + 1 == pieces { bytes.len() as u32 - u32::from(index) } else { 1 };
            self.ring.describe(index, self.request + u64::from(index), length, NEXT, index + 1);
        }
        for index in 0..20 {
            let length = if index == 19 { room } else { 1 };
            let flags = if index == 19 { WRITE } else { WRITE | NEXT };
            let at = pieces + index;
            self.ring.describe(at, self.reply + u64::from(index), length, flags, at + 1);
        }
        self.ring.offer(0);
        self.slot.notify(REQUESTS);
        self.answer()
    }

    /// A request on the queue of those that have no answer.
    pub fn tell(&mut self, opcode: u32, node: u64, body: &[u8]) -> Answer<()> {
        let mut bytes = words(&[(HEADER + body.len()) as u32, opcode]);
        bytes.extend(longs(&[0, node]));
        bytes.extend(words(&[0, 0, 0, 0]));
        bytes.extend_from_slice(body);
        for (address, byte) in (self.request..).zip(&bytes) {
            cpu::write8(address, *byte);
        }
        self.forgets.describe(0, self.request, bytes.len() as u32, 0, 0);
        self.forgets.offer(0);
        self.slot.notify(FORGETS);
        self.forgets.wait(self.slot).map(drop).ok_or(Refusal::NoAnswer)
    }

    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> Answer<Entry> {
        let entry = entry(&self.ask(op::LOOKUP, parent, &named(&[], name))?)?;
        if entry.node == 0 {
            // The name is not there, as the guest may remember.
            return Err(Refusal::Errno(2));
        }
        self.given.push(entry.node);
        Ok(entry)
    }

    /// Follows names from a node.
    pub fn walk(&mut self, from: u64, path: &str) -> Answer<Entry> {
        let mut at = Entry { node: from, mode: 0o40755 };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.lookup(at.node, name.as_bytes())?;
        }
        Ok(at)
    }

    pub fn open_file(&mut self, node: u64, flags: u32) -> Answer<u64> {
        long(&self.ask(op::OPEN, node, &words(&[flags, 0]))?, 0)
    }

    pub fn open_dir(&mut self, node: u64) -> Answer<u64> {
        long(&self.ask(op::OPENDIR, node, &words(&[0, 0]))?, 0)
    }

    /// Node and handle.
    pub fn create(&mut self, parent: u64, name: &[u8], flags: u32, mode: u32) -> Answer<(u64, u64)> {
        let reply = self.ask(op::CREATE, parent, &named(&words(&[flags, mode, 0, 0]), name))?;
        Ok((entry(&reply)?.node, long(&reply, 128)?))
    }

    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32, flags: u32) -> Answer<Vec<u8>> {
        self.ask(op::READ, node, &read_body(handle, offset, size, flags))
    }

    pub fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer<Vec<u8>> {
        self.ask(op::WRITE, node, &write_body(handle, offset, data.len() as u32, data))
    }

    pub fn release(&mut self, node: u64, handle: u64) -> Answer<Vec<u8>> {
        let mut body = longs(&[handle]);
        body.extend(words(&[0, 0, 0, 0]));
        self.ask(op::RELEASE, node, &body)
    }

    pub fn attributes(&mut self, node: u64) -> Answer<Vec<u8>> {
        self.ask(op::GETATTR, node, &[0; 16])
    }

    /// The names in a directory, as far as one reply holds them.
    pub fn names(&mut self, node: u64) -> Answer<Vec<Vec<u8>>> {
        // A server may do without handles for directories, and says so by ENOSYS.
        let handle = match self.open_dir(node) {
            Err(Refusal::Errno(38)) => 0,
            opened => opened?,
        };
        let reply = self.ask(op::READDIR, node, &read_body(handle, 0, 60_000, 0))?;
        let mut rest = &reply[..];
        let mut names = Vec::new();
        while rest.len() >= 24 {
            let length = u32::from_le_bytes([rest[16], rest[17], rest[18], rest[19]]) as usize;
            names.extend(rest.get(24..24 + length).map(<[u8]>::to_vec));
            rest = rest.get((24 + length).next_multiple_of(8)..).unwrap_or_default();
        }
        let mut body = longs(&[handle]);
        body.extend(words(&[0, 0, 0, 0]));
        let _ = self.ask(op::RELEASEDIR, node, &body);
        Ok(names)
    }
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// A body that ends with a name.
pub fn named(before: &[u8], name: &[u8]) -> Vec<u8> {
    [before, name, b"\0"].concat()
}

pub fn read_body(handle: u64, offset: u64, size: u32, flags: u32) -> Vec<u8> {
    let mut body = longs(&[handle, offset]);
    body.extend(words(&[size, 0, 0, 0, flags, 0]));
    body
}

pub fn write_body(handle: u64, offset: u64, size: u32, data: &[u8]) -> Vec<u8> {
    let mut body = longs(&[handle, offset]);
    body.extend(words(&[size, 0, 0, 0, 0, 0]));
    body.extend_from_slice(data);
    body
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn entry(reply: &[u8]) -> Answer<Entry> {
    let mode = reply.get(100..104).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    match long(reply, 0)? {
        // How a server says that it knows there is no such name.
        0 => Err(Refusal::Errno(2)),
        node => Ok(Entry { node, mode }),
    }
}

fn long(reply: &[u8], at: usize) -> Answer<u64> {
    let bytes = reply.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes).ok_or(Refusal::NoAnswer)
}

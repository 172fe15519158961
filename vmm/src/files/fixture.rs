//! For tests: a guest's kernel in front of a server, whose share `s` shows a temporary directory as `t`.
//!
//! A test's thread gets a table of descriptors of its own, so that they can be counted while other tests run.

use std::{
    cell::Cell,
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use vm_memory::{ByteValued, VolatileSlice};

use super::{
    FileServer, Limits, MAX_MESSAGE, Malformed, ThreadState,
    abi::{
        self, CreateIn, EntryOut, InHeader, OpenIn, OpenOut, OutHeader, ROOT_NODE, ReadIn, WriteIn, opcode,
    },
};

/// What every request of a test is called.
const UNIQUE: u64 = 0x1234_5678_9abc;

const HEADER: usize = size_of::<OutHeader>();

/// A reply's body, or the number of its error.
pub type Reply = Result<Vec<u8>, i32>;

/// A guest.
pub struct Guest {
    pub server: Arc<FileServer>,
    pub thread: ThreadState,
    /// The caller's uid and gid.
    pub caller: (u32, u32),
    /// Room for replies.
    pub room: usize,
    memory: Vec<u8>,
    directory: TempDir,
    /// Descriptors that are not the shares'.
    others: usize,
}

impl Guest {
    /// With the default limits.
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    /// With these limits.
    pub fn with(limits: Limits) -> Self {
        isolate();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tree")).unwrap();
        let server = Arc::new(FileServer::new(open_path("/proc/thread-self/fd"), limits));
        let thread = ThreadState::new().unwrap();
        let others = open_descriptors();
        server.add_share("s").unwrap();
        server.add_trees("s", vec![("t".into(), open_path(directory.path().join("tree")))]).unwrap();
        let memory = vec![0; MAX_MESSAGE];
        let mut guest = Self { server, thread, caller: (0, 0), room: MAX_MESSAGE, memory, directory, others };
        guest.init(u64::MAX);
        guest
    }

    /// The tree's directory on the host.
    pub fn host(&self, name: &str) -> PathBuf {
        self.directory.path().join("tree").join(name)
    }

    /// The directory that the tree is in.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// INIT, with these features offered.
    pub fn init(&mut self, features: u64) -> abi::InitOut {
        let mut offer = abi::InitIn { major: 7, minor: 41, max_readahead: 1 << 17, ..Default::default() };
        offer.flags = features as u32;
        offer.flags2 = (features >> 32) as u32;
        parse(&self.ask(opcode::INIT, 0, &[offer.as_slice()]).unwrap())
    }

    /// A request and what the server returns for it.
    pub fn send(&mut self, operation: u32, node: u64, arguments: &[&[u8]]) -> Result<usize, Malformed> {
        let length = size_of::<InHeader>() + arguments.iter().map(|argument| argument.len()).sum::<usize>();
        let header = InHeader {
            len: length as u32,
            opcode: operation,
            unique: UNIQUE,
            nodeid: node,
            uid: self.caller.0,
            gid: self.caller.1,
            ..InHeader::default()
        };
        let bytes = [header.as_slice()].into_iter().chain(arguments.iter().copied()).flatten().copied();
        self.send_bytes(&bytes.collect::<Vec<_>>())
    }

    /// A request as it is.
    pub fn send_bytes(&mut self, request: &[u8]) -> Result<usize, Malformed> {
        self.memory[..request.len()].copy_from_slice(request);
        let buffer = VolatileSlice::from(&mut self.memory[..]);
        self.server.handle(&mut self.thread, buffer, request.len(), self.room)
    }

    /// A request that is understood, and its reply.
    pub fn ask(&mut self, operation: u32, node: u64, arguments: &[&[u8]]) -> Reply {
        let length = self.send(operation, node, arguments).unwrap();
        self.reply(length)
    }

    /// A reply of this length.
    pub fn reply(&self, length: usize) -> Reply {
        let header: OutHeader = parse(&self.memory);
        assert_eq!((header.len as usize, header.unique), (length, UNIQUE));
        match header.error {
            0 => Ok(self.memory[HEADER..length].to_vec()),
            error => {
                assert_eq!(length, HEADER);
                Err(-error)
            }
        }
    }

    /// LOOKUP.
    pub fn look_up(&mut self, parent: u64, name: &str) -> Result<EntryOut, i32> {
        let entry: EntryOut = parse(&self.ask(opcode::LOOKUP, parent, &[name.as_bytes(), b"\0"])?);
        // Without a node, the reply says for how long there is nothing.
        if entry.nodeid == 0 { Err(libc::ENOENT) } else { Ok(entry) }
    }

    /// The node at a path of the tree.
    pub fn node(&mut self, path: &str) -> u64 {
        let path = Path::new("s/t").join(path);
        path.iter().fold(ROOT_NODE, |node, name| self.look_up(node, name.to_str().unwrap()).unwrap().nodeid)
    }

    /// OPEN.
    pub fn open(&mut self, node: u64, flags: i32) -> Result<OpenOut, i32> {
        let wanted = OpenIn { flags: flags as u32, open_flags: 0 };
        Ok(parse(&self.ask(opcode::OPEN, node, &[wanted.as_slice()])?))
    }

    /// OPENDIR.
    pub fn open_directory(&mut self, node: u64) -> Result<u64, i32> {
        let reply = self.ask(opcode::OPENDIR, node, &[OpenIn::default().as_slice()])?;
        Ok(parse::<OpenOut>(&reply).fh)
    }

    /// CREATE or TMPFILE.
    pub fn create(
        &mut self,
        operation: u32,
        parent: u64,
        name: &str,
        (flags, mode, umask): (i32, u32, u32),
    ) -> Result<(EntryOut, OpenOut), i32> {
        let wanted = CreateIn { flags: flags as u32, mode, umask, open_flags: 0 };
        let reply = self.ask(operation, parent, &[wanted.as_slice(), name.as_bytes(), b"\0"])?;
        Ok((parse(&reply), parse(&reply[size_of::<EntryOut>()..])))
    }

    /// READ.
    pub fn read(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Reply {
        let wanted = ReadIn { fh, offset, size, ..ReadIn::default() };
        self.ask(opcode::READ, node, &[wanted.as_slice()])
    }

    /// WRITE.
    pub fn write(&mut self, node: u64, wanted: WriteIn, data: &[u8]) -> Result<usize, i32> {
        let wanted = WriteIn { size: data.len() as u32, ..wanted };
        let reply = self.ask(opcode::WRITE, node, &[wanted.as_slice(), data])?;
        Ok(parse::<abi::WriteOut>(&reply).size as usize)
    }

    /// How many descriptors the server holds for its shares, in its own opinion.
    pub fn descriptors(&self) -> u32 {
        self.server.uses().iter().map(|(_, of)| of.descriptors).sum()
    }

    /// How many descriptors are open for the server's shares.
    pub fn open_descriptors(&self) -> usize {
        open_descriptors() - self.others
    }

    /// The server's opinion is right: nothing else is open.
    #[track_caller]
    pub fn check_descriptors(&self) {
        assert_eq!(self.open_descriptors(), self.descriptors() as usize);
    }
}

thread_local! {
    static IS_ISOLATED: Cell<bool> = const { Cell::new(false) };
}

/// Gives the thread a table of descriptors of its own, with the first three, and the identity of a server's thread.
fn isolate() {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    if IS_ISOLATED.replace(true) {
        return;
    }
    // libFuzzer's thread is alone, and writes to files that it has open.
    if cfg!(test) {
        // SAFETY: nothing that this thread has open so far is used by it.
        assert_eq!(unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) }, 0);
    }
    // SAFETY: prctl and setgroups take numbers.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), 0);
        assert_eq!(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()), 0);
    }
}

fn open_descriptors() -> usize {
    const DIRECTORY: &str = "/proc/thread-self/fd";
    match fs::metadata(DIRECTORY).unwrap().len() {
        // Before Linux 6.2. One of them is the listing's own.
        0 => fs::read_dir(DIRECTORY).unwrap().count() - 1,
        count => count as usize,
    }
}

/// An O_PATH descriptor.
pub fn open_path(path: impl AsRef<Path>) -> OwnedFd {
    File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap().into()
}

/// The structure at the start of these bytes.
pub fn parse<T: ByteValued>(bytes: &[u8]) -> T {
    let mut value = T::zeroed();
    value.as_mut_slice().copy_from_slice(&bytes[..size_of::<T>()]);
    value
}

//! For tests and fuzzing: requests that are nearly right. They name nodes and handles that there are, in a tree with links, FIFOs
//! and directories, and each of their numbers may be odd.
//!
//! After each request, the process's open descriptors are those that the server knows of, and nothing outside the tree was
//! found or changed.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    Limits,
    abi::{EntryOut, OpenOut, ROOT_NODE, opcode},
    fixture::{Guest, open_path, parse},
};
use crate::fuzz::input::Input;

const REQUESTS: usize = 400;

/// Most nodes and handles that the guest remembers.
const REMEMBERED: usize = 40;

const NAMES: [&[u8]; 24] = [
    b"f",
    b"d",
    b"e",
    b"..",
    b".",
    b"",
    b"ln",
    b"up",
    b"fifo",
    b"s",
    b"t",
    b"d",
    b"outside",
    b"a/b",
    b"x",
    b"y",
    b"f",
    b"user.a",
    b"trusted.overlay.opaque",
    b"user.stockade.trusted.a",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"other",
];

/// Operations, the more interesting ones more often. SYNCFS is not among them: it writes the disk of whoever tests.
const OPERATIONS: [u32; 71] = [
    1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 4, 5, 6, 8, 8, 9, 10, 11, 12, 13, 14, 14, 14, 14, 15, 15, 16, 16, 17, 18,
    18, 20, 21, 21, 22, 23, 24, 25, 26, 27, 27, 28, 28, 29, 30, 31, 32, 33, 34, 35, 35, 35, 36, 37, 39, 40,
    42, 43, 44, 44, 44, 45, 45, 46, 47, 48, 49, 51, 51, 52, 53,
];

const OPEN_FLAGS: [i32; 14] = [
    0,
    libc::O_WRONLY,
    libc::O_RDWR,
    libc::O_ACCMODE,
    libc::O_RDWR | libc::O_TRUNC,
    libc::O_WRONLY | libc::O_APPEND,
    libc::O_DIRECT,
    libc::O_DIRECTORY,
    libc::O_PATH,
    libc::O_PATH | libc::O_RDWR | libc::O_CREAT,
    libc::O_TMPFILE | libc::O_RDWR,
    libc::O_CREAT | libc::O_EXCL | libc::O_RDWR,
    libc::O_NONBLOCK | libc::O_ASYNC,
    libc::O_SYNC | libc::O_NOATIME,
];

/// What decides on the requests.
pub enum Choices<'a> {
    /// Xorshift: a seed tells all.
    Seed(u64),
    /// Bytes, until they end.
    Input(Input<'a>),
}

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        match self {
            Self::Seed(seed) => {
                *seed ^= *seed << 13;
                *seed ^= *seed >> 7;
                *seed ^= *seed << 17;
                *seed
            }
            Self::Input(input) => input.u64(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        let number: u64 = match self {
            Self::Input(input) if end <= 1 << 8 => input.u8().into(),
            Self::Input(input) if end <= 1 << 16 => input.u16().into(),
            _ => self.next(),
        };
        (number % end as u64) as usize
    }

    fn are_over(&self) -> bool {
        matches!(self, Self::Input(input) if input.is_empty())
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number, mostly of a kind that finds limits.
    fn odd(&mut self) -> u64 {
        match self.below(7) {
            0 => 0,
            1 => u64::MAX - self.below(3) as u64,
            2 => self.below(4096) as u64,
            3 => 1 << self.below(64),
            4 => self.next(),
            5 => i64::MAX as u64,
            _ => 4096,
        }
    }
}

/// A guest's kernel that has gone wrong.
struct Wild<'a> {
    guest: Guest,
    choices: Choices<'a>,
    nodes: Vec<u64>,
    handles: Vec<(u64, u64)>,
    /// Inodes that no node may be.
    outside: [u64; 2],
}

impl Wild<'_> {
    fn node(&mut self) -> u64 {
        if self.choices.one_in(20) { self.choices.odd() } else { self.choices.pick(&self.nodes) }
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = match self.choices.below(40) {
            0 => vec![b'A'; self.choices.below(5000)],
            _ => self.choices.pick(&NAMES).to_vec(),
        };
        if !self.choices.one_in(500) {
            name.push(0);
        }
        name
    }

    fn flags(&mut self) -> u32 {
        let flags = self.choices.pick(&OPEN_FLAGS) as u32;
        if self.choices.one_in(4) { flags | self.choices.next() as u32 } else { flags }
    }

    /// The arguments of an operation: words that its structure has, and strings.
    fn arguments(&mut self, operation: u32, fh: u64) -> Vec<u8> {
        let small = |choices: &mut Choices<'_>| {
            if choices.one_in(4) { choices.odd() } else { choices.below(8192) as u64 }
        };
        let mut bytes = Vec::new();
        let words = |bytes: &mut Vec<u8>, words: &[u64]| {
            words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let odd = self.choices.odd() as u32;
        match operation {
            opcode::LOOKUP | opcode::UNLINK | opcode::RMDIR | opcode::REMOVEXATTR => bytes = self.name(),
            opcode::FORGET => words(&mut bytes, &[self.choices.below(3) as u64]),
            opcode::GETATTR => words(&mut bytes, &[1, fh]),
            opcode::STATX => words(&mut bytes, &[1, fh, 0]),
            opcode::SETATTR => {
                let valid = self.choices.next() as u32 & 0xffff;
                let size = small(&mut self.choices);
                words(&mut bytes, &[u64::from(valid), fh, size, 0]);
                for _ in 0..7 {
                    let odd = self.choices.odd();
                    words(&mut bytes, &[odd]);
                }
            }
            opcode::SYMLINK => {
                bytes = self.name();
                bytes.extend(b"../outside\0");
            }
            opcode::MKNOD => {
                let mode = self
                    .choices
                    .pick(&[0o100644, 0o020666, 0o060666, 0o010666, 0o140666, 0o040755, 0o104755, odd]);
                words(&mut bytes, &[pair(mode, odd), 0]);
                bytes.extend(self.name());
            }
            opcode::MKDIR => {
                words(&mut bytes, &[pair(0o755, odd)]);
                bytes.extend(self.name());
            }
            opcode::RENAME | opcode::RENAME2 => {
                let to = self.node();
                words(&mut bytes, &[to]);
                if operation == opcode::RENAME2 {
                    words(&mut bytes, &[self.choices.below(9) as u64]);
                }
                bytes.extend(self.name());
                bytes.extend(self.name());
            }
            opcode::LINK => {
                let old = self.node();
                words(&mut bytes, &[old]);
                bytes.extend(self.name());
            }
            opcode::OPEN | opcode::OPENDIR => {
                let flags = self.flags();
                words(&mut bytes, &[pair(flags, self.choices.below(4) as u32)]);
            }
            opcode::CREATE | opcode::TMPFILE => {
                let flags = self.flags();
                words(&mut bytes, &[pair(flags, odd), pair(0o022, self.choices.below(4) as u32)]);
                bytes.extend(self.name());
            }
            opcode::READ | opcode::READDIR | opcode::READDIRPLUS => {
                let (offset, size) = (small(&mut self.choices), small(&mut self.choices) as u32);
                let flags = self.flags();
                words(&mut bytes, &[fh, offset, u64::from(size), 0, u64::from(flags)]);
            }
            opcode::WRITE => {
                let size = self.choices.below(2000);
                let said = if self.choices.one_in(20) { odd } else { size as u32 };
                let (offset, flags) = (self.choices.below(8192) as u64, self.flags());
                let write_flags = self.choices.below(8) as u32;
                words(&mut bytes, &[fh, offset, pair(said, write_flags), 0, u64::from(flags)]);
                bytes.extend(vec![7; size]);
            }
            opcode::SETXATTR => {
                let size = self.choices.below(300);
                let said = if self.choices.one_in(20) { odd } else { size as u32 };
                words(&mut bytes, &[pair(said, self.choices.below(4) as u32), self.choices.below(2) as u64]);
                bytes.extend(self.name());
                bytes.extend(vec![1; size]);
            }
            opcode::GETXATTR | opcode::LISTXATTR => {
                let size = small(&mut self.choices) as u32;
                words(&mut bytes, &[u64::from(size)]);
                bytes.extend(self.name());
            }
            opcode::BATCH_FORGET => {
                let count = self.choices.below(5);
                let said = if self.choices.one_in(20) { odd } else { count as u32 };
                words(&mut bytes, &[u64::from(said)]);
                for _ in 0..count {
                    let node = self.node();
                    words(&mut bytes, &[node, self.choices.below(3) as u64]);
                }
            }
            opcode::FALLOCATE => {
                // A disk is soon full.
                let (offset, length) =
                    (self.choices.below(1 << 20) as u64, self.choices.below(1 << 20) as u64);
                words(&mut bytes, &[fh, offset, length, self.choices.below(256) as u64]);
            }
            opcode::GETLK | opcode::SETLK | opcode::SETLKW => {
                let (start, end) = (small(&mut self.choices), small(&mut self.choices));
                let kind = self.choices.below(4) as u32;
                words(&mut bytes, &[fh, 1 + self.choices.below(3) as u64, start, end, pair(kind, 9)]);
                words(&mut bytes, &[self.choices.below(2) as u64]);
            }
            opcode::COPY_FILE_RANGE => {
                let (node, fh_out) = self.choices.pick(&self.handles);
                let (from, to, length) = (
                    self.choices.below(9000) as u64,
                    self.choices.below(9000) as u64,
                    self.choices.below(9000) as u64,
                );
                words(&mut bytes, &[fh, from, node, fh_out, to, length, self.choices.below(2) as u64 / 2]);
            }
            _ => {
                let (a, b, c) = (self.choices.odd(), self.choices.odd(), self.choices.odd());
                words(&mut bytes, &[fh, a, b, c, 0, 0]);
            }
        }
        if self.choices.one_in(100) {
            bytes.truncate(self.choices.below(bytes.len() + 1));
        }
        bytes
    }

    /// One request, and what the guest learns from it.
    fn step(&mut self) {
        let operation = self.choices.pick(&OPERATIONS);
        let (of, fh) = match self.choices.below(10) {
            0 => (self.node(), self.choices.odd()),
            _ => self.choices.pick(&self.handles),
        };
        let node = if self.choices.one_in(2) { of } else { self.node() };
        let arguments = self.arguments(operation, fh);
        self.guest.caller = match self.choices.below(4) {
            0 => (self.choices.odd() as u32, self.choices.odd() as u32),
            _ => (0, 0),
        };
        self.guest.room = if self.choices.one_in(100) { self.choices.below(200) } else { 70_000 };
        let Ok(length) = self.guest.send(operation, node, &[&arguments]) else { return };
        if length == 0 {
            return;
        }
        let Ok(reply) = self.guest.reply(length) else { return };
        match operation {
            opcode::LOOKUP | opcode::SYMLINK | opcode::MKNOD | opcode::MKDIR | opcode::LINK => {
                self.learn(parse::<EntryOut>(&reply), None);
            }
            opcode::CREATE | opcode::TMPFILE => {
                let open: OpenOut = parse(&reply[size_of::<EntryOut>()..]);
                self.learn(parse::<EntryOut>(&reply), Some(open.fh));
            }
            opcode::OPEN | opcode::OPENDIR => self.remember_handle(node, parse::<OpenOut>(&reply).fh),
            _ => {}
        }
    }

    fn learn(&mut self, entry: EntryOut, fh: Option<u64>) {
        assert!(!self.outside.contains(&entry.attr.ino), "it has left the tree");
        if entry.nodeid == 0 {
            return;
        }
        if self.nodes.len() >= REMEMBERED {
            // The first ones are the way to all others.
            let place = 3 + self.choices.below(REMEMBERED - 3);
            self.nodes.swap_remove(place);
        }
        self.nodes.push(entry.nodeid);
        if let Some(fh) = fh {
            self.remember_handle(entry.nodeid, fh);
        }
    }

    fn remember_handle(&mut self, node: u64, fh: u64) {
        if self.handles.len() >= REMEMBERED {
            let place = self.choices.below(REMEMBERED);
            self.handles.swap_remove(place);
        }
        self.handles.push((node, fh));
    }
}

fn populate(guest: &Guest) {
    let _ = fs::create_dir_all(guest.host("d/e"));
    // The guest may have put a FIFO there.
    let _ = fs::File::create_new(guest.host("f")).and_then(|mut file| file.write_all(b"hello"));
    let _ = symlink("/proc/self/status", guest.host("ln"));
    let _ = symlink("../../../..", guest.host("up"));
    let _ = mkfifo(&guest.host("fifo"), Mode::S_IRWXU);
}

/// Sends requests, and checks after each.
pub fn run(choices: Choices<'_>, host_locks: bool) {
    let limits = Limits {
        descriptors_per_share: 60,
        handles_per_share: 30,
        host_locks,
        settled_after: -1,
        ..Limits::default()
    };
    let mut guest = Guest::with(limits);
    fs::write(guest.outside("outside"), b"canary").unwrap();
    populate(&guest);
    guest.server.add_share("other").unwrap();
    guest.server.add_trees("other", vec![("t".into(), open_path(guest.host("d")))]).unwrap();
    let root = guest.node("");
    let nodes = vec![ROOT_NODE, guest.look_up(ROOT_NODE, "s").unwrap().nodeid, root, guest.node("d")];
    let fh = guest.open_directory(root).unwrap();
    let outside = ["", "outside"].map(|name| fs::metadata(guest.outside(name)).unwrap().ino());
    let mut wild = Wild { guest, choices, nodes, handles: vec![(root, fh)], outside };
    for request in 0..REQUESTS {
        if wild.choices.are_over() {
            break;
        }
        wild.step();
        wild.guest.check_descriptors();
        if request % 100 == 0 {
            populate(&wild.guest);
        }
    }
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(fs::read(wild.guest.outside("outside")).unwrap(), b"canary");
    assert_eq!(names(&wild.guest.outside("")), 2);
    wild.guest.server.remove_share("s").unwrap();
    wild.guest.server.remove_share("other").unwrap();
    assert_eq!(wild.guest.open_descriptors(), 0);
}

#[cfg(test)]
#[path = "wild_test.rs"]
mod tests;

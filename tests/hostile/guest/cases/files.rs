//! Attacks on the file server by names, nodes, handles and sizes. What the test has put into the trees is told in
//! `tests/tests/hostile_files.rs`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Outcome, Report};
use crate::fuse::{
    Answer, ROOT, Refusal, SECRET, Session, contains, flag, longs, named, op, read_body, words, write_body,
};

/// A session, and the trees that the guest has in it.
pub struct Files {
    pub session: Session,
    /// The container's own part of the file system.
    pub share: u64,
    /// Its root file system, which it may write to.
    pub rootfs: u64,
    /// A directory of the host that it may not write to.
    pub readonly: u64,
    /// One that it may.
    pub volume: u64,
    /// The host's /sys, read-only.
    pub sys: u64,
    /// What another container of the pod has.
    pub other: Option<u64>,
}

/// One attack.
pub type Case = (&'static str, fn(&mut Files) -> Outcome);

impl Files {
    pub fn open() -> Result<Self, String> {
        let session = Session::start()?;
        let mut files = Self { session, share: 0, rootfs: 0, readonly: 0, volume: 0, sys: 0, other: None };
        files.find().map_err(|refusal| format!("cannot find the trees: {refusal:?}"))?;
        for (what, node) in [
            ("rootfs", files.rootfs),
            ("readonly", files.readonly),
            ("volume", files.volume),
            ("sys", files.sys),
        ] {
            if node == 0 {
                return Err(format!("there is no tree {what}"));
            }
        }
        Ok(files)
    }

    /// Tells the trees by a file that the test has put into each.
    fn find(&mut self) -> Answer<()> {
        for share in self.session.names(ROOT)?.into_iter().filter(|name| !name.starts_with(b".")) {
            let share = self.session.lookup(ROOT, &share)?.node;
            for tree in self.session.names(share)?.into_iter().filter(|name| !name.starts_with(b".")) {
                let tree = self.session.lookup(share, &tree)?.node;
                let mut has = |name: &[u8]| self.session.lookup(tree, name).is_ok();
                if has(b"i-am-rootfs") {
                    (self.share, self.rootfs) = (share, tree);
                } else if has(b"i-am-readonly") {
                    self.readonly = tree;
                } else if has(b"i-am-volume") {
                    self.volume = tree;
                } else if has(b"i-am-other") {
                    self.other = Some(tree);
                } else if has(b"kernel") && has(b"fs") {
                    self.sys = tree;
                }
            }
        }
        Ok(())
    }

    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Answer<Vec<u8>> {
        self.session.ask(opcode, node, body)
    }

    /// The server lives: it answers what the root is, and reads a file.
    fn works(&mut self) -> Outcome {
        let read = (|| {
            let file = self.session.walk(self.rootfs, "i-am-rootfs")?.node;
            let handle = self.session.open_file(file, 0)?;
            let content = self.session.read(file, handle, 0, 100, 0)?;
            self.session.release(file, handle)?;
            Ok::<_, Refusal>(content)
        })();
        match read {
            Ok(content) if content == b"yes\n" => Ok(()),
            Ok(content) => Err(format!("a file reads {:?} afterwards", String::from_utf8_lossy(&content))),
            Err(refusal) => Err(format!("a file cannot be read afterwards: {refusal:?}")),
        }
    }
}

/// Runs attacks one after the other; the session goes on where the device lives.
pub fn run_all(report: &mut Report<'_>, cases: &[Case]) {
    let mut files = None;
    for (name, case) in cases {
        report.begin(name);
        let outcome = (|| {
            let files = match &mut files {
                Some(files) => files,
                none => none.insert(Files::open()?),
            };
            let outcome = case(files);
            if files.session.leaked {
                return Err("the host's secret was in a reply".into());
            }
            outcome?;
            if files.session.slot.has_failed() {
                *files = Files::open()?;
            }
            files.works()
        })();
        if outcome.is_err() {
            files = None;
        }
        report.end(name, outcome);
    }
}

pub fn run(report: &mut Report<'_>) {
    run_all(report, &CASES);
}

/// What is refused, with whatever error.
pub fn refused<T>(what: &str, answer: Answer<T>) -> Outcome {
    match answer {
        Ok(_) => Err(format!("{what} is not refused")),
        Err(_) => Ok(()),
    }
}

/// What failed that should not.
pub fn done<T>(what: &str, answer: Answer<T>) -> Result<T, String> {
    answer.map_err(|refusal| format!("{what}: {refusal:?}"))
}

const CASES: [Case; 24] = [
    ("files: '..' leads nowhere", |files| {
        for start in [ROOT, files.share, files.rootfs, files.readonly] {
            let mut at = start;
            for _ in 0..20 {
                let Ok(entry) = files.session.lookup(at, b"..") else { break };
                at = entry.node;
            }
            for path in ["etc/passwd", "canary/secret", "outside/secret", "proc/self/environ", "sys/kernel"] {
                if start != at {
                    refused(path, files.session.walk(at, path))?;
                }
            }
        }
        Ok(())
    }),
    ("files: names with a slash are refused", |files| {
        let (rootfs, file) =
            (files.rootfs, done("lookup", files.session.lookup(files.rootfs, b"file"))?.node);
        for name in [
            &b"directory/file"[..],
            b"../outside/secret",
            b"/etc/passwd",
            b"directory/../../outside/new",
            b"/new",
        ] {
            refused("LOOKUP", files.session.lookup(rootfs, name))?;
            refused("CREATE", files.session.create(rootfs, name, flag::CREAT | flag::RDWR, 0o100644))?;
            refused("MKDIR", files.ask(op::MKDIR, rootfs, &named(&words(&[0o755, 0]), name)))?;
            refused("MKNOD", files.ask(op::MKNOD, rootfs, &named(&words(&[0o100644, 0, 0, 0]), name)))?;
            refused("SYMLINK", files.ask(op::SYMLINK, rootfs, &named(&named(&[], name), b"target")))?;
            refused("LINK", files.ask(op::LINK, rootfs, &named(&longs(&[file]), name)))?;
            refused("UNLINK", files.ask(op::UNLINK, rootfs, &named(&[], name)))?;
            refused("RMDIR", files.ask(op::RMDIR, rootfs, &named(&[], name)))?;
            let rename = [&longs(&[rootfs])[..], b"file\0", name, b"\0"].concat();
            refused("RENAME to it", files.ask(op::RENAME, rootfs, &rename))?;
            let rename = [&longs(&[rootfs])[..], name, b"\0", b"new\0"].concat();
            refused("RENAME from it", files.ask(op::RENAME, rootfs, &rename))?;
        }
        Ok(())
    }),
    ("files: names that are '.' or '..' or nothing make nothing", |files| {
        let (rootfs, file) =
            (files.rootfs, done("lookup", files.session.lookup(files.rootfs, b"file"))?.node);
        for name in [&b".."[..], b".", b""] {
            refused("CREATE", files.session.create(rootfs, name, flag::CREAT | flag::RDWR, 0o100644))?;
            refused("MKDIR", files.ask(op::MKDIR, rootfs, &named(&words(&[0o755, 0]), name)))?;
            refused("MKNOD", files.ask(op::MKNOD, rootfs, &named(&words(&[0o100644, 0, 0, 0]), name)))?;
            refused("SYMLINK", files.ask(op::SYMLINK, rootfs, &named(&named(&[], name), b"target")))?;
            refused("LINK", files.ask(op::LINK, rootfs, &named(&longs(&[file]), name)))?;
            refused("UNLINK", files.ask(op::UNLINK, rootfs, &named(&[], name)))?;
            refused("RMDIR", files.ask(op::RMDIR, rootfs, &named(&[], name)))?;
            let rename = [&longs(&[rootfs])[..], b"directory\0", name, b"\0"].concat();
            refused("RENAME", files.ask(op::RENAME, rootfs, &rename))?;
        }
        Ok(())
    }),
    ("files: names that are too long, unended, or have a NUL inside", |files| {
        let rootfs = files.rootfs;
        for length in [256, 4096, 60_000] {
            refused("LOOKUP", files.session.lookup(rootfs, &vec![b'a'; length]))?;
            refused("CREATE", files.session.create(rootfs, &vec![b'a'; length], flag::CREAT, 0o100644))?;
        }
        refused("LOOKUP without NUL", files.ask(op::LOOKUP, rootfs, b"file"))?;
        let _ = files.ask(op::LOOKUP, rootfs, b"file\0/../../etc\0");
        refused("SYMLINK without a target", files.ask(op::SYMLINK, rootfs, b"only-one\0"))?;
        refused(
            "RENAME without a second name",
            files.ask(op::RENAME, rootfs, &named(&longs(&[rootfs]), b"file")),
        )
    }),
    ("files: nodes that were never given", |files| {
        let nodes =
            [0, 2, 3, 0xff, 1 << 32, 1 << 40, 1 << 40 | 7, 1 << 47, 1 << 55, 1 << 63, u64::MAX, u64::MAX - 1];
        let tree = files.rootfs;
        let near = (1..200).flat_map(|by| [tree + (by << 8 | 0xa5), tree ^ by << 40]);
        for node in nodes.into_iter().chain(near.take(200)) {
            refused("GETATTR", files.session.attributes(node))?;
            refused("OPEN", files.session.open_file(node, 0))?;
            refused("OPENDIR", files.session.open_dir(node))?;
            refused("LOOKUP", files.session.lookup(node, b"file"))?;
            refused("READLINK", files.ask(op::READLINK, node, &[]))?;
            refused("READ", files.session.read(node, 1, 0, 100, 0))?;
            refused("CREATE", files.session.create(node, b"new", flag::CREAT | flag::RDWR, 0o100644))?;
            refused("LINK", files.ask(op::LINK, tree, &named(&longs(&[node]), b"linked")))?;
        }
        Ok(())
    }),
    ("files: nodes that are forgotten too often", |files| {
        let node = done("lookup", files.session.walk(files.rootfs, "directory/file"))?.node;
        for count in [1, 1000, u64::MAX, u64::MAX] {
            done("FORGET", files.session.tell(op::FORGET, node, &longs(&[count])))?;
        }
        refused("OPEN of a forgotten node", files.session.open_file(node, 0))?;
        for node in [ROOT, files.share, 0, u64::MAX] {
            done("FORGET", files.session.tell(op::FORGET, node, &longs(&[u64::MAX])))?;
        }
        // The trees may be found again, whatever became of their nodes.
        files.find().map_err(|refusal| format!("the trees are gone: {refusal:?}"))
    }),
    ("files: BATCH_FORGET of more than it lists", |files| {
        for count in [0, 1, 1000, u32::MAX] {
            let mut body = words(&[count, 0]);
            body.extend(longs(&[files.rootfs ^ 0xff00, u64::MAX]));
            let _ = files.session.tell(op::BATCH_FORGET, 0, &body);
            if files.session.slot.has_failed() {
                return Ok(());
            }
        }
        Ok(())
    }),
    ("files: handles that were never given", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
        for handle in [0, 1 << 31, 1 << 32, u64::MAX, 12345] {
            refused("READ", files.session.read(file, handle, 0, 100, 0))?;
            refused("WRITE", files.session.write(file, handle, 0, b"x"))?;
            refused("READDIR", files.ask(op::READDIR, files.rootfs, &read_body(handle, 0, 4096, 0)))?;
            refused("LSEEK", files.ask(op::LSEEK, file, &[longs(&[handle, 0]), words(&[0, 0])].concat()))?;
            refused("FALLOCATE", files.ask(op::FALLOCATE, file, &longs(&[handle, 0, 10, 0])))?;
            let _ = files.session.release(file, handle);
        }
        Ok(())
    }),
    ("files: handles of other nodes", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
        let readonly = done("lookup", files.session.lookup(files.readonly, b"i-am-readonly"))?.node;
        let written = done("open", files.session.open_file(file, flag::RDWR))?;
        let directory = done("opendir", files.session.open_dir(files.rootfs))?;
        refused("READ of a directory", files.session.read(file, directory, 0, 100, 0))?;
        refused("READDIR of a file", files.ask(op::READDIR, files.rootfs, &read_body(written, 0, 4096, 0)))?;
        // It may take the handle for what it is, but never the node.
        let _ = files.session.write(readonly, written, 0, b"overwritten");
        let _ = files.ask(op::FALLOCATE, readonly, &longs(&[written, 0, 100, 0]));
        let _ = files.session.release(readonly, directory);
        let _ = files.session.release(file, written);
        Ok(())
    }),
    ("files: a handle that is released twice", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
        let first = done("open", files.session.open_file(file, 0))?;
        done("release", files.session.release(file, first))?;
        let other = files.session_node("i-am-rootfs")?;
        let second = done("open", files.session.open_file(other, 0))?;
        if first != second {
            refused("READ after RELEASE", files.session.read(file, first, 0, 100, 0))?;
            let _ = files.session.release(file, first);
        }
        let content = done("read", files.session.read(file, second, 0, 100, 0));
        match content {
            Ok(content) if content != b"yes\n" => Err(format!("another file's content: {content:?}")),
            _ => Ok(()),
        }
    }),
    ("files: O_PATH, and then READ", |files| double_close(files, flag::PATH, 0)),
    ("files: READ with O_DIRECT where the file system has none", |files| {
        let node = done("lookup", files.session.walk(files.sys, "kernel/uevent_seqnum"))?.node;
        let handles: Vec<u64> = (0..16).filter_map(|_| files.session.open_file(node, 0).ok()).collect();
        for handle in &handles {
            let _ = files.session.read(node, *handle, 0, 4096, flag::DIRECT);
        }
        // Where a descriptor was closed behind a handle, one of these has its number now.
        let other = files.session_node("i-am-rootfs")?;
        let others: Vec<u64> = (0..16).filter_map(|_| files.session.open_file(other, 0).ok()).collect();
        for handle in &handles {
            if let Ok(content) = files.session.read(node, *handle, 0, 4096, 0)
                && contains(&content, b"yes")
            {
                return Err("a handle reads another file now".into());
            }
            let _ = files.session.release(node, *handle);
        }
        for handle in &others {
            done("READ of a handle behind a closed one", files.session.read(other, *handle, 0, 100, 0))?;
            let _ = files.session.release(other, *handle);
        }
        Ok(())
    }),
    ("files: every flag of open, and then everything on the handle", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        let single = (0..32).map(|bit| 1u32 << bit);
        for flags in
            single.clone().chain(single.map(|flags| flags | flag::RDWR)).chain([u32::MAX, !3, 0x0041_0002])
        {
            let Ok(handle) = files.session.open_file(file, flags) else { continue };
            let _ = files.session.read(file, handle, 0, 100, flags);
            let _ = files.session.write(file, handle, 0, b"scratch\n");
            let _ = files.ask(op::LSEEK, file, &[longs(&[handle, 0]), words(&[4, 0])].concat());
            let _ = files.ask(op::FSYNC, file, &[longs(&[handle]), words(&[0, 0])].concat());
            let _ = files.ask(op::FALLOCATE, file, &longs(&[handle, 0, 1, 0]));
            let _ = files.session.release(file, handle);
            refused("READ after RELEASE", files.session.read(file, handle, 0, 1, 0))?;
        }
        Ok(())
    }),
    ("files: sizes up to 4 GiB", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        let handle = done("open", files.session.open_file(file, flag::RDWR))?;
        for size in [u32::MAX, 1 << 31, 1 << 30, 2 << 20] {
            let _ = files.ask(op::GETXATTR, file, &named(&words(&[size, 0]), b"user.none"));
            let _ = files.ask(op::LISTXATTR, file, &words(&[size, 0]));
            let _ = files.session.read(file, handle, 0, size, 0);
            let _ = files.ask(op::READDIR, files.rootfs, &read_body(handle, 0, size, 0));
            let _ = files.ask(op::READDIRPLUS, files.rootfs, &read_body(handle, 0, size, 0));
            refused(
                "WRITE of more than there is",
                files.ask(op::WRITE, file, &write_body(handle, 0, size, b"short")),
            )?;
            let body = [&words(&[size, 0])[..], b"user.a\0", b"value"].concat();
            refused("SETXATTR of more than there is", files.ask(op::SETXATTR, file, &body))?;
            if files.session.slot.has_failed() {
                return Err("the device has failed".into());
            }
        }
        Ok(())
    }),
    ("files: offsets beyond everything", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        let handle = done("open", files.session.open_file(file, flag::RDWR))?;
        for offset in [u64::MAX, 1 << 63, (1 << 63) - 1, u64::MAX - 4095] {
            let _ = files.session.read(file, handle, offset, 4096, 0);
            refused("WRITE", files.session.write(file, handle, offset, b"x"))?;
            refused("FALLOCATE", files.ask(op::FALLOCATE, file, &longs(&[handle, offset, 4096, 0])))?;
            refused("FALLOCATE", files.ask(op::FALLOCATE, file, &longs(&[handle, 0, offset, 0])))?;
            let _ = files.ask(op::READDIR, files.rootfs, &read_body(handle, offset, 4096, 0));
            for whence in [0, 1, 2, 3, 4, 77, u32::MAX] {
                let _ = files.ask(op::LSEEK, file, &[longs(&[handle, offset]), words(&[whence, 0])].concat());
            }
        }
        let directory = done("opendir", files.session.open_dir(files.rootfs))?;
        for offset in [u64::MAX, 1 << 63, 77, 1 << 32] {
            let _ = files.ask(op::READDIR, files.rootfs, &read_body(directory, offset, 4096, 0));
            let _ = files.ask(op::READDIRPLUS, files.rootfs, &read_body(directory, offset, 4096, 0));
        }
        Ok(())
    }),
    ("files: COPY_FILE_RANGE out of a container and onto what is read-only", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
        let readonly = done("lookup", files.session.lookup(files.readonly, b"i-am-readonly"))?.node;
        let (from, to) = (
            done("open", files.session.open_file(file, 0))?,
            done("open", files.session.open_file(readonly, 0))?,
        );
        for (source, target) in [(from, to), (from, 77), (77, from), (from, from)] {
            for length in [10, u64::MAX] {
                let body = longs(&[source, 0, readonly, target, 0, length, 0]);
                refused("it", files.ask(op::COPY_FILE_RANGE, file, &body))?;
            }
        }
        Ok(())
    }),
    ("files: opening until nothing is left", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
        let mut handles = Vec::new();
        for _ in 0..2000 {
            match files.session.open_file(file, 0) {
                Ok(handle) => handles.push(handle),
                Err(Refusal::Errno(_)) => break,
                Err(Refusal::NoAnswer) => return Err("no answer".into()),
            }
        }
        if let Some(other) = files.other {
            done("another container's file meanwhile", files.session.lookup(other, b"i-am-other"))?;
        }
        for handle in handles {
            done("release", files.session.release(file, handle))?;
        }
        Ok(())
    }),
    ("files: looking up until nothing is left", |files| {
        let many = done("lookup", files.session.lookup(files.rootfs, b"many"))?.node;
        for number in 0..2000 {
            match files.session.lookup(many, format!("{number}").as_bytes()) {
                Ok(_) => {}
                Err(Refusal::Errno(_)) => break,
                Err(Refusal::NoAnswer) => return Err("no answer".into()),
            }
        }
        if let Some(other) = files.other {
            done("another container's file meanwhile", files.session.lookup(other, b"i-am-other"))?;
        }
        // As if its kernel had begun anew: all of it is forgotten.
        *files = Files::open()?;
        Ok(())
    }),
    ("files: attributes that nothing has", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        for name in [
            &b""[..],
            b"user.",
            b"trusted.overlay.opaque",
            b"security.selinux",
            b"system.posix_acl_access",
            b"bogus",
        ] {
            for value in [&b""[..], b"x", &[0xff; 60_000]] {
                let body = [&words(&[value.len() as u32, 0])[..], name, b"\0", value].concat();
                let _ = files.ask(op::SETXATTR, file, &body);
                let _ = files.ask(op::GETXATTR, file, &named(&words(&[65536, 0]), name));
                let _ = files.ask(op::REMOVEXATTR, file, &named(&[], name));
            }
        }
        Ok(())
    }),
    ("files: truncating to 8 EiB, and to less than nothing", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        for size in [u64::MAX, 1 << 63, (1 << 63) - 1] {
            let _ = files.ask(op::SETATTR, file, &set_size(size));
        }
        done("truncating to 8 bytes", files.ask(op::SETATTR, file, &set_size(8)))?;
        Ok(())
    }),
    ("files: owners and modes that there are not", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        for (valid, value) in [(1, u32::MAX), (2, u32::MAX), (4, u32::MAX), (u32::MAX, u32::MAX)] {
            let mut body = words(&[valid, 0]);
            body.extend(longs(&[0, 8, 0, u64::MAX, u64::MAX, u64::MAX]));
            body.extend(words(&[u32::MAX, u32::MAX, u32::MAX, value, 0, value, value, 0]));
            let _ = files.ask(op::SETATTR, file, &body);
        }
        files.session.caller = (u32::MAX, u32::MAX);
        let _ = files.session.create(files.rootfs, b"of-nobody", flag::CREAT | flag::RDWR, 0o106777);
        let _ = files.ask(op::MKDIR, files.rootfs, &named(&words(&[0o7777, 0]), b"nobodys"));
        files.session.caller = (0, 0);
        done("truncating", files.ask(op::SETATTR, file, &set_size(8))).map(drop)
    }),
    ("files: locks", |files| {
        let file = done("lookup", files.session.lookup(files.rootfs, b"scratch"))?.node;
        let handle = done("open", files.session.open_file(file, flag::RDWR))?;
        for opcode in op::GETLK..=op::SETLKW {
            for (kind, bits) in [(1, 0), (1, 1), (0, 1), (2, 0), (77, u32::MAX)] {
                let mut body = longs(&[handle, u64::MAX, 0, u64::MAX]);
                body.extend(words(&[kind, 1, bits, 0]));
                let _ = files.ask(opcode, file, &body);
                body.truncate(8);
                let _ = files.ask(opcode, file, &body);
            }
        }
        Ok(())
    }),
    ("files: O_TMPFILE", |files| {
        for flags in [flag::TMPFILE | flag::RDWR, flag::TMPFILE | flag::PATH, flag::TMPFILE | flag::CREAT] {
            for directory in [files.rootfs, files.readonly, files.share, ROOT] {
                let answer =
                    files.session.ask(op::TMPFILE, directory, &named(&words(&[flags, 0o100644, 0, 0]), b"/"));
                if directory != files.rootfs {
                    refused("TMPFILE", answer)?;
                }
                let _ = files.session.open_file(directory, flags);
                let _ = files.session.create(directory, b"file", flags, 0o100644);
            }
        }
        Ok(())
    }),
    ("files: the secret is one", |files| {
        // This suite would see it: a file of the container's own that has its words.
        let node = done("lookup", files.session.lookup(files.volume, b"decoy"))?.node;
        let handle = done("open", files.session.open_file(node, 0))?;
        done("read", files.session.read(node, handle, 0, 100, 0))?;
        let seen = core::mem::take(&mut files.session.leaked);
        if seen {
            Ok(())
        } else {
            Err(format!("{:?} was not seen in the decoy", String::from_utf8_lossy(SECRET)))
        }
    }),
];

impl Files {
    pub fn session_node(&mut self, name: &str) -> Result<u64, String> {
        Ok(done(name, self.session.walk(self.rootfs, name))?.node)
    }
}

/// FATTR_SIZE alone.
fn set_size(size: u64) -> Vec<u8> {
    let mut body = words(&[1 << 3, 0]);
    body.extend(longs(&[0, size, 0, 0, 0, 0]));
    body.extend(words(&[0; 8]));
    body
}

/// A handle that cannot be read must not become one of another file.
fn double_close(files: &mut Files, open_flags: u32, read_flags: u32) -> Outcome {
    let file = done("lookup", files.session.lookup(files.rootfs, b"file"))?.node;
    let other = files.session_node("i-am-rootfs")?;
    let handles: Vec<u64> = (0..8).filter_map(|_| files.session.open_file(file, open_flags).ok()).collect();
    for handle in &handles {
        let _ = files.session.read(file, *handle, 0, 64, read_flags);
    }
    let others: Vec<u64> = (0..8).filter_map(|_| files.session.open_file(other, 0).ok()).collect();
    for handle in &handles {
        if files.session.read(file, *handle, 0, 64, 0).is_ok_and(|content| contains(&content, b"yes")) {
            return Err("a handle reads another file now".into());
        }
        let _ = files.session.release(file, *handle);
    }
    for handle in &others {
        done("READ of a handle behind a closed one", files.session.read(other, *handle, 0, 64, 0))?;
        let _ = files.session.release(other, *handle);
    }
    Ok(())
}

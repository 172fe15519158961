//! What attacks on the file server start from: the trees that the guest has, and what is refused in them. What the test has put
//! into the trees is told in `tests/tests/hostile_files.rs`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Outcome, Report, files_handles, files_names, files_sizes};
use crate::fuse::{Answer, ROOT, Refusal, Session, flag, longs, named, op, words};

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
    /// Which they are, by names: of the share, and in it.
    places: Vec<(Tree, [Vec<u8>; 2])>,
}

#[derive(Clone, Copy)]
enum Tree {
    Rootfs,
    Readonly,
    Volume,
    Sys,
    Other,
}

/// One attack.
pub type Case = (&'static str, fn(&mut Files) -> Outcome);

impl Files {
    pub fn open() -> Result<Self, String> {
        let session = Session::start()?;
        let mut files = Self {
            session,
            share: 0,
            rootfs: 0,
            readonly: 0,
            volume: 0,
            sys: 0,
            other: None,
            places: Vec::new(),
        };
        files.find().map_err(|refusal| format!("cannot find the trees: {refusal:?}"))?;
        match files.places.len() {
            4.. => Ok(files),
            found => Err(format!("there are only {found} trees")),
        }
    }

    /// A session anew, once the device has failed.
    pub fn open_again(&mut self) -> Outcome {
        // Roots of trees keep their numbers, whatever the guest forgets.
        let given = core::mem::take(&mut self.session.given);
        self.session = Session::start()?;
        self.session.given = given;
        self.find_again().map_err(|refusal| format!("cannot find the trees again: {refusal:?}"))
    }

    /// Tells the trees by a file that the test has put into each.
    fn find(&mut self) -> Answer<()> {
        for share in self.session.names(ROOT)?.into_iter().filter(|name| !name.starts_with(b".")) {
            let node = self.session.lookup(ROOT, &share)?.node;
            for name in self.session.names(node)?.into_iter().filter(|name| !name.starts_with(b".")) {
                let tree = self.session.lookup(node, &name)?.node;
                let mut has = |name: &[u8]| self.session.lookup(tree, name).is_ok();
                let tree = if has(b"i-am-rootfs") {
                    Tree::Rootfs
                } else if has(b"i-am-readonly") {
                    Tree::Readonly
                } else if has(b"i-am-volume") {
                    Tree::Volume
                } else if has(b"i-am-other") {
                    Tree::Other
                } else if has(b"kernel") && has(b"fs") {
                    Tree::Sys
                } else {
                    continue;
                };
                self.places.push((tree, [share.clone(), name]));
            }
        }
        self.find_again()
    }

    /// Looks them up where they were.
    pub fn find_again(&mut self) -> Answer<()> {
        for (tree, [share, name]) in self.places.clone() {
            let share = self.session.lookup(ROOT, &share)?.node;
            let node = self.session.lookup(share, &name)?.node;
            match tree {
                Tree::Rootfs => (self.share, self.rootfs) = (share, node),
                Tree::Readonly => self.readonly = node,
                Tree::Volume => self.volume = node,
                Tree::Sys => self.sys = node,
                Tree::Other => self.other = Some(node),
            }
        }
        Ok(())
    }

    pub fn session_node(&mut self, name: &str) -> Result<u64, String> {
        Ok(done(name, self.session.walk(self.rootfs, name))?.node)
    }

    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Answer<Vec<u8>> {
        self.session.ask(opcode, node, body)
    }

    /// A device that has failed is reset; one that is silent has gone wrong.
    pub fn renew(&mut self) -> Outcome {
        if self.session.slot.has_failed() {
            return self.open_again();
        }
        match self.session.attributes(ROOT) {
            Err(Refusal::NoAnswer) if self.session.slot.has_failed() => self.open_again(),
            Err(Refusal::NoAnswer) => Err("it does not answer any more".into()),
            _ => Ok(()),
        }
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
            files.renew()?;
            files.works()
        })();
        if outcome.is_err() {
            files = None;
        }
        report.end(name, outcome);
    }
}

pub fn run(report: &mut Report<'_>) {
    run_all(report, &files_names::CASES);
    run_all(report, &files_handles::CASES);
    run_all(report, &files_sizes::CASES);
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

/// Nothing is made of this name in this directory, by any request.
pub fn makes_nothing(files: &mut Files, directory: u64, name: &[u8]) -> Outcome {
    let file = files.session_node("file")?;
    refused("CREATE", files.session.create(directory, name, flag::CREAT | flag::RDWR, 0o100644))?;
    refused("MKNOD", files.ask(op::MKNOD, directory, &named(&words(&[0o100644, 0, 0, 0]), name)))?;
    refused("MKDIR", files.ask(op::MKDIR, directory, &named(&words(&[0o755, 0]), name)))?;
    refused("SYMLINK", files.ask(op::SYMLINK, directory, &named(&named(&[], name), b"/proc")))?;
    refused("LINK", files.ask(op::LINK, directory, &named(&longs(&[file]), name)))?;
    let rename = [&longs(&[directory])[..], b"file\0", name, b"\0"].concat();
    refused("RENAME to it", files.ask(op::RENAME, files.rootfs, &rename))
}

/// Nothing of this name in this directory is removed or renamed.
pub fn removes_nothing(files: &mut Files, directory: u64, name: &[u8]) -> Outcome {
    refused("UNLINK", files.ask(op::UNLINK, directory, &named(&[], name)))?;
    refused("RMDIR", files.ask(op::RMDIR, directory, &named(&[], name)))?;
    let rename = [&longs(&[files.rootfs])[..], name, b"\0", b"new\0"].concat();
    refused("RENAME from it", files.ask(op::RENAME, directory, &rename))
}

//! Attacks on the file server by links, special files, and directories that are not the guest's.

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::files::{Case, Files, done, makes_nothing, refused, run_all};
use super::{Outcome, Report};
use crate::cpu;
use crate::fuse::{ROOT, Refusal, Session, flag, longs, named, op, words, write_body};

pub fn run(report: &mut Report<'_>) {
    run_all(report, &CASES);
}

/// What the test has put into the root file system, and what each leads to on the host.
const LINKS: [&[u8]; 6] = [
    b"link-to-secret",
    b"link-up-to-secret",
    b"link-to-proc",
    b"link-to-core-pattern",
    b"link-up",
    b"link-to-new",
];

const CASES: [Case; 18] = [
    ("links: a link is a link, and is not opened", |files| {
        for name in LINKS {
            let entry = done("lookup", files.session.lookup(files.rootfs, name))?;
            if entry.mode & 0o170000 != 0o120000 {
                return Err(format!("{name:?} has mode {:#o}", entry.mode));
            }
            for flags in [
                0,
                flag::RDWR,
                flag::WRONLY | flag::TRUNC,
                flag::PATH,
                flag::PATH | flag::RDWR,
                flag::CREAT | flag::RDWR,
            ] {
                if let Ok(handle) = files.session.open_file(entry.node, flags) {
                    let _ = files.session.read(entry.node, handle, 0, 100, 0);
                    let _ = files.session.write(entry.node, handle, 0, b"|/by-a-guest %P");
                    if flags & flag::PATH == 0 {
                        return Err(format!("{:?} is opened with {flags:#o}", core::str::from_utf8(name)));
                    }
                }
            }
            refused("OPENDIR", files.session.open_dir(entry.node))?;
            refused("LOOKUP below it", files.session.lookup(entry.node, b"secret"))?;
            refused("LOOKUP of '.' below it", files.session.lookup(entry.node, b"self"))?;
            refused(
                "CREATE below it",
                files.session.create(entry.node, b"new", flag::CREAT | flag::RDWR, 0o100644),
            )?;
            let _ = files.ask(op::GETXATTR, entry.node, &named(&words(&[100, 0]), b"user.a"));
            let _ = files.ask(op::SETXATTR, entry.node, &named(&named(&words(&[1, 0]), b"user.a"), b"x"));
        }
        Ok(())
    }),
    ("links: CREATE in place of a link", |files| {
        for name in LINKS {
            for flags in [flag::CREAT, flag::CREAT | flag::TRUNC, flag::CREAT | flag::EXCL, flag::TRUNC, 0] {
                for flags in [flags | flag::RDWR, flags | flag::WRONLY, flags | flag::PATH, flags] {
                    if let Ok((node, handle)) = files.session.create(files.rootfs, name, flags, 0o100644) {
                        let _ = files.session.read(node, handle, 0, 100, 0);
                        let _ = files.session.write(node, handle, 0, b"|/by-a-guest %P");
                        if flags & flag::PATH == 0 {
                            return Err(format!(
                                "{:?} is created with {flags:#o}",
                                core::str::from_utf8(name)
                            ));
                        }
                        let _ = files.session.release(node, handle);
                    }
                }
            }
        }
        Ok(())
    }),
    ("links: the modes, owners and sizes of what a link leads to", |files| {
        for name in LINKS {
            let node = done("lookup", files.session.lookup(files.rootfs, name))?.node;
            for valid in [1, 1 << 3, 1 << 1 | 1 << 2, 1 << 4 | 1 << 5] {
                let mut body = words(&[valid, 0]);
                body.extend(longs(&[0, 0, 0, 1, 1, 1]));
                body.extend(words(&[1, 1, 1, 0o106777, 0, 7, 7, 0]));
                let _ = files.ask(op::SETATTR, node, &body);
            }
        }
        Ok(())
    }),
    ("links: the guest's own, to everywhere", |files| {
        let targets =
            ["/", "/proc/self/fd", "/proc/1/root", "../../../../../../../..", "/sys/kernel", "/dev"];
        for (number, target) in targets.iter().enumerate() {
            let name = format!("planted-{number}");
            let body = named(&named(&[], name.as_bytes()), target.as_bytes());
            done("SYMLINK", files.ask(op::SYMLINK, files.rootfs, &body))?;
            let node = files.session_node(&name)?;
            let text = done("READLINK", files.ask(op::READLINK, node, &[]))?;
            if text != target.as_bytes() {
                return Err(format!("a link to {target} reads {text:?}"));
            }
            refused("OPEN", files.session.open_file(node, 0))?;
            refused("OPENDIR", files.session.open_dir(node))?;
            refused("LOOKUP", files.session.lookup(node, b"self"))?;
        }
        Ok(())
    }),
    ("links: a directory that becomes a link between two requests", |files| {
        let rootfs = files.rootfs;
        done("MKDIR", files.ask(op::MKDIR, rootfs, &named(&words(&[0o755, 0]), b"becomes")))?;
        let node = files.session_node("becomes")?;
        done("RMDIR", files.ask(op::RMDIR, rootfs, &named(&[], b"becomes")))?;
        done(
            "SYMLINK",
            files.ask(op::SYMLINK, rootfs, &named(&named(&[], b"becomes"), b"/proc/sys/kernel")),
        )?;
        refused("LOOKUP in what it was", files.session.lookup(node, b"core_pattern"))?;
        refused(
            "CREATE in what it was",
            files.session.create(node, b"x", flag::CREAT | flag::RDWR, 0o100644),
        )?;
        done("UNLINK", files.ask(op::UNLINK, rootfs, &named(&[], b"becomes"))).map(drop)
    }),
    ("special: the host's devices are not opened", |files| {
        let devices = [
            (0o020666, 1, 1),
            (0o020666, 1, 3),
            (0o020666, 5, 1),
            (0o060666, 8, 0),
            (0o060666, 7, 0),
            (0o020666, 10, 232),
        ];
        for (mode, major, minor) in devices {
            let name = format!("device-{major}-{minor}");
            let body = named(&words(&[mode, major << 8 | minor, 0, 0]), name.as_bytes());
            let _ = files.ask(op::MKNOD, files.rootfs, &body);
            let Ok(entry) = files.session.lookup(files.rootfs, name.as_bytes()) else { continue };
            for flags in [0, flag::RDWR, flag::WRONLY, flag::DIRECT] {
                refused(&name, files.session.open_file(entry.node, flags))?;
                let created =
                    files.session.create(files.rootfs, name.as_bytes(), flag::CREAT | flags, 0o100644);
                refused("CREATE of it", created)?;
            }
        }
        Ok(())
    }),
    ("special: pipes and sockets are not opened, and hold up nobody", |files| {
        for (name, mode) in [("a-pipe", 0o010666), ("a-socket", 0o140666)] {
            let body = named(&words(&[mode, 0, 0, 0]), name.as_bytes());
            let _ = files.ask(op::MKNOD, files.rootfs, &body);
            let Ok(entry) = files.session.lookup(files.rootfs, name.as_bytes()) else { continue };
            let before = cpu::now();
            for flags in [0, flag::RDWR, flag::WRONLY] {
                refused(name, files.session.open_file(entry.node, flags))?;
                let created =
                    files.session.create(files.rootfs, name.as_bytes(), flag::CREAT | flags, 0o100644);
                refused("CREATE of it", created)?;
            }
            if cpu::now() > before + (cpu::in_ms(5000) - cpu::now()) {
                return Err(format!("OPEN of {name} takes more than 5 seconds"));
            }
        }
        Ok(())
    }),
    ("special: kinds of files that there are not", |files| {
        for mode in [0, 0o170000, 0o050000, 0o040755, 0o120777, 0o030000, u32::MAX] {
            let name = format!("kind-{mode:o}");
            let body = named(&words(&[mode, 0x0101, 0, 0]), name.as_bytes());
            if files.ask(op::MKNOD, files.rootfs, &body).is_err() {
                continue;
            }
            let entry = done("lookup", files.session.lookup(files.rootfs, name.as_bytes()))?;
            if entry.mode & 0o170000 != 0o100000 {
                return Err(format!("MKNOD of mode {mode:#o} makes one of {:#o}", entry.mode));
            }
        }
        Ok(())
    }),
    ("trees: nothing is made in directories of shares", |files| {
        for directory in [ROOT, files.share] {
            make_everything(files, directory)?;
        }
        Ok(())
    }),
    ("trees: nothing is taken away from directories of shares", |files| {
        for directory in [ROOT, files.share] {
            for name in done("names", files.session.names(directory))? {
                if name.starts_with(b".") {
                    continue;
                }
                refused("UNLINK", files.ask(op::UNLINK, directory, &named(&[], &name)))?;
                refused("RMDIR", files.ask(op::RMDIR, directory, &named(&[], &name)))?;
                for target in [directory, files.rootfs] {
                    let body = [&longs(&[target])[..], &name, b"\0moved\0"].concat();
                    refused("RENAME", files.ask(op::RENAME, directory, &body))?;
                }
            }
        }
        Ok(())
    }),
    ("trees: the owners and modes of directories of shares stay", |files| {
        for directory in [ROOT, files.share] {
            let mut body = words(&[0b111, 0]);
            body.extend(longs(&[0, 0, 0, 0, 0, 0]));
            body.extend(words(&[0, 0, 0, 0o777, 0, 1000, 1000, 0]));
            let _ = files.ask(op::SETATTR, directory, &body);
            let _ = files.ask(op::SETXATTR, directory, &[&words(&[1, 0])[..], b"user.a\0x"].concat());
        }
        Ok(())
    }),
    ("trees: nothing is written to a read-only one", |files| {
        let readonly = files.readonly;
        make_everything(files, readonly)?;
        let file = done("lookup", files.session.lookup(readonly, b"i-am-readonly"))?.node;
        change_everything(files, readonly, file, b"i-am-readonly")
    }),
    ("trees: nothing is written to the host's /sys", |files| {
        let names =
            ["kernel/uevent_helper", "kernel/profiling", "kernel/rcu_expedited", "kernel/uevent_seqnum"];
        let found = names.iter().find_map(|name| files.session.walk(files.sys, name).ok());
        let node = found.ok_or("there is none of the files")?.node;
        for flags in [flag::RDWR, flag::WRONLY, flag::WRONLY | flag::TRUNC] {
            refused("OPEN", files.session.open_file(node, flags))?;
        }
        let sys = files.sys;
        make_everything(files, sys)
    }),
    ("trees: no link and no rename from one to another", |files| {
        let (rootfs, volume, readonly) = (files.rootfs, files.volume, files.readonly);
        let file = files.session_node("file")?;
        let foreign = done("lookup", files.session.lookup(readonly, b"i-am-readonly"))?.node;
        for (target, node) in
            [(volume, file), (readonly, file), (rootfs, foreign), (volume, foreign), (ROOT, file)]
        {
            refused("LINK", files.ask(op::LINK, target, &named(&longs(&[node]), b"linked")))?;
        }
        for (from, to, name) in [
            (rootfs, volume, &b"file"[..]),
            (rootfs, readonly, b"file"),
            (readonly, rootfs, b"i-am-readonly"),
            (rootfs, ROOT, b"file"),
        ] {
            let body = [&longs(&[to])[..], name, b"\0moved\0"].concat();
            refused("RENAME", files.ask(op::RENAME, from, &body))?;
            for flags in [0, 1, 2, 4, 7, u32::MAX] {
                let body = [&longs(&[to])[..], &words(&[flags, 0]), name, b"\0moved\0"].concat();
                refused("RENAME2", files.ask(op::RENAME2, from, &body))?;
            }
        }
        Ok(())
    }),
    ("trees: RENAME2 that leaves devices behind, or is nothing", |files| {
        let rootfs = files.rootfs;
        done("CREATE", files.session.create(rootfs, b"white", flag::CREAT | flag::RDWR, 0o100644))?;
        for flags in [4, 5, 6, 8, u32::MAX] {
            let body = [&longs(&[rootfs])[..], &words(&[flags, 0]), b"white\0whiter\0"].concat();
            let _ = files.ask(op::RENAME2, rootfs, &body);
            if let Ok(entry) = files.session.lookup(rootfs, b"white") {
                let _ = files.session.open_file(entry.node, flag::RDWR);
            }
        }
        Ok(())
    }),
    ("trees: programs of root, in a tree that may be written to", |files| {
        // They may be made: the host mounts these trees so that they have no effect, and what is read-only stays as it is.
        let (node, handle) =
            done("CREATE", files.session.create(files.volume, b"suid", flag::CREAT | flag::RDWR, 0o106777))?;
        let _ = files.session.write(node, handle, 0, b"#!/bin/sh\n");
        let capability: Vec<u8> = words(&[0x0200_0001, u32::MAX, 0, u32::MAX, 0]);
        let body =
            [&words(&[capability.len() as u32, 0])[..], b"security.capability\0", &capability].concat();
        let _ = files.ask(op::SETXATTR, node, &body);
        let readonly = done("lookup", files.session.lookup(files.readonly, b"i-am-readonly"))?.node;
        refused("SETXATTR", files.ask(op::SETXATTR, readonly, &body))
    }),
    ("trees: a writable handle of another tree on a read-only node", |files| {
        let file = files.session_node("scratch")?;
        let foreign = done("lookup", files.session.lookup(files.readonly, b"i-am-readonly"))?.node;
        let handle = done("OPEN", files.session.open_file(file, flag::RDWR))?;
        let _ = files.ask(op::WRITE, foreign, &write_body(handle, 0, 7, b"written"));
        let mut body = words(&[1 << 3 | 1 << 6, 0]);
        body.extend(longs(&[handle, 0, 0, 0, 0, 0]));
        body.extend(words(&[0; 8]));
        let _ = files.ask(op::SETATTR, foreign, &body);
        let _ = files.session.release(file, handle);
        Ok(())
    }),
    ("trees: a file that is unlinked while it is open", |files| {
        let (node, handle) = done(
            "CREATE",
            files.session.create(files.rootfs, b"unlinked", flag::CREAT | flag::RDWR, 0o100644),
        )?;
        done("UNLINK", files.ask(op::UNLINK, files.rootfs, &named(&[], b"unlinked")))?;
        done("WRITE", files.session.write(node, handle, 0, b"kept"))?;
        let content = done("READ", files.session.read(node, handle, 0, 100, 0))?;
        let _ = files.session.open_file(node, flag::RDWR);
        let _ = files.ask(op::LINK, files.volume, &named(&longs(&[node]), b"back"));
        match &content[..] {
            b"kept" => Ok(()),
            _ => Err(format!("it reads {content:?}")),
        }
    }),
];

/// A read-only root is one from the first moment: how many files could be made when it was being created, and now.
pub fn run_sealed(report: &mut Report<'_>) {
    let made = MADE.load(Ordering::Relaxed);
    report.case("sealed: nothing is made while the container is being created", |_| match made {
        u32::MAX => Err("it was not tried".into()),
        0 => Ok(()),
        made => Err(format!("{made} files were made")),
    });
    report.case("sealed: nor afterwards", |_| {
        write_everywhere();
        match MADE.load(Ordering::Relaxed) - made {
            0 => Ok(()),
            made => Err(format!("{made} files were made")),
        }
    });
}

/// How many files [`write_everywhere`] has made.
static MADE: AtomicU32 = AtomicU32::new(u32::MAX);

/// Makes a file in every tree of every share, and in the directories between them.
pub fn write_everywhere() {
    let Ok(mut session) = Session::start() else { return };
    let mut made = 0;
    let mut directories: Vec<u64> = [ROOT].into();
    for depth in 0..2 {
        for directory in directories.split_off(if depth == 0 { 0 } else { 1 }) {
            directories.push(directory);
            for name in session.names(directory).unwrap_or_default() {
                if !name.starts_with(b".") {
                    directories.extend(session.lookup(directory, &name).map(|entry| entry.node));
                }
            }
        }
    }
    for directory in directories {
        let flags = flag::CREAT | flag::RDWR;
        made += u32::from(session.create(directory, b"PWNED", flags, 0o100644).is_ok());
    }
    let before = MADE.load(Ordering::Relaxed);
    MADE.store(if before == u32::MAX { made } else { before + made }, Ordering::Relaxed);
}

/// Every way to make something, in a directory where nothing can be made.
fn make_everything(files: &mut Files, directory: u64) -> Outcome {
    ["made-0", "made-1", "made-2"]
        .iter()
        .try_for_each(|name| makes_nothing(files, directory, name.as_bytes()))
}

/// Every way to change a file, where none can be changed.
fn change_everything(files: &mut Files, directory: u64, file: u64, name: &[u8]) -> Outcome {
    for flags in
        [flag::RDWR, flag::WRONLY, flag::TRUNC | flag::RDWR, flag::TRUNC, flag::WRONLY | flag::DIRECT]
    {
        if let Ok(handle) = files.session.open_file(file, flags) {
            // O_TRUNC alone may open it for reading; that it is not truncated, the test sees.
            refused("WRITE", files.session.write(file, handle, 0, b"written"))?;
            refused("FALLOCATE", files.ask(op::FALLOCATE, file, &longs(&[handle, 0, 100, 0])))?;
            let _ = files.session.release(file, handle);
        }
    }
    for valid in [1, 1 << 1, 1 << 2, 1 << 3, 1 << 4 | 1 << 5, 1 << 4 | 1 << 7, 1 << 5 | 1 << 8] {
        let mut body = words(&[valid, 0]);
        body.extend(longs(&[0, 0, 0, 1, 1, 1]));
        body.extend(words(&[1, 1, 1, 0o100777, 0, 7, 7, 0]));
        refused("SETATTR", files.ask(op::SETATTR, file, &body))?;
    }
    refused("SETXATTR", files.ask(op::SETXATTR, file, &[&words(&[1, 0])[..], b"user.a\0x"].concat()))?;
    refused("REMOVEXATTR", files.ask(op::REMOVEXATTR, file, &named(&[], b"user.kept")))?;
    refused("UNLINK", files.ask(op::UNLINK, directory, &named(&[], name)))?;
    refused("RMDIR", files.ask(op::RMDIR, directory, &named(&[], b"directory")))?;
    match files.session.open_file(file, 0) {
        Ok(handle) => {
            refused("WRITE by a handle for reading", files.session.write(file, handle, 0, b"written"))?;
            refused("FALLOCATE", files.ask(op::FALLOCATE, file, &longs(&[handle, 0, 100, 0])))?;
            let mut body = words(&[1 << 3 | 1 << 6, 0]);
            body.extend(longs(&[handle, 0, 0, 0, 0, 0]));
            body.extend(words(&[0; 8]));
            refused("SETATTR by a handle", files.ask(op::SETATTR, file, &body))
        }
        Err(Refusal::Errno(_) | Refusal::NoAnswer) => Err("it cannot be read".into()),
    }
}

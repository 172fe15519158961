//! Attacks on the file server by names, and by nodes that are not the guest's.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::files::{Case, done, makes_nothing, refused, removes_nothing};
use crate::fuse::{ROOT, SECRET, flag, longs, named, op, words};

pub const CASES: [Case; 10] = [
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
        let rootfs = files.rootfs;
        for name in [
            &b"directory/file"[..],
            b"../outside/secret",
            b"/etc/passwd",
            b"directory/../../outside/new",
            b"/new",
        ] {
            refused("LOOKUP", files.session.lookup(rootfs, name))?;
            makes_nothing(files, rootfs, name)?;
            removes_nothing(files, rootfs, name)?;
        }
        Ok(())
    }),
    ("files: names that are '.' or '..' or nothing make nothing", |files| {
        for name in [&b".."[..], b".", b""] {
            makes_nothing(files, files.rootfs, name)?;
            removes_nothing(files, files.rootfs, name)?;
        }
        Ok(())
    }),
    ("files: SYMLINK at a path of the host's (CVE-2026-47243)", |files| {
        let link = files.session_node("link-to-new")?;
        // Where the host keeps what the test compares afterwards.
        let path = done("READLINK", files.ask(op::READLINK, link, &[]))?;
        let above = [&b"../../../../../../../.."[..], &path].concat();
        for directory in [ROOT, files.share, files.rootfs, files.readonly, files.volume, files.sys] {
            for name in [&path[..], &above, b"/proc/self/fd/0/planted", b"/planted"] {
                let body = named(&named(&[], name), b"/etc/passwd");
                refused("SYMLINK", files.ask(op::SYMLINK, directory, &body))?;
            }
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
        let given = files.session.given.clone();
        for node in nodes.into_iter().chain(near.take(200)).filter(|node| !given.contains(node)) {
            refused(&format!("GETATTR of {node:#x}"), files.session.attributes(node))?;
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
        files.find_again().map_err(|refusal| format!("the trees are gone: {refusal:?}"))
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

//! Attacks on the file server by handles: of other nodes, released ones, and more than there may be.

use alloc::format;
use alloc::vec::Vec;

use super::Outcome;
use super::files::{Case, Files, done, refused};
use crate::fuse::{Refusal, contains, flag, longs, op, read_body, words};

pub const CASES: [Case; 9] = [
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
    ("files: O_PATH, and then READ", |files| {
        let node = files.session_node("file")?;
        double_close(files, node, flag::PATH, 0)
    }),
    ("files: READ with O_DIRECT where the file system has none", |files| {
        let node = done("lookup", files.session.walk(files.sys, "kernel/uevent_seqnum"))?.node;
        double_close(files, node, 0, flag::DIRECT)
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
];

/// A handle that cannot be read must not become one of another file.
fn double_close(files: &mut Files, node: u64, open_flags: u32, read_flags: u32) -> Outcome {
    let other = files.session_node("i-am-rootfs")?;
    let handles: Vec<u64> = (0..16).filter_map(|_| files.session.open_file(node, open_flags).ok()).collect();
    for handle in &handles {
        let _ = files.session.read(node, *handle, 0, 4096, read_flags);
    }
    // Where a descriptor was closed behind a handle, one of these has its number now.
    let others: Vec<u64> = (0..16).filter_map(|_| files.session.open_file(other, 0).ok()).collect();
    for handle in &handles {
        if files.session.read(node, *handle, 0, 4096, 0).is_ok_and(|content| contains(&content, b"yes")) {
            return Err("a handle reads another file now".into());
        }
        let _ = files.session.release(node, *handle);
    }
    for handle in &others {
        done("READ of a handle behind a closed one", files.session.read(other, *handle, 0, 100, 0))?;
        let _ = files.session.release(other, *handle);
    }
    Ok(())
}

//! Attacks on the file server by requests that are none.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::Report;
use super::files::{Case, Files, done, refused, run_all};
use crate::fuse::{HEADER, ROOT, Session, flag, longs, named, op, read_body, words};

pub fn run(report: &mut Report<'_>) {
    run_all(report, &CASES);
}

/// The opcodes that there are, and some that there are not.
fn opcodes() -> impl Iterator<Item = u32> {
    (0..60).chain([100, 255, 256, 4096, 0x0010_0000, 1 << 31, u32::MAX])
}

const CASES: [Case; 12] = [
    ("shape: a header that lies about its length", |files| {
        for length in [0, 1, 39, 40, 41, 44, 1000, 1 << 20, 1 << 31, u32::MAX] {
            let _ = files.session.ask_raw(op::LOOKUP, files.rootfs, b"file\0", length, 4096);
            let _ = files.session.ask_raw(op::GETATTR, files.rootfs, &[0; 16], length, 4096);
            files.renew()?;
        }
        Ok(())
    }),
    ("shape: less than a header", |files| {
        for length in [0, 1, 7, 8, 39] {
            let _ = files.session.send(&vec![0; length], 4096);
            let _ = files.session.send(&vec![0xff; length], 4096);
            files.renew()?;
        }
        Ok(())
    }),
    ("shape: a body that is cut off, for every opcode", |files| {
        for opcode in opcodes().filter(|opcode| *opcode != op::DESTROY && *opcode != op::INIT) {
            for length in [0, 7, 8, 39] {
                let _ = files.ask(opcode, files.rootfs, &vec![0xff; length]);
                files.renew()?;
            }
        }
        Ok(())
    }),
    ("shape: a body that is far too long, for every opcode", |files| {
        for opcode in opcodes().filter(|opcode| *opcode != op::DESTROY && *opcode != op::INIT) {
            let _ = files.ask(opcode, files.rootfs, &vec![b'a'; 20_000]);
            files.renew()?;
        }
        Ok(())
    }),
    ("shape: little room for the reply, or none", |files| {
        for room in [0, 1, 8, 15, 16, 17, 40] {
            for opcode in [op::GETATTR, op::READ, op::LOOKUP, op::READDIR] {
                let file = files.session_node("i-am-rootfs")?;
                let handle = done("open", files.session.open_file(file, 0))?;
                let (node, body) = match opcode {
                    op::GETATTR => (file, vec![0; 16]),
                    op::LOOKUP => (files.rootfs, b"file\0".to_vec()),
                    _ => (file, read_body(handle, 0, 60_000, 0)),
                };
                let length = (HEADER + body.len()) as u32;
                let _ = files.session.ask_raw(opcode, node, &body, length, room);
                files.renew()?;
            }
        }
        Ok(())
    }),
    ("shape: a request and a reply in pieces of one byte", |files| {
        let body = b"i-am-rootfs\0";
        let mut bytes = words(&[(HEADER + body.len()) as u32, op::LOOKUP]);
        bytes.extend(longs(&[4242, files.rootfs]));
        bytes.extend(words(&[0, 0, 1, 0]));
        bytes.extend_from_slice(body);
        match files.session.send_in_pieces(&bytes, 4096) {
            Ok(reply) if reply.len() >= 8 => Ok(()),
            // 72 descriptors are within what a chain may have.
            other => Err(format!("it gives {other:?}")),
        }
    }),
    ("shape: requests before INIT", |_| {
        let mut session = Session::open()?;
        let _ = session.lookup(ROOT, b"rootfs");
        let _ = session.open_dir(ROOT);
        let _ = session.create(ROOT, b"new", flag::CREAT | flag::RDWR, 0o100644);
        let _ = session.ask(op::DESTROY, 0, &[]);
        let _ = session.tell(op::FORGET, ROOT, &longs(&[u64::MAX]));
        Ok(())
    }),
    ("shape: INIT again, and of versions that there are not", |files| {
        for (major, minor) in
            [(7, 38), (7, 0), (7, 1), (6, 9), (0, 0), (8, 0), (u32::MAX, u32::MAX), (7, u32::MAX), (7, 38)]
        {
            let _ = files.session.init(major, minor);
            let _ = files.session.lookup(ROOT, b"rootfs");
            files.renew()?;
        }
        *files = Files::open()?;
        Ok(())
    }),
    ("shape: DESTROY, and on", |files| {
        let handle = files.session.open_dir(files.rootfs);
        let _ = files.ask(op::DESTROY, 0, &[]);
        let _ = files.session.names(files.rootfs);
        if let Ok(handle) = handle {
            let _ = files.ask(op::READDIR, files.rootfs, &read_body(handle, 0, 4096, 0));
            let _ = files.session.release(files.rootfs, handle);
        }
        *files = Files::open()?;
        Ok(())
    }),
    ("shape: what this server does not have", |files| {
        let file = files.session_node("scratch")?;
        let handle = done("open", files.session.open_file(file, flag::RDWR))?;
        let mapping = longs(&[handle, 0, 2 << 20, 3, 0]);
        refused("SETUPMAPPING", files.ask(op::SETUPMAPPING, file, &mapping))?;
        refused(
            "SETUPMAPPING at the end",
            files.ask(op::SETUPMAPPING, file, &longs(&[handle, u64::MAX, u64::MAX, 3, u64::MAX])),
        )?;
        let _ = files.ask(
            op::REMOVEMAPPING,
            file,
            &[&words(&[u32::MAX][..])[..], &longs(&[0, u64::MAX])].concat(),
        );
        for command in [0x5401, 0x5412, 0x4004_6601, 0xae80, 0xae01, 0x1261, u32::MAX] {
            let mut body = longs(&[handle]);
            body.extend(words(&[0, command]));
            body.extend(longs(&[u64::MAX]));
            body.extend(words(&[4096, 4096]));
            body.extend([0; 4096]);
            refused("IOCTL", files.ask(op::IOCTL, file, &body))?;
        }
        let _ = files.ask(op::POLL, file, &[longs(&[handle, 1]), words(&[1, 1])].concat());
        Ok(())
    }),
    ("shape: INTERRUPT of requests that there are not", |files| {
        for unique in [0, 1, 4, u64::MAX] {
            let _ = files.ask(op::INTERRUPT, 0, &longs(&[unique]));
            let _ = files.session.tell(op::INTERRUPT, 0, &longs(&[unique]));
            files.renew()?;
        }
        Ok(())
    }),
    ("shape: 1000 requests of chance", |files| {
        let mut dice = Dice(0x5eed);
        let nodes: Vec<u64> = [ROOT, files.share, files.rootfs, files.readonly, files.volume].into();
        for _ in 0..1000 {
            let opcode = dice.below(53) as u32;
            if matches!(opcode, op::DESTROY | op::INIT) {
                continue;
            }
            let node = nodes[dice.below(5) as usize] ^ if dice.below(8) == 0 { dice.next() } else { 0 };
            let mut body: Vec<u8> = (0..dice.below(80)).map(|_| dice.next() as u8 & 0x1f).collect();
            if dice.below(2) == 0 {
                body = named(&body, b"file");
            }
            let _ = files.ask(opcode, node, &body);
            files.renew()?;
        }
        Ok(())
    }),
];

/// Numbers that are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

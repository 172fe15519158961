//! Attacks on the file server by sizes, offsets and attributes that nothing has.

use alloc::vec::Vec;

use super::Outcome;
use super::files::{Case, Files, done, refused};
use crate::fuse::{flag, longs, named, op, read_body, words, write_body};

pub const CASES: [Case; 6] = [
    ("files: sizes up to 4 GiB", |files| {
        for size in [u32::MAX, 1 << 31, 1 << 30, 2 << 20] {
            for ask in OF_SIZES {
                let file = files.session_node("scratch")?;
                let handle = done("open", files.session.open_file(file, flag::RDWR))?;
                ask(files, file, handle, size)?;
                // What is not as long as it says fails the device, which is the guest's own.
                files.renew()?;
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
];

/// What is asked of a file, and of a handle of it, with a size in the request.
const OF_SIZES: [fn(&mut Files, u64, u64, u32) -> Outcome; 7] = [
    |files, file, _, size| {
        let _ = files.ask(op::GETXATTR, file, &named(&words(&[size, 0]), b"user.none"));
        Ok(())
    },
    |files, file, _, size| {
        let _ = files.ask(op::LISTXATTR, file, &words(&[size, 0]));
        Ok(())
    },
    |files, file, handle, size| {
        let _ = files.session.read(file, handle, 0, size, 0);
        Ok(())
    },
    |files, _, handle, size| {
        let _ = files.ask(op::READDIR, files.rootfs, &read_body(handle, 0, size, 0));
        Ok(())
    },
    |files, _, handle, size| {
        let _ = files.ask(op::READDIRPLUS, files.rootfs, &read_body(handle, 0, size, 0));
        Ok(())
    },
    |files, file, handle, size| {
        let written = files.ask(op::WRITE, file, &write_body(handle, 0, size, b"short"));
        refused("WRITE of more than there is", written)
    },
    |files, file, _, size| {
        let body = [&words(&[size, 0])[..], b"user.a\0", b"value"].concat();
        refused("SETXATTR of more than there is", files.ask(op::SETXATTR, file, &body))
    },
];

/// FATTR_SIZE alone.
fn set_size(size: u64) -> Vec<u8> {
    let mut body = words(&[1 << 3, 0]);
    body.extend(longs(&[0, size, 0, 0, 0, 0]));
    body.extend(words(&[0; 8]));
    body
}

//! Files of the host, and the mounts that they are on.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use super::{Attempt, HERE, READ};
use crate::call::{
    Outcome, at, attempt, attempt_descriptor, attempt_until, call, close, text, with_any_descriptor,
};
use crate::{REPORT_FILE, TREE_MARK};

const CORE_PATTERN: &CStr = c"/proc/sys/kernel/core_pattern";
const WRITE: libc::c_long = libc::O_WRONLY as libc::c_long;
const NEW: libc::c_long = (libc::O_CREAT | libc::O_WRONLY) as libc::c_long;
const DIRECTORY: libc::c_long = libc::O_DIRECTORY as libc::c_long;

pub const FILES: &[Attempt] = &[
    ("open core_pattern", || attempt_descriptor(libc::SYS_openat, &[HERE, text(CORE_PATTERN), WRITE])),
    ("open core_pattern by open", || attempt_descriptor(libc::SYS_open, &[text(CORE_PATTERN), WRITE])),
    ("open core_pattern by openat2", || {
        let how = [WRITE as u64, 0, 0];
        attempt_descriptor(libc::SYS_openat2, &[HERE, text(CORE_PATTERN), at(&how), 24])
    }),
    ("open core_pattern beside a descriptor", || with_any_descriptor(beside)),
    ("find anything in the root", || list(c"/")),
    ("find anything above the root", || list(c"../../../..")),
    ("find anything of procfs", || list(c"/proc")),
    ("find anything by a descriptor's link", || list(c"/proc/self/fd/0/..")),
    ("find anything above a descriptor's directory", || with_any_descriptor(look_above)),
    ("climb from a descriptor to the host's root", || with_any_descriptor(climb)),
    ("read a password", || attempt_descriptor(libc::SYS_openat, &[HERE, text(c"/etc/shadow"), READ])),
    ("see a password's file", || {
        let mut data = MaybeUninit::<libc::statx>::uninit();
        let data = data.as_mut_ptr() as libc::c_long;
        attempt(libc::SYS_statx, &[HERE, text(c"/etc/shadow"), 0, libc::STATX_ALL as libc::c_long, data])
    }),
    ("create a file in the root", || {
        attempt_descriptor(libc::SYS_openat, &[HERE, text(c"/made"), NEW, 0o666])
    }),
    ("create a file in the current directory", || {
        attempt_descriptor(libc::SYS_openat, &[HERE, text(c"made"), NEW, 0o666])
    }),
    ("make a directory", || attempt(libc::SYS_mkdirat, &[HERE, text(c"/made"), 0o777])),
    ("make a disk's node", || attempt(libc::SYS_mknodat, &[HERE, text(c"/made"), 0o060666, 8 << 8])),
    ("make a disk's node by mknod", || attempt(libc::SYS_mknod, &[text(c"/made"), 0o060666, 8 << 8])),
    ("make a link", || attempt(libc::SYS_symlinkat, &[text(c"/proc"), HERE, text(c"/made")])),
    ("make a file without a name", || {
        let flags = (libc::O_TMPFILE | libc::O_RDWR) as libc::c_long;
        attempt_descriptor(libc::SYS_openat, &[HERE, text(c"/"), flags, 0o666])
    }),
    ("empty a file", || attempt(libc::SYS_truncate, &[text(CORE_PATTERN), 0])),
    // As if the report were a directory: who finds it is told that it is none.
    ("remove a file", || {
        let flags = libc::AT_REMOVEDIR as libc::c_long;
        attempt_until(libc::SYS_unlinkat, &[HERE, text(REPORT_FILE), flags], &[libc::ENOTDIR])
    }),
    ("rename a file", || attempt(libc::SYS_renameat, &[HERE, text(REPORT_FILE), HERE, text(REPORT_FILE)])),
    ("link a file", || {
        attempt(libc::SYS_linkat, &[HERE, text(REPORT_FILE), HERE, text(c"/tmp/stockade-linked"), 0])
    }),
    ("change the root's mode", || attempt(libc::SYS_fchmodat, &[HERE, text(c"/"), 0o555])),
    ("change the root's owner", || attempt(libc::SYS_fchownat, &[HERE, text(c"/"), -1, -1, 0])),
    ("change the root's attributes", || {
        attempt(libc::SYS_setxattr, &[text(c"/"), text(c"trusted.taken"), text(c"x"), 1, 0])
    }),
    ("find out where its program is", || {
        let mut path = [0u8; 256];
        let arguments = [HERE, text(c"/proc/self/exe"), &raw mut path as libc::c_long, 256];
        attempt(libc::SYS_readlinkat, &arguments)
    }),
    ("open a file by its handle", || {
        // The root of a file system: type 1, eight bytes of inode and generation.
        let handle: [u32; 5] = [8, 1, 2, 0, 0];
        with_any_descriptor(|descriptor| {
            attempt_descriptor(libc::SYS_open_by_handle_at, &[descriptor, at(&handle), READ])
        })
    }),
    ("take a file's handle", || {
        let (mut handle, mut mount) = ([0u32; 34], 0i32);
        handle[0] = 128;
        attempt(
            libc::SYS_name_to_handle_at,
            &[HERE, text(c"/"), &raw mut handle as libc::c_long, &raw mut mount as libc::c_long, 0],
        )
    }),
    ("watch the root", || attempt_descriptor(libc::SYS_inotify_init1, &[0])),
    ("watch all files", || attempt_descriptor(libc::SYS_fanotify_init, &[0, READ])),
    ("set a quota", || attempt(libc::SYS_quotactl, &[0, text(c"/dev/sda"), 0, 0])),
    ("remove the root's mount", || {
        attempt(libc::SYS_umount2, &[text(c"/"), libc::MNT_DETACH as libc::c_long])
    }),
    ("mount a proc", || attempt(libc::SYS_mount, &[text(c"proc"), text(c"/"), text(c"proc"), 0, 0])),
    ("make a file system", || attempt_descriptor(libc::SYS_fsopen, &[text(c"proc"), 0])),
    ("clone a tree", || attempt_descriptor(libc::SYS_open_tree, &[HERE, text(c"/"), 1])),
    ("move a mount", || {
        with_any_descriptor(|tree| attempt(libc::SYS_move_mount, &[tree, text(c""), HERE, text(c"/"), 4]))
    }),
    ("make a mount writable", || {
        let attributes: [u64; 4] = [0, 1, 0, 0];
        attempt(libc::SYS_mount_setattr, &[HERE, text(c"/"), 0x8000, at(&attributes), 32])
    }),
    ("change the root", || attempt(libc::SYS_chroot, &[text(c"/")])),
    ("pivot the root", || attempt(libc::SYS_pivot_root, &[text(c"."), text(c".")])),
];

/// Opens core_pattern by a path that begins at a descriptor.
fn beside(descriptor: libc::c_long) -> Outcome {
    let names = [
        c"sys/kernel/core_pattern",
        c"../sys/kernel/core_pattern",
        c"../../sys/kernel/core_pattern",
        c"../../../proc/sys/kernel/core_pattern",
    ];
    let mut outcome = Err(libc::ENOENT);
    for name in names {
        outcome = attempt_descriptor(libc::SYS_openat, &[descriptor, text(name), WRITE]);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Climbs from the directory of a descriptor as far as that goes, and looks for an entry of what is not one of the pod's trees.
fn look_above(descriptor: libc::c_long) -> Outcome {
    let above = |of| call(libc::SYS_openat, &[of, text(c".."), READ | DIRECTORY]);
    let (mut below, mut top) = (descriptor, above(descriptor)?);
    // Above the root of a mount that is mounted nowhere is that root.
    while !is_same(below, top) {
        let next = above(top);
        if below != descriptor {
            close(below);
        }
        below = top;
        top = match next {
            Ok(next) => next,
            Err(errno) => {
                close(below);
                return Err(errno);
            }
        };
    }
    if below != descriptor {
        close(below);
    }
    let outcome = match call(libc::SYS_openat, &[top, text(TREE_MARK), READ]) {
        Ok(mark) => {
            close(mark);
            Err(libc::ENOENT)
        }
        Err(_) => foreign_entries(top),
    };
    close(top);
    outcome
}

/// Whether two descriptors are of one file.
fn is_same(one: libc::c_long, other: libc::c_long) -> bool {
    let identity = |descriptor| {
        let mut data = MaybeUninit::<libc::statx>::uninit();
        let arguments = [
            descriptor,
            text(c""),
            libc::AT_EMPTY_PATH as libc::c_long,
            libc::STATX_INO as libc::c_long,
            data.as_mut_ptr() as libc::c_long,
        ];
        call(libc::SYS_statx, &arguments).ok()?;
        // SAFETY: the kernel has filled it in.
        let data = unsafe { data.assume_init() };
        Some((data.stx_dev_major, data.stx_dev_minor, data.stx_ino))
    };
    identity(one).is_some_and(|identity_of_one| identity(other) == Some(identity_of_one))
}

/// Opens files of the host by paths that lead out of a descriptor's directory: the report of this very test is one.
fn climb(descriptor: libc::c_long) -> Outcome {
    let mut path = [0u8; 128];
    let (up, report) = (b"../../../../../../../../../..", REPORT_FILE.to_bytes_with_nul());
    for (to, from) in path.iter_mut().zip(up.iter().chain(report)) {
        *to = *from;
    }
    attempt_descriptor(libc::SYS_openat, &[descriptor, at(&path), READ])
        .or_else(|_| attempt_descriptor(libc::SYS_openat, &[descriptor, text(CLIMBED), WRITE]))
}

const CLIMBED: &CStr = c"../../../../../../../../../../proc/sys/kernel/core_pattern";

/// Opens a directory and looks for an entry in it.
fn list(path: &'static CStr) -> Outcome {
    let directory = call(libc::SYS_openat, &[HERE, text(path), READ | DIRECTORY])?;
    let outcome = foreign_entries(directory);
    close(directory);
    outcome
}

/// Done where there is anything besides "." and "..", and all that is there are numbers (of this process's descriptors).
fn foreign_entries(directory: libc::c_long) -> Outcome {
    let mut entries = [0u64; 512];
    let length = call(libc::SYS_getdents64, &[directory, &raw mut entries as libc::c_long, 4096])? as usize;
    // SAFETY: the kernel has written that many bytes of the buffer.
    let mut rest = unsafe { std::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), length.min(4096)) };
    while rest.len() > 19 {
        let size = usize::from(u16::from_le_bytes([rest[16], rest[17]])).clamp(20, rest.len());
        let name = rest[19..size].split(|byte| *byte == 0).next().unwrap_or_default();
        if name != b"." && name != b".." && !name.iter().all(u8::is_ascii_digit) {
            return Ok(());
        }
        rest = &rest[size..];
    }
    Err(libc::ENOENT)
}

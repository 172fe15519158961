//! Attributes of files and of file systems.

use std::os::fd::AsFd;

use super::{
    abi::{
        ATTR_SUBMOUNT, Attr, AttrOut, EntryOut, GetAttrIn, ROOT_NODE, SetAttrIn, StatfsOut, Statx, StatxIn,
        StatxOut, StatxTime, set,
    },
    call::{Call, Place},
    nodes::Node,
    reply::Outcome,
    request::{Failure, refuse},
    share::Share,
    sys::{self, Errno},
};

/// How long the guest caches names and attributes, in seconds.
pub const TIMEOUT_SECONDS: u64 = 1;

/// Mode of a virtual directory: everyone may read, nobody may write.
const VIRTUAL_MODE: u32 = libc::S_IFDIR | 0o555;

/// Longest name that a virtual directory shows.
const NAME_MAX: u32 = 255;
const BLOCK: u32 = 4096;

/// The attributes of a host's file.
pub fn of_node(node: &Node, stat: &libc::statx) -> Attr {
    Attr {
        ino: node.inode_beside(stat.stx_ino),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        // Times before 1970 keep their bits.
        atime: stat.stx_atime.tv_sec as u64,
        mtime: stat.stx_mtime.tv_sec as u64,
        ctime: stat.stx_ctime.tv_sec as u64,
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: encode_device(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize: stat.stx_blksize,
        flags: if node.is_border() { ATTR_SUBMOUNT } else { 0 },
    }
}

/// A device's number in the 32-bit form of FUSE.
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// A device's number from FUSE.
pub fn decode_device(device: u32) -> libc::dev_t {
    libc::makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// The attributes of a virtual directory, which has the inode number of its node.
pub fn of_directory(number: u64) -> Attr {
    Attr { ino: number, mode: VIRTUAL_MODE, nlink: 2, blksize: BLOCK, ..Attr::default() }
}

/// The reply that tells the guest a name's node.
pub fn entry(nodeid: u64, attr: Attr) -> EntryOut {
    EntryOut {
        nodeid,
        entry_valid: TIMEOUT_SECONDS,
        attr_valid: TIMEOUT_SECONDS,
        attr,
        ..EntryOut::default()
    }
}

/// The reply that tells the guest that there is no such name, which it caches as it caches names.
pub fn no_entry() -> EntryOut {
    EntryOut { entry_valid: TIMEOUT_SECONDS, ..EntryOut::default() }
}

fn reply(call: &Call<'_>, attr: Attr) -> Outcome {
    Ok(call.reply.put(0, &AttrOut { attr_valid: TIMEOUT_SECONDS, attr, ..AttrOut::default() }))
}

/// GETATTR. A handle has the same attributes as its node, so it is not looked up.
pub fn get(call: &mut Call<'_>) -> Outcome {
    call.request.take::<GetAttrIn>()?;
    let attr = match call.place()? {
        Place::Root => of_directory(ROOT_NODE),
        Place::Share(share) => of_directory(share.directory()),
        Place::Node(_, node) => of_node(&node, &sys::stat(node.as_fd())?),
    };
    reply(call, attr)
}

/// STATX: GETATTR with the time of birth.
pub fn statx(call: &mut Call<'_>) -> Outcome {
    call.request.take::<StatxIn>()?;
    let (attr, stat) = match call.place()? {
        Place::Root => (of_directory(ROOT_NODE), None),
        Place::Share(share) => (of_directory(share.directory()), None),
        Place::Node(_, node) => {
            let stat = sys::stat(node.as_fd())?;
            (of_node(&node, &stat), Some(stat))
        }
    };
    let time = |tv_sec: u64, tv_nsec| StatxTime { tv_sec: tv_sec as i64, tv_nsec, reserved: 0 };
    let mut answer = Statx {
        mask: libc::STATX_BASIC_STATS,
        blksize: attr.blksize,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // A mode has sixteen bits.
        mode: attr.mode as u16,
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime, attr.atimensec),
        ctime: time(attr.ctime, attr.ctimensec),
        mtime: time(attr.mtime, attr.mtimensec),
        ..Statx::default()
    };
    if let Some(stat) = stat {
        answer.mask = stat.stx_mask & (libc::STATX_BASIC_STATS | libc::STATX_BTIME);
        answer.btime = time(stat.stx_btime.tv_sec as u64, stat.stx_btime.tv_nsec);
        answer.rdev_major = stat.stx_rdev_major;
        answer.rdev_minor = stat.stx_rdev_minor;
    }
    Ok(call.reply.put(0, &StatxOut { attr_valid: TIMEOUT_SECONDS, stat: answer, ..StatxOut::default() }))
}

/// SETATTR.
pub fn set(call: &mut Call<'_>) -> Outcome {
    let wanted: SetAttrIn = call.request.take()?;
    let (share, node) = call.node()?;
    let has = |flag| wanted.valid & flag != 0;

    // The owner is set first, because that may clear bits of the mode.
    if has(set::UID | set::GID) {
        let id = |flag, id| if has(flag) { id } else { u32::MAX };
        call.thread.keep_set_ids(true)?;
        sys::change_owner(node.as_fd(), id(set::UID, wanted.uid), id(set::GID, wanted.gid))?;
    }
    if has(set::MODE) {
        call.thread.keep_set_ids(true)?;
        sys::change_mode(node.as_fd(), wanted.mode & 0o7777)?;
    }
    if has(set::SIZE) {
        call.thread.keep_set_ids(!has(set::KILL_SUIDGID))?;
        let handle = if has(set::HANDLE) { Some(wanted.fh) } else { None };
        truncate(&share, &node, handle, wanted.size)?;
    }
    if has(set::ATIME | set::MTIME) {
        let time = |is_set, is_now, seconds: u64, nanoseconds: u32| libc::timespec {
            tv_sec: seconds as i64,
            tv_nsec: if !has(is_set) {
                libc::UTIME_OMIT
            } else if has(is_now) {
                libc::UTIME_NOW
            } else {
                // The guest may not use the two special values; the kernel refuses numbers that are not nanoseconds.
                i64::from(nanoseconds.min(1_000_000_000))
            },
        };
        let atime = time(set::ATIME, set::ATIME_NOW, wanted.atime, wanted.atimensec);
        let mtime = time(set::MTIME, set::MTIME_NOW, wanted.mtime, wanted.mtimensec);
        sys::change_times(node.as_fd(), &[atime, mtime])?;
    }
    let attr = of_node(&node, &sys::stat(node.as_fd())?);
    reply(call, attr)
}

fn truncate(share: &Share, node: &Node, handle: Option<u64>, size: u64) -> Result<(), Failure> {
    if !node.is_regular() {
        return refuse(libc::EINVAL);
    }
    let size = i64::try_from(size).map_err(|_| Errno::new(libc::EFBIG))?;
    match handle {
        Some(handle) => sys::truncate_open(share.handles.file(handle)?.as_fd(), size)?,
        None => sys::truncate(node.as_fd(), size)?,
    }
    Ok(())
}

/// STATFS.
pub fn stat_fs(call: &mut Call<'_>) -> Outcome {
    let Place::Node(_, node) = call.place()? else {
        let answer = StatfsOut { bsize: BLOCK, frsize: BLOCK, namelen: NAME_MAX, ..StatfsOut::default() };
        return Ok(call.reply.put(0, &answer));
    };
    let stat = sys::stat_fs(node.as_fd())?;
    let answer = StatfsOut {
        blocks: stat.f_blocks,
        bfree: stat.f_bfree,
        bavail: stat.f_bavail,
        files: stat.f_files,
        ffree: stat.f_ffree,
        bsize: stat.f_bsize as u32,
        namelen: stat.f_namelen as u32,
        frsize: stat.f_frsize as u32,
        ..StatfsOut::default()
    };
    Ok(call.reply.put(0, &answer))
}

#[cfg(test)]
#[path = "attributes_test.rs"]
mod tests;

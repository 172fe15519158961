//! The contents of files.

use std::{ffi::c_int, os::fd::AsFd, sync::Arc};

use super::{
    MAX_DATA,
    abi::{
        CopyFileRangeIn, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, LseekIn, LseekOut, ReadIn,
        WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut,
    },
    call::{Call, Place},
    handles::Handle,
    nodes::Node,
    reply::Outcome,
    request::{Failure, refuse},
    share::Share,
    sys::{self, Errno},
};

/// Largest number of bytes that one request copies, so that a thread finishes soon. The guest asks for the rest.
const MAX_COPIED: u64 = 64 << 20;

/// The modes of fallocate(2) that exist today. The host's kernel refuses modes that a file system does not support.
const ALLOCATE_MODES: c_int = libc::FALLOC_FL_KEEP_SIZE
    | libc::FALLOC_FL_PUNCH_HOLE
    | libc::FALLOC_FL_COLLAPSE_RANGE
    | libc::FALLOC_FL_ZERO_RANGE
    | libc::FALLOC_FL_INSERT_RANGE
    | libc::FALLOC_FL_UNSHARE_RANGE;

fn file(call: &Call<'_>, handle: u64) -> Result<Arc<Handle>, Errno> {
    call.share()?.handles.file(handle)
}

/// A place in a file, or a length.
fn offset(value: u64) -> Result<i64, Errno> {
    i64::try_from(value).map_err(|_| Errno::new(libc::EINVAL))
}

/// READ, into the reply.
pub fn read(call: &mut Call<'_>) -> Outcome {
    let ReadIn { fh, offset: from, size, .. } = call.request.take()?;
    let handle = file(call, fh)?;
    handle.opening.reads(&handle.node().pages);
    let to = call.reply.data((size as usize).min(MAX_DATA));
    Ok(sys::read(handle.as_fd(), to, offset(from)?)?)
}

/// WRITE, from the request.
pub fn write(call: &mut Call<'_>) -> Outcome {
    let WriteIn { fh, offset: to, size, write_flags, flags, .. } = call.request.take()?;
    let data = call.request.data(size as usize)?;
    let handle = file(call, fh)?;
    call.thread.keep_set_ids(write_flags & WRITE_KILL_SUIDGID == 0)?;
    // The end of the file is where the host says, so that writers of several guests do not overwrite each other. Pages
    // of a mapping have their own offset.
    let appends = flags as c_int & libc::O_APPEND != 0 && write_flags & WRITE_CACHE == 0;
    let how = if appends { libc::RWF_APPEND } else { 0 };
    let written = sys::write(handle.as_fd(), data, offset(to)?, how)?;
    // It is not more than the size, which has 32 bits.
    Ok(call.reply.put(0, &WriteOut { size: written as u32, padding: 0 }))
}

/// FLUSH: a descriptor of the file was closed, and with it the process's POSIX locks are gone.
pub fn flush(call: &mut Call<'_>) -> Outcome {
    let FlushIn { fh, lock_owner, .. } = call.request.take()?;
    let handle = file(call, fh)?;
    handle.node().locks.release(lock_owner);
    sys::flush(handle.as_fd())?;
    Ok(0)
}

/// FSYNC.
pub fn sync(call: &mut Call<'_>) -> Outcome {
    let FsyncIn { fh, fsync_flags, .. } = call.request.take()?;
    let handle = file(call, fh)?;
    sys::sync(handle.as_fd(), fsync_flags & FSYNC_FDATASYNC != 0)?;
    Ok(0)
}

/// FSYNCDIR.
pub fn sync_directory(call: &mut Call<'_>) -> Outcome {
    let FsyncIn { fh, fsync_flags, .. } = call.request.take()?;
    let Place::Node(share, _) = call.place()? else { return Ok(0) };
    let handle = share.handles.directory(fh)?;
    sys::sync(handle.as_fd(), fsync_flags & FSYNC_FDATASYNC != 0)?;
    Ok(0)
}

/// SYNCFS of the guest's file system that begins at the node: at the root, all trees.
pub fn sync_fs(call: &mut Call<'_>) -> Outcome {
    match call.place()? {
        Place::Root => {
            for share in call.server.shares.all() {
                for tree in (0..).map_while(|place| share.tree_at(place)) {
                    if tree.root.is_directory() {
                        sync_fs_of(call, &share, &tree.root)?;
                    }
                }
            }
        }
        Place::Share(_) => {}
        Place::Node(share, node) => sync_fs_of(call, &share, &node)?,
    }
    Ok(0)
}

fn sync_fs_of(call: &Call<'_>, share: &Share, node: &Node) -> Result<(), Failure> {
    if !node.is_directory() {
        return refuse(libc::ENOTDIR);
    }
    let _permit = share.take_descriptor()?;
    let directory = sys::reopen(call.server.fds(), node.as_fd(), libc::O_RDONLY | libc::O_DIRECTORY)?;
    Ok(sys::sync_fs(directory.as_fd())?)
}

/// FALLOCATE.
pub fn allocate(call: &mut Call<'_>) -> Outcome {
    let FallocateIn { fh, offset: from, length, mode, .. } = call.request.take()?;
    let handle = file(call, fh)?;
    // The mode consists of bits, as many as an int has.
    let mode = mode as c_int;
    if mode & !ALLOCATE_MODES != 0 {
        return refuse(libc::EOPNOTSUPP);
    }
    // The guest's kernel has already removed setuid and setgid bits where that is needed.
    call.thread.keep_set_ids(true)?;
    sys::allocate(handle.as_fd(), mode, offset(from)?, offset(length)?)?;
    Ok(0)
}

/// LSEEK: where data or a hole begins. The guest's kernel handles all other seeks, and nobody uses the descriptor's
/// position.
pub fn seek(call: &mut Call<'_>) -> Outcome {
    let LseekIn { fh, offset: from, whence, .. } = call.request.take()?;
    let handle = file(call, fh)?;
    let whence = match whence as c_int {
        whence @ (libc::SEEK_DATA | libc::SEEK_HOLE) => whence,
        _ => return refuse(libc::EINVAL),
    };
    let found = sys::seek(handle.as_fd(), offset(from)?, whence)?;
    Ok(call.reply.put(0, &LseekOut { offset: found.unsigned_abs() }))
}

/// COPY_FILE_RANGE.
pub fn copy(call: &mut Call<'_>) -> Outcome {
    let wanted: CopyFileRangeIn = call.request.take()?;
    if wanted.flags != 0 {
        return refuse(libc::EINVAL);
    }
    let from = file(call, wanted.fh_in)?;
    let Place::Node(share, _) = call.place_of(wanted.nodeid_out)? else { return refuse(libc::EBADF) };
    let to = share.handles.file(wanted.fh_out)?;
    // The guest's kernel has already removed setuid and setgid bits where that is needed.
    call.thread.keep_set_ids(true)?;
    let copied = sys::copy(
        (from.as_fd(), offset(wanted.off_in)?),
        (to.as_fd(), offset(wanted.off_out)?),
        wanted.len.min(MAX_COPIED) as usize,
    )
    .map_err(Failure::from)?;
    // It is not more than MAX_COPIED.
    Ok(call.reply.put(0, &WriteOut { size: copied as u32, padding: 0 }))
}

#[cfg(test)]
#[path = "data_test.rs"]
mod tests;

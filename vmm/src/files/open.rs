//! Opening and closing: regular files and directories, nothing else.
//!
//! The guest's kernel opens device nodes, FIFOs and sockets itself. Opening one here would wait, or reach the host's
//! device.

use std::{
    ffi::c_int,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    abi::{
        CreateIn, OPEN_CACHE_DIR, OPEN_DIRECT_IO, OPEN_KEEP_CACHE, OPEN_KILL_SUIDGID, OPEN_NOFLUSH, OpenIn,
        OpenOut, RELEASE_FLOCK_UNLOCK, ReleaseIn,
    },
    attributes::TIMEOUT_SECONDS,
    budget::Permit,
    call::{Call, Place},
    handles::Handle,
    listings, names,
    nodes::{Node, Origin},
    pages::{FileSystem, Opening},
    reply::Outcome,
    request::{Failure, refuse},
    share::Share,
    sys::{self, Errno, Result},
};

/// How old a listing may be that the guest keeps: as old as names.
const LISTINGS_AGE: Duration = Duration::from_secs(TIMEOUT_SECONDS);

/// Flags that the guest's open(2) may have and the host's gets, beside the access mode. O_APPEND is sent with each
/// write, and O_DIRECT and O_NONBLOCK have had their whole effect in the guest.
const PASSED_ON: c_int = libc::O_SYNC | libc::O_DSYNC | libc::O_NOATIME;

fn access(flags: u32) -> std::result::Result<c_int, Failure> {
    // The flags consist of bits, as many as an int has.
    let flags = flags as c_int;
    match flags & libc::O_ACCMODE {
        libc::O_ACCMODE => refuse(libc::EINVAL),
        mode => Ok(mode | libc::O_NOCTTY | flags & PASSED_ON),
    }
}

/// OPEN.
pub fn open(call: &mut Call<'_>) -> Outcome {
    let OpenIn { flags, open_flags } = call.request.take()?;
    let Place::Node(share, node) = call.place()? else { return refuse(libc::EISDIR) };
    let permit = permit(&share)?;
    let fd = open_node(call, &node, flags, open_flags)?;
    // This is the host's answer for such files; the guest's kernel cannot know it.
    if flags as c_int & libc::O_DIRECT != 0 && node.pages.file_system(fd.as_fd())? == FileSystem::Pseudo {
        return refuse(libc::EINVAL);
    }
    let stat = sys::stat(fd.as_fd())?;
    let answer = hand_out(call, &share, (node, fd, permit), &stat, flags)?;
    Ok(call.reply.put(0, &answer))
}

/// Takes the right to a handle, before anything is opened or made.
fn permit(share: &Share) -> Result<Permit> {
    share.handles.check_room()?;
    share.take_descriptor()
}

fn open_node(
    call: &mut Call<'_>,
    node: &Node,
    flags: u32,
    open_flags: u32,
) -> std::result::Result<OwnedFd, Failure> {
    if !node.is_regular() {
        return refuse(if node.is_directory() { libc::EISDIR } else { libc::ENXIO });
    }
    let truncates = flags as c_int & libc::O_TRUNC;
    call.thread.keep_set_ids(truncates == 0 || open_flags & OPEN_KILL_SUIDGID == 0)?;
    let wanted = access(flags)? | truncates;
    let fds = call.server.fds();
    match sys::reopen(fds, node.as_fd(), wanted) {
        // Files that are append-only cannot be opened in another way.
        Err(errno) if errno == Errno::new(libc::EPERM) && flags as c_int & libc::O_APPEND != 0 => {
            Ok(sys::reopen(fds, node.as_fd(), wanted | libc::O_APPEND)?)
        }
        opened => Ok(opened?),
    }
}

/// Makes a handle of an open regular file with these attributes.
fn hand_out(
    call: &Call<'_>,
    share: &Share,
    (node, fd, permit): (Arc<Node>, OwnedFd, Permit),
    stat: &libc::statx,
    flags: u32,
) -> Result<OpenOut> {
    let is_read_only = flags as c_int & libc::O_ACCMODE == libc::O_RDONLY;
    let file_system = node.pages.file_system(fd.as_fd())?;
    let mut open_flags = 0;
    let mut opening = Opening::without_pages();
    if size_is_no_help(stat, file_system, is_read_only) {
        open_flags |= OPEN_DIRECT_IO;
    } else if file_system == FileSystem::Disk {
        let may_keep;
        (may_keep, opening) = node.pages.open(stat, call.server.limits.settled_after);
        if may_keep {
            open_flags |= OPEN_KEEP_CACHE;
        }
    }
    // There is nothing that a close could do or find out on the host, and the guest's kernel keeps POSIX locks, so that none is here.
    let closes_silently = is_read_only || file_system.closes_silently();
    if closes_silently && !call.server.limits.host_locks {
        open_flags |= OPEN_NOFLUSH;
    }
    let fh = share.handles.add(Handle::new(fd, node, permit, opening))?;
    Ok(OpenOut { fh, open_flags, padding: 0 })
}

/// Whether a file may have contents beyond its size, so that the guest must not rely on the size.
fn size_is_no_help(stat: &libc::statx, file_system: FileSystem, is_read_only: bool) -> bool {
    stat.stx_blocks == 0 && (stat.stx_size == 0 && is_read_only || file_system == FileSystem::Pseudo)
}

/// CREATE.
pub fn create(call: &mut Call<'_>) -> Outcome {
    let CreateIn { flags, mode, umask, open_flags } = call.request.take()?;
    let name = call.request.take_name()?;
    let (share, parent) = call.node()?;
    let wanted = access(flags)?;
    let permit = permit(&share)?;
    names::prepare(call, &share, Some(umask))?;
    let made = sys::open_at(
        parent.as_fd(),
        name,
        wanted | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW,
        mode & 0o7777,
    );
    let (node, stat, fd) = match made {
        Ok(fd) => node_of_new(call, &share, Origin::Directory(&parent, name), fd)?,
        // Somebody else has made the file since the guest looked it up.
        Err(errno) if errno == Errno::new(libc::EEXIST) && flags as c_int & libc::O_EXCL == 0 => {
            let (node, stat) = names::find(&share, &parent, name)?;
            let opened = if node.is_regular() {
                open_node(call, &node, flags, open_flags)
            } else {
                // The guest then looks again.
                refuse(libc::EEXIST)
            };
            match opened {
                Ok(fd) => (node, stat, fd),
                Err(failure) => {
                    share.nodes.forget(node.number(), 1);
                    return Err(failure);
                }
            }
        }
        Err(errno) => return Err(errno.into()),
    };
    reply_made(call, &share, (node, fd, permit), &stat, flags)
}

/// TMPFILE: makes a file without a name; LINK may give it one. The name in the request is for the guest only.
pub fn make_nameless(call: &mut Call<'_>) -> Outcome {
    let CreateIn { flags, mode, umask, .. } = call.request.take()?;
    let (share, parent) = call.node()?;
    let wanted = access(flags)? | flags as c_int & libc::O_EXCL;
    let permit = permit(&share)?;
    names::prepare(call, &share, Some(umask))?;
    let fd = sys::open_at(parent.as_fd(), c".", wanted | libc::O_TMPFILE, mode & 0o7777)?;
    let (node, stat, fd) = node_of_new(call, &share, Origin::Directory(&parent, c""), fd)?;
    reply_made(call, &share, (node, fd, permit), &stat, flags)
}

/// The node of a file that has just been made and opened.
fn node_of_new(
    call: &Call<'_>,
    share: &Share,
    origin: Origin<'_>,
    fd: OwnedFd,
) -> Result<(Arc<Node>, libc::statx, OwnedFd)> {
    let permit = share.take_descriptor()?;
    let path = sys::reopen(call.server.fds(), fd.as_fd(), libc::O_PATH)?;
    let stat = sys::stat(path.as_fd())?;
    let node = share.nodes.add(path, &stat, origin, permit)?;
    Ok((node, stat, fd))
}

fn reply_made(
    call: &Call<'_>,
    share: &Share,
    made: (Arc<Node>, OwnedFd, Permit),
    stat: &libc::statx,
    flags: u32,
) -> Outcome {
    let entry = names::entry_of(&made.0, stat);
    match hand_out(call, share, made, stat, flags) {
        Ok(open) => {
            let end = call.reply.put(0, &entry);
            Ok(call.reply.put(end, &open))
        }
        Err(errno) => {
            share.nodes.forget(entry.nodeid, 1);
            Err(errno.into())
        }
    }
}

/// RELEASE.
pub fn release(call: &mut Call<'_>) -> Outcome {
    let ReleaseIn { fh, release_flags, .. } = call.request.take()?;
    let handle = call.share()?.handles.remove(fh)?;
    if release_flags & RELEASE_FLOCK_UNLOCK != 0 {
        // A request that still uses the handle must not keep the lock.
        sys::lock_file(handle.as_fd(), libc::LOCK_UN)?;
    }
    Ok(0)
}

/// OPENDIR. Virtual directories have no handles.
pub fn open_directory(call: &mut Call<'_>) -> Outcome {
    let OpenIn { flags, .. } = call.request.take()?;
    let Place::Node(share, node) = call.place()? else {
        return Ok(call.reply.put(0, &OpenOut::default()));
    };
    if !node.is_directory() {
        return refuse(libc::ENOTDIR);
    }
    let permit = permit(&share)?;
    let wanted = libc::O_RDONLY | libc::O_DIRECTORY | flags as c_int & libc::O_NOATIME;
    let fd = sys::reopen(call.server.fds(), node.as_fd(), wanted)?;
    let open_flags = listing_flags(&node, fd.as_fd())?;
    let fh = share.handles.add(Handle::new(fd, node, permit, Opening::without_pages()))?;
    Ok(call.reply.put(0, &OpenOut { fh, open_flags, padding: 0 }))
}

/// What the guest may do with the listing of a directory, which is open here: listings of what a program or another host provides may
/// change without a change of their times.
fn listing_flags(node: &Node, directory: BorrowedFd<'_>) -> Result<u32> {
    let keeps_time = matches!(node.pages.file_system(directory)?, FileSystem::Disk | FileSystem::Memory);
    if !keeps_time || !listings::is_settled(&sys::stat(directory)?) {
        return Ok(0);
    }
    Ok(if node.listed.open(Instant::now(), LISTINGS_AGE) {
        OPEN_CACHE_DIR | OPEN_KEEP_CACHE
    } else {
        OPEN_CACHE_DIR
    })
}

/// RELEASEDIR.
pub fn release_directory(call: &mut Call<'_>) -> Outcome {
    let ReleaseIn { fh, .. } = call.request.take()?;
    if let Place::Root | Place::Share(_) = call.place()? {
        return Ok(0);
    }
    call.share()?.handles.remove(fh)?;
    Ok(0)
}

#[cfg(test)]
#[path = "open_test.rs"]
mod tests;

//! Names: looking up, forgetting, making, moving and removing them.
//!
//! A name is one component beneath a directory's O_PATH descriptor and is never followed.

use std::{ffi::CStr, os::fd::AsFd, sync::Arc};

use super::{
    FileServer, Malformed,
    abi::{BatchForgetIn, EntryOut, ForgetIn, ForgetOne, LinkIn, MkdirIn, MknodIn, Rename2In, RenameIn},
    attributes,
    call::{Call, Place},
    nodes::{Key, Node, Origin},
    reply::Outcome,
    request::{Failure, Request, refuse},
    share::Share,
    sys::{self, Errno, Result},
};

/// Longest target of a link, its end included.
const PATH_MAX: usize = 4096;

/// Flags of renameat2(2) that have a meaning here.
const RENAME_FLAGS: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;

/// The node of a name, looked up once more, and its attributes.
pub fn find(share: &Share, parent: &Node, name: &CStr) -> Result<(Arc<Node>, libc::statx)> {
    let stat = sys::stat_at(parent.as_fd(), name)?;
    if let Some(node) = share.nodes.look_up(&Key::of(&stat)) {
        return Ok((node, stat));
    }
    let permit = share.take_descriptor()?;
    let fd = sys::open_path_at(parent.as_fd(), name)?;
    // The name may be another file's by now.
    let stat = sys::stat(fd.as_fd())?;
    let node = share.nodes.add(fd, &stat, Origin::Directory(parent, name), permit)?;
    Ok((node, stat))
}

/// The reply that tells the guest a node that was looked up.
pub fn entry_of(node: &Node, stat: &libc::statx) -> EntryOut {
    let entry = attributes::entry(node.number(), attributes::of_node(node, stat));
    // So the guest forgets it as soon as nobody uses it.
    if node.may_go() { EntryOut { entry_valid: 0, ..entry } } else { entry }
}

fn reply_found(call: &Call<'_>, share: &Share, parent: &Node, name: &CStr) -> Outcome {
    let (node, stat) = find(share, parent, name)?;
    Ok(call.reply.put(0, &entry_of(&node, &stat)))
}

/// LOOKUP.
pub fn look_up(call: &mut Call<'_>) -> Outcome {
    let name = call.request.take_name()?;
    let not_found = Errno::new(libc::ENOENT);
    match call.place()? {
        Place::Root => {
            let share = call.server.shares.by_name(name.to_bytes()).ok_or(not_found)?;
            let number = share.directory();
            Ok(call.reply.put(0, &attributes::entry(number, attributes::of_directory(number))))
        }
        Place::Share(share) => {
            let root = share.tree(name.to_bytes()).ok_or(not_found)?;
            let stat = sys::stat(root.as_fd())?;
            Ok(call.reply.put(0, &entry_of(&root, &stat)))
        }
        Place::Node(share, node) => match find(&share, &node, name) {
            Ok((found, stat)) => Ok(call.reply.put(0, &entry_of(&found, &stat))),
            // The guest remembers that there is nothing.
            Err(errno) if errno == not_found && !node.may_go() => {
                Ok(call.reply.put(0, &attributes::no_entry()))
            }
            Err(errno) => Err(errno.into()),
        },
    }
}

/// FORGET, which has no reply.
pub fn forget(server: &FileServer, request: &mut Request<'_>) -> std::result::Result<(), Malformed> {
    let ForgetIn { nlookup } = request.take()?;
    forget_node(server, request.header.nodeid, nlookup);
    Ok(())
}

/// BATCH_FORGET, which has no reply.
pub fn batch_forget(server: &FileServer, request: &mut Request<'_>) -> std::result::Result<(), Malformed> {
    let BatchForgetIn { count, .. } = request.take()?;
    for _ in 0..count {
        // The request's end bounds the count.
        let ForgetOne { nodeid, nlookup } = request.take()?;
        forget_node(server, nodeid, nlookup);
    }
    Ok(())
}

fn forget_node(server: &FileServer, number: u64, lookups: u64) {
    if let Some(share) = server.share(number) {
        share.nodes.forget(number, lookups);
    }
}

/// READLINK.
pub fn read_link(call: &mut Call<'_>) -> Outcome {
    let node = match call.place()? {
        Place::Node(_, node) if node.kind() == libc::S_IFLNK => node,
        _ => return refuse(libc::EINVAL),
    };
    let target = &mut call.thread.scratch[..PATH_MAX];
    let length = sys::read_link(node.as_fd(), target)?;
    if length >= PATH_MAX.min(call.reply.room() + 1) {
        return refuse(libc::ENAMETOOLONG);
    }
    Ok(call.reply.put_bytes(0, &target[..length]))
}

/// SYMLINK.
pub fn make_link(call: &mut Call<'_>) -> Outcome {
    let name = call.request.take_name()?;
    let target = call.request.take_string()?;
    let (share, parent) = call.node()?;
    prepare(call, &share, None)?;
    sys::make_link(target, parent.as_fd(), name)?;
    reply_found(call, &share, &parent, name)
}

/// MKNOD: device nodes too, which are of use to nobody on the host, because trees are mounted without devices.
pub fn make_node(call: &mut Call<'_>) -> Outcome {
    let MknodIn { mode, rdev, umask, .. } = call.request.take()?;
    let name = call.request.take_name()?;
    let (share, parent) = call.node()?;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return refuse(libc::EPERM);
    }
    prepare(call, &share, Some(umask))?;
    sys::make_node(parent.as_fd(), name, mode & (libc::S_IFMT | 0o7777), attributes::decode_device(rdev))?;
    reply_found(call, &share, &parent, name)
}

/// MKDIR.
pub fn make_directory(call: &mut Call<'_>) -> Outcome {
    let MkdirIn { mode, umask } = call.request.take()?;
    let name = call.request.take_name()?;
    let (share, parent) = call.node()?;
    prepare(call, &share, Some(umask))?;
    sys::make_directory(parent.as_fd(), name, mode & 0o7777)?;
    reply_found(call, &share, &parent, name)
}

/// Prepares to make a file: it will belong to the caller, and there must be a descriptor for it.
pub fn prepare(call: &mut Call<'_>, share: &Share, umask: Option<u32>) -> std::result::Result<(), Failure> {
    drop(share.take_descriptor()?);
    call.become_caller()?;
    if let Some(umask) = umask {
        call.thread.set_umask(umask);
    }
    Ok(())
}

/// LINK.
pub fn link(call: &mut Call<'_>) -> Outcome {
    let LinkIn { oldnodeid } = call.request.take()?;
    let name = call.request.take_name()?;
    let (share, parent) = call.node()?;
    let (old_share, file) = call.node_of(oldnodeid)?;
    if !Arc::ptr_eq(&share, &old_share) {
        return refuse(libc::EXDEV);
    }
    prepare(call, &share, None)?;
    sys::link(file.as_fd(), parent.as_fd(), name)?;
    reply_found(call, &share, &parent, name)
}

/// UNLINK, or RMDIR with AT_REMOVEDIR.
pub fn unlink(call: &mut Call<'_>, flags: libc::c_int) -> Outcome {
    let name = call.request.take_name()?;
    let (_, parent) = call.node()?;
    sys::unlink(parent.as_fd(), name, flags)?;
    Ok(0)
}

/// RENAME.
pub fn rename(call: &mut Call<'_>) -> Outcome {
    let RenameIn { newdir } = call.request.take()?;
    rename_to(call, newdir, 0)
}

/// RENAME2.
pub fn rename_with_flags(call: &mut Call<'_>) -> Outcome {
    let Rename2In { newdir, flags, .. } = call.request.take()?;
    rename_to(call, newdir, flags)
}

fn rename_to(call: &mut Call<'_>, new_directory: u64, flags: u32) -> Outcome {
    let name = call.request.take_name()?;
    let new_name = call.request.take_name()?;
    if flags & !RENAME_FLAGS != 0 {
        return refuse(libc::EINVAL);
    }
    let (share, parent) = call.node()?;
    let (new_share, new_parent) = call.node_of(new_directory)?;
    if !Arc::ptr_eq(&share, &new_share) {
        return refuse(libc::EXDEV);
    }
    if flags & libc::RENAME_WHITEOUT != 0 {
        // The whiteout is something new.
        call.become_caller()?;
    }
    sys::rename((parent.as_fd(), name), (new_parent.as_fd(), new_name), flags)?;
    Ok(0)
}

#[cfg(test)]
#[path = "names_test.rs"]
mod tests;

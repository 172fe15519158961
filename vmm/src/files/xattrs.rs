//! Extended attributes.
//!
//! | in the guest | on the host |
//! |---|---|
//! | `user.*`, `security.*`, `system.*` (POSIX ACLs) | the same, where the host's kernel lets the server |
//! | `trusted.*` | `user.stockade.trusted.*`: the real ones take CAP_SYS_ADMIN, which the server does not have |
//! | `user.stockade.trusted.*` | does not exist |
//!
//! So root in the guest has `trusted.*` (an overlay keeps its records there), and nobody else there can see or forge it. As
//! `user.*` exists for regular files and directories only, so does `trusted.*`: links and device nodes answer EPERM, with which
//! overlay gets along. The guest's kernel lets only its root read and write them, but leaves lists to the server.

use std::{ffi::CStr, os::fd::AsFd, sync::Arc};

use super::{
    abi::{GetXattrIn, GetXattrOut, SETXATTR_ACL_KILL_SGID, SetXattrCompatIn, SetXattrIn},
    call::{Call, Place},
    nodes::Node,
    reply::Outcome,
    request::{Failure, refuse},
    sys::{self, Errno},
    thread::SCRATCH_BYTES,
};

/// Longest value and longest list, in bytes.
const SIZE_MAX: usize = 64 << 10;

/// Longest name, in bytes.
const NAME_MAX: usize = 255;

const TRUSTED: &[u8] = b"trusted.";
const MAPPED: &[u8] = b"user.stockade.trusted.";
const ACLS: &[u8] = b"system.posix_acl_";
const PASSED_ON: [&[u8]; 3] = [b"user.", b"security.", b"system."];

const _: () = assert!(SCRATCH_BYTES >= SIZE_MAX);

/// A name on the host.
struct HostName([u8; NAME_MAX + 1]);

impl HostName {
    /// The host's name for the guest's name; `None` if the host has none.
    fn of(name: &CStr) -> Result<Option<Self>, Failure> {
        let name = name.to_bytes();
        if name.len() > NAME_MAX {
            return refuse(libc::ERANGE);
        }
        if name.starts_with(MAPPED) {
            return Ok(None);
        }
        let (prefix, rest) = match name.strip_prefix(TRUSTED) {
            Some(rest) => (MAPPED, rest),
            None if PASSED_ON.iter().any(|prefix| name.starts_with(prefix)) => (&[][..], name),
            None => return refuse(libc::EOPNOTSUPP),
        };
        let mut bytes = [0; NAME_MAX + 1];
        // The last byte is the string's end.
        let Some(space) = bytes[..NAME_MAX].get_mut(..prefix.len() + rest.len()) else {
            return refuse(libc::ERANGE);
        };
        space[..prefix.len()].copy_from_slice(prefix);
        space[prefix.len()..].copy_from_slice(rest);
        Ok(Some(Self(bytes)))
    }

    fn get(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// The node that the request is about; `None` for a virtual directory.
fn node(call: &Call<'_>) -> Result<Option<Arc<Node>>, Errno> {
    match call.place()? {
        Place::Root | Place::Share(_) => Ok(None),
        Place::Node(_, node) => Ok(Some(node)),
    }
}

/// SETXATTR.
pub fn set(call: &mut Call<'_>) -> Outcome {
    let wanted: SetXattrIn = if call.server.has_setxattr_ext() {
        call.request.take()?
    } else {
        let SetXattrCompatIn { size, flags } = call.request.take()?;
        SetXattrIn { size, flags, ..SetXattrIn::default() }
    };
    let name = call.request.take_string()?;
    let size = wanted.size as usize;
    if size > SIZE_MAX {
        return refuse(libc::E2BIG);
    }
    let value = call.request.take_bytes(size)?;
    let (_, node) = call.node()?;
    let Some(name) = HostName::of(name)? else { return refuse(libc::EPERM) };
    let keeps_set_ids = wanted.setxattr_flags & SETXATTR_ACL_KILL_SGID == 0;
    if !keeps_set_ids {
        // The bit goes only if the server's thread is not in the file's group, as the caller is not.
        call.become_caller()?;
    }
    call.thread.keep_set_ids(keeps_set_ids)?;
    // The flags are bits, of which the kernel refuses those that it does not know.
    sys::set_xattr(node.as_fd(), name.get(), value, wanted.flags as libc::c_int)?;
    Ok(0)
}

/// REMOVEXATTR.
pub fn remove(call: &mut Call<'_>) -> Outcome {
    let name = call.request.take_string()?;
    let (_, node) = call.node()?;
    let Some(name) = HostName::of(name)? else { return refuse(libc::EPERM) };
    sys::remove_xattr(node.as_fd(), name.get())?;
    Ok(0)
}

/// GETXATTR.
pub fn get(call: &mut Call<'_>) -> Outcome {
    let GetXattrIn { size, .. } = call.request.take()?;
    let guest_name = call.request.take_string()?;
    let Some(node) = node(call)? else { return refuse(libc::ENODATA) };
    let Some(name) = HostName::of(guest_name)? else { return refuse(libc::ENODATA) };
    let wanted = (size as usize).min(SIZE_MAX);
    let value = &mut call.thread.scratch[..wanted];
    let length = sys::get_xattr(node.as_fd(), name.get(), value).map_err(|errno| {
        // A file system without ACLs has none; the guest's kernel would refuse access otherwise.
        let has_no_acls = guest_name.to_bytes().starts_with(ACLS) && errno == Errno::new(libc::EOPNOTSUPP);
        if has_no_acls { Errno::new(libc::ENODATA) } else { errno }
    })?;
    if wanted == 0 {
        return reply_size(call, length);
    }
    reply_bytes(call, length)
}

/// LISTXATTR.
pub fn list(call: &mut Call<'_>) -> Outcome {
    let GetXattrIn { size, .. } = call.request.take()?;
    let Some(node) = node(call)? else { return if size == 0 { reply_size(call, 0) } else { Ok(0) } };
    let is_root = call.request.header.uid == 0;
    let list = &mut call.thread.scratch[..SIZE_MAX];
    let length = sys::list_xattrs(node.as_fd(), list)?;
    let length = translate(&mut list[..length], is_root);
    if size == 0 {
        return reply_size(call, length);
    }
    if length > size as usize {
        return refuse(libc::ERANGE);
    }
    reply_bytes(call, length)
}

/// Turns the host's list into the guest's, which is not longer, and returns its length.
fn translate(list: &mut [u8], shows_trusted: bool) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Some(length) = list[from..].iter().position(|byte| *byte == 0) {
        let name = from..from + length + 1;
        from = name.end;
        if list[name.clone()].starts_with(MAPPED) {
            if shows_trusted {
                list[to..to + TRUSTED.len()].copy_from_slice(TRUSTED);
                to += TRUSTED.len();
                let rest = name.start + MAPPED.len()..name.end;
                list.copy_within(rest.clone(), to);
                to += rest.len();
            }
        } else if !list[name.clone()].starts_with(TRUSTED) {
            list.copy_within(name.clone(), to);
            to += name.len();
        }
    }
    to
}

/// Replies with the size only.
fn reply_size(call: &Call<'_>, length: usize) -> Outcome {
    if call.reply.room() < size_of::<GetXattrOut>() {
        return refuse(libc::ERANGE);
    }
    // The size is at most 64 KiB.
    Ok(call.reply.put(0, &GetXattrOut { size: length as u32, padding: 0 }))
}

/// Replies with the bytes in the thread's scratch memory.
fn reply_bytes(call: &Call<'_>, length: usize) -> Outcome {
    if call.reply.room() < length {
        return refuse(libc::ERANGE);
    }
    Ok(call.reply.put_bytes(0, &call.thread.scratch[..length]))
}

#[cfg(test)]
#[path = "xattrs_test.rs"]
mod tests;

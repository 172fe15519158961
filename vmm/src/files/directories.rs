//! Listings: READDIR gives names, READDIRPLUS looks each of them up as well.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    abi::{Dirent, EntryOut, ROOT_NODE, ReadIn},
    call::{Call, Place},
    names,
    nodes::Node,
    reply::{Outcome, Reply},
    request::refuse,
    share::Share,
    sync::lock,
    sys::{self, Errno, Result},
};

/// The kind of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// READDIR.
    Names,
    /// READDIRPLUS.
    Entries,
}

/// Offset of the name in the host's record of an entry, in bytes.
const NAME_OFFSET: usize = 19;

/// Size of the host's longest record, with a name of 255 bytes.
const RECORD_LIMIT: usize = 280;

/// Marks an unknown position of the descriptor; no directory has this position.
const UNKNOWN: i64 = -1;

/// A directory's file type in listings.
const DIRECTORY: u32 = libc::DT_DIR as u32;

/// An entry.
struct Entry<'a> {
    inode: u64,
    /// The position at which the listing goes on after it.
    next: i64,
    kind: u32,
    name: &'a [u8],
}

impl Entry<'_> {
    fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// A listing that is being written.
struct Listing<'a> {
    reply: &'a Reply<'a>,
    size: usize,
    end: usize,
    kind: Kind,
}

impl<'a> Listing<'a> {
    fn new(reply: &'a Reply<'a>, size: u32, kind: Kind) -> Self {
        Self { reply, size: (size as usize).min(reply.room()), end: 0, kind }
    }

    /// Adds an entry, with the result of `look_up`; false if there is no room.
    fn add(&mut self, entry: &Entry<'_>, look_up: impl FnOnce() -> Option<EntryOut>) -> bool {
        let fixed = size_of::<Dirent>() + if self.kind == Kind::Entries { size_of::<EntryOut>() } else { 0 };
        let length = fixed + entry.name.len();
        let padded = length.next_multiple_of(8);
        if self.end + padded > self.size {
            return false;
        }
        let mut at = self.end;
        if self.kind == Kind::Entries {
            // Without a node, the entry is only a name.
            at = self.reply.put(at, &look_up().unwrap_or_default());
        }
        let dirent = Dirent {
            ino: entry.inode,
            // The kernel's positions are not negative.
            off: entry.next as u64,
            namelen: entry.name.len() as u32,
            kind: entry.kind,
        };
        at = self.reply.put(at, &dirent);
        at = self.reply.put_bytes(at, entry.name);
        self.end = self.reply.put_bytes(at, &[0; 8][..padded - length]);
        true
    }
}

/// READDIR and READDIRPLUS.
pub fn read(call: &mut Call<'_>, kind: Kind) -> Outcome {
    let ReadIn { fh, offset, size, .. } = call.request.take()?;
    let from = i64::try_from(offset).map_err(|_| Errno::new(libc::EINVAL))?;
    match call.place()? {
        Place::Root => list_shares(call, size, kind, from),
        Place::Share(share) => list_trees(call, &share, size, kind, from),
        Place::Node(share, _) => list(call, &share, fh, size, kind, from),
    }
}

fn list(call: &mut Call<'_>, share: &Share, fh: u64, size: u32, kind: Kind, from: i64) -> Outcome {
    let handle = share.handles.directory(fh)?;
    let node = handle.node();
    if from == 0 {
        node.listed.begins();
    }
    let mut listing = Listing::new(&call.reply, size, kind);
    // As many records as usually fit into the reply: an entry there is larger, by one or two headers.
    let wanted = match kind {
        Kind::Names => listing.size / 4 * 3,
        Kind::Entries => listing.size / 6,
    };
    let records = &mut call.thread.scratch[..];
    let most = wanted.clamp(RECORD_LIMIT, records.len());
    let records = &mut records[..most];

    let mut position = lock(&handle.position);
    let length = read_from(handle.as_fd(), &mut position, from, records)?;
    let mut rest = &records[..length];
    let mut read_to = from;
    while let Some((mut entry, more)) = parse(rest) {
        entry.inode = match entry.name {
            // The guest must not see the host's directory above.
            b".." if node.is_tree() => node.inode(),
            _ => node.inode_beside(entry.inode),
        };
        let look_up = || if entry.is_dot() { None } else { look_up(share, node, entry.name) };
        if !listing.add(&entry, look_up) {
            // The descriptor's position is further than the guest's.
            *position = UNKNOWN;
            break;
        }
        read_to = entry.next;
        rest = more;
    }
    if rest.is_empty() {
        *position = read_to;
    } else if listing.end == 0 {
        return refuse(libc::EINVAL);
    }
    Ok(listing.end)
}

/// Reads records from a position.
fn read_from(directory: BorrowedFd<'_>, position: &mut i64, from: i64, records: &mut [u8]) -> Result<usize> {
    if *position != from {
        *position = UNKNOWN;
        sys::seek(directory, from, libc::SEEK_SET)?;
        *position = from;
    }
    let length = sys::read_directory(directory, records);
    if length.is_err() {
        *position = UNKNOWN;
    }
    length
}

/// The first of the host's records, and the rest.
fn parse(records: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let number = |at: usize| Some(u64::from_ne_bytes(records.get(at..at + 8)?.try_into().ok()?));
    let length = usize::from(u16::from_ne_bytes(records.get(16..18)?.try_into().ok()?));
    let name = CStr::from_bytes_until_nul(records.get(NAME_OFFSET..length)?).ok()?.to_bytes();
    let entry =
        Entry { inode: number(0)?, next: number(8)? as i64, kind: u32::from(*records.get(18)?), name };
    Some((entry, &records[length..]))
}

/// The node of a name for READDIRPLUS. If that fails, or descriptors run out, the guest looks the name up when it needs
/// it.
fn look_up(share: &Share, directory: &Node, name: &[u8]) -> Option<EntryOut> {
    if share.is_scarce() {
        return None;
    }
    let mut copy = [0; 256];
    copy.get_mut(..name.len())?.copy_from_slice(name);
    let (node, stat) = names::find(share, directory, CStr::from_bytes_until_nul(&copy).ok()?).ok()?;
    Some(names::entry_of(&node, &stat))
}

/// Lists "." and ".." of a virtual directory; the other entries begin at position 2.
fn list_dots(listing: &mut Listing<'_>, inode: u64, from: i64) -> bool {
    [b".".as_slice(), b".."].into_iter().zip(1..).all(|(name, next)| {
        // The root's parent is the root, and a share's is the root.
        let inode = if next == 2 { ROOT_NODE } else { inode };
        from >= next || listing.add(&Entry { inode, next, kind: DIRECTORY, name }, || None)
    })
}

/// Lists the root's entries: a share's position follows from its number, so other shares may come and go.
fn list_shares(call: &Call<'_>, size: u32, kind: Kind, from: i64) -> Outcome {
    let mut listing = Listing::new(&call.reply, size, kind);
    if list_dots(&mut listing, ROOT_NODE, from) {
        let mut last = u32::try_from((from - 2).max(0)).unwrap_or(u32::MAX);
        while let Some(share) = call.server.shares.after(last) {
            last = share.number();
            let name = share.name().as_bytes();
            let next = i64::from(last) + 2;
            if !listing.add(&Entry { inode: share.directory(), next, kind: DIRECTORY, name }, || None) {
                break;
            }
        }
    }
    Ok(listing.end)
}

/// Lists a share's entries: trees keep the position at which they were added.
fn list_trees(call: &Call<'_>, share: &Share, size: u32, kind: Kind, from: i64) -> Outcome {
    let mut listing = Listing::new(&call.reply, size, kind);
    if list_dots(&mut listing, share.directory(), from) {
        let mut next = from.max(2);
        while let Some(tree) = usize::try_from(next - 2).ok().and_then(|place| share.tree_at(place)) {
            next += 1;
            let entry = Entry {
                inode: tree.root.inode(),
                next,
                kind: tree.root.kind() >> 12,
                name: tree.name.as_bytes(),
            };
            if !listing.add(&entry, || None) {
                break;
            }
        }
    }
    Ok(listing.end)
}

#[cfg(test)]
#[path = "directories_test.rs"]
mod tests;

//! From a request to the operation that answers it.

use std::mem;

use vm_memory::VolatileSlice;

use super::{
    FileServer, Malformed, ThreadState,
    abi::{self, opcode},
    attributes,
    call::Call,
    data, directories, init, locks, names, open,
    reply::{Outcome, Reply},
    request::{Failure, Request, refuse},
    xattrs,
};

/// See [`FileServer::handle`].
pub fn handle(
    server: &FileServer,
    thread: &mut ThreadState,
    buffer: VolatileSlice<'_>,
    request: usize,
    room: usize,
) -> Result<usize, Malformed> {
    // The thread's buffer holds the request while the thread works for it.
    let mut private = mem::take(&mut thread.request);
    let length = answer(server, thread, buffer, (request, room), &mut private);
    thread.request = private;
    length
}

fn answer(
    server: &FileServer,
    thread: &mut ThreadState,
    buffer: VolatileSlice<'_>,
    (request, room): (usize, usize),
    private: &mut [u8],
) -> Result<usize, Malformed> {
    let mut request = Request::copy(buffer, request, private)?;
    let header = request.header;
    match header.opcode {
        opcode::FORGET => return names::forget(server, &mut request).map(|()| 0),
        opcode::BATCH_FORGET => return names::batch_forget(server, &mut request).map(|()| 0),
        _ => {}
    }
    let reply = Reply::new(buffer, room)?;
    // What an operation does is not undone, so its reply must have room before it begins.
    if reply.room() < least_room(header.opcode) {
        return Err(Malformed("too little room for the reply"));
    }
    let mut call = Call { server, thread, request, reply };
    let outcome = match call.thread.enter(server.fds()) {
        Ok(()) => operate(&mut call),
        Err(errno) => Err(errno.into()),
    };
    match outcome {
        Ok(length) => Ok(call.reply.finish(header.unique, Ok(length))),
        Err(Failure::Errno(errno)) => Ok(call.reply.finish(header.unique, Err(errno))),
        Err(Failure::Malformed(malformed)) => Err(malformed),
    }
}

fn operate(call: &mut Call<'_>) -> Outcome {
    match call.request.header.opcode {
        opcode::LOOKUP => names::look_up(call),
        opcode::GETATTR => attributes::get(call),
        opcode::SETATTR => attributes::set(call),
        opcode::STATX => attributes::statx(call),
        opcode::STATFS => attributes::stat_fs(call),
        opcode::READLINK => names::read_link(call),
        opcode::SYMLINK => names::make_link(call),
        opcode::MKNOD => names::make_node(call),
        opcode::MKDIR => names::make_directory(call),
        opcode::UNLINK => names::unlink(call, 0),
        opcode::RMDIR => names::unlink(call, libc::AT_REMOVEDIR),
        opcode::RENAME => names::rename(call),
        opcode::RENAME2 => names::rename_with_flags(call),
        opcode::LINK => names::link(call),
        opcode::OPEN => open::open(call),
        opcode::CREATE => open::create(call),
        opcode::TMPFILE => open::make_nameless(call),
        opcode::RELEASE => open::release(call),
        opcode::OPENDIR => open::open_directory(call),
        opcode::RELEASEDIR => open::release_directory(call),
        opcode::READ => data::read(call),
        opcode::WRITE => data::write(call),
        opcode::FLUSH => data::flush(call),
        opcode::FSYNC => data::sync(call),
        opcode::FSYNCDIR => data::sync_directory(call),
        opcode::SYNCFS => data::sync_fs(call),
        opcode::FALLOCATE => data::allocate(call),
        opcode::LSEEK => data::seek(call),
        opcode::COPY_FILE_RANGE => data::copy(call),
        opcode::READDIR => directories::read(call, directories::Kind::Names),
        opcode::READDIRPLUS => directories::read(call, directories::Kind::Entries),
        opcode::SETXATTR => xattrs::set(call),
        opcode::GETXATTR => xattrs::get(call),
        opcode::LISTXATTR => xattrs::list(call),
        opcode::REMOVEXATTR => xattrs::remove(call),
        opcode::GETLK => locks::query(call),
        // The server never waits: see Limits::host_locks.
        opcode::SETLK | opcode::SETLKW => locks::set(call),
        opcode::INIT => init::init(call),
        opcode::DESTROY => init::destroy(call),
        // ACCESS: the guest's kernel checks permissions. IOCTL, POLL, BMAP, INTERRUPT and the rest do not exist here.
        _ => refuse(libc::ENOSYS),
    }
}

/// Bytes behind the header that the operation's reply takes at least, if it succeeds.
fn least_room(operation: u32) -> usize {
    match operation {
        opcode::LOOKUP | opcode::MKNOD | opcode::MKDIR | opcode::SYMLINK | opcode::LINK => {
            size_of::<abi::EntryOut>()
        }
        opcode::CREATE | opcode::TMPFILE => size_of::<abi::EntryOut>() + size_of::<abi::OpenOut>(),
        opcode::GETATTR | opcode::SETATTR => size_of::<abi::AttrOut>(),
        opcode::STATX => size_of::<abi::StatxOut>(),
        opcode::STATFS => size_of::<abi::StatfsOut>(),
        opcode::OPEN | opcode::OPENDIR => size_of::<abi::OpenOut>(),
        opcode::WRITE | opcode::COPY_FILE_RANGE => size_of::<abi::WriteOut>(),
        opcode::LSEEK => size_of::<abi::LseekOut>(),
        opcode::GETLK => size_of::<abi::LockOut>(),
        opcode::INIT => size_of::<abi::InitOut>(),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;

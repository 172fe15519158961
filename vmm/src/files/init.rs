//! INIT: the features that both sides agree on.
//!
//! The guest caches names and attributes for one second ([`super::attributes::TIMEOUT_SECONDS`]), and contents until an open that does
//! not tell it to keep them ([`super::pages`]) or a change of size or modification time: others may change files, and nobody tells the
//! guest.

use super::{
    MAX_DATA,
    abi::{InitCompatIn, InitIn, InitOut, MAJOR, MINOR, OLDEST_MINOR, feature},
    call::Call,
    reply::Outcome,
    request::refuse,
};

/// Features that the server asks for if the guest offers them.
const FEATURES: u64 = feature::ASYNC_READ
    | feature::ATOMIC_O_TRUNC
    | feature::BIG_WRITES
    | feature::DONT_MASK
    | feature::AUTO_INVAL_DATA
    | feature::DO_READDIRPLUS
    | feature::READDIRPLUS_AUTO
    | feature::ASYNC_DIO
    | feature::PARALLEL_DIROPS
    | feature::POSIX_ACL
    | feature::MAX_PAGES
    | feature::SUBMOUNTS
    | feature::HANDLE_KILLPRIV_V2
    | feature::SETXATTR_EXT
    | feature::INIT_EXT
    | feature::DIRECT_IO_ALLOW_MMAP;

/// Features for locks that the server takes on the host.
const LOCKS: u64 = feature::FLOCK_LOCKS | feature::POSIX_LOCKS;

/// Times have nanoseconds.
const TIME_GRANULARITY: u32 = 1;

const PAGE: usize = 4096;

/// INIT.
pub fn init(call: &mut Call<'_>) -> Outcome {
    let length = call.request.header.len as usize;
    let offer = if length >= size_of::<InitIn>() + size_of_val(&call.request.header) {
        call.request.take::<InitIn>()?
    } else {
        let InitCompatIn { major, minor, max_readahead, flags } = call.request.take()?;
        InitIn { major, minor, max_readahead, flags, ..InitIn::default() }
    };
    let mut answer = InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() };
    if offer.major > MAJOR {
        // The guest asks again with this version.
        return Ok(call.reply.put(0, &answer));
    }
    if offer.major < MAJOR || offer.minor < OLDEST_MINOR {
        return refuse(libc::EPROTO);
    }
    let mut offered = u64::from(offer.flags);
    if offered & feature::INIT_EXT != 0 {
        offered |= u64::from(offer.flags2) << 32;
    }
    let locks = if call.server.limits.host_locks { LOCKS } else { 0 };
    let agreed = offered & (FEATURES | locks);
    call.server.negotiate_setxattr_ext(agreed & feature::SETXATTR_EXT != 0);

    answer.max_readahead = offer.max_readahead;
    answer.flags = agreed as u32;
    answer.flags2 = (agreed >> 32) as u32;
    answer.max_background = u16::MAX;
    answer.congestion_threshold = u16::MAX / 4 * 3;
    answer.max_write = MAX_DATA as u32;
    answer.time_gran = TIME_GRANULARITY;
    answer.max_pages = (MAX_DATA / PAGE) as u16;
    Ok(call.reply.put(0, &answer))
}

/// DESTROY: the guest has unmounted the file system.
pub fn destroy(call: &mut Call<'_>) -> Outcome {
    call.server.reset();
    Ok(0)
}

//! Redirects between an interface and its tap: every packet that comes in at one goes out at the other, before the
//! host's own network sees it. So the interface keeps its addresses on the host, where callers read them, and only the
//! guest answers for them.

use std::io;

use stockade_sys::netlink::Message;

use super::NetworkError;
use super::netlink::Netlink;

/// The parent of the qdisc for incoming packets.
const TC_H_INGRESS: u32 = 0xffff_fff1;
/// The handle of that qdisc.
const INGRESS: u32 = 0xffff_0000;

/// The filter's priority: the first. Filters of others come after it and get no packets.
const PRIORITY: u32 = 1;
/// The filter's handle.
const FILTER: u32 = 1;

const ETH_P_ALL: u16 = 3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: u32 = 1;
const TC_ACT_STOLEN: u32 = 4;

const QDISC: &str = "ingress";

/// Redirects packets that come in at `from` to `to`.
///
/// # Errors
/// [`NetworkError::Redirect`], for the interface of this name.
pub fn redirect(from: u32, to: u32, interface: &str, netlink: &mut Netlink) -> Result<(), NetworkError> {
    let failed = |cause| NetworkError::Redirect { interface: interface.to_owned(), cause };
    match make_qdisc(from, netlink) {
        // A qdisc that somebody else has made (clsact, for example) can be used as well.
        Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => {}
        made => made.map_err(failed)?,
    }
    match make_filter(from, to, netlink) {
        // A VM without a record has left it. It cannot be the filter of a living VM, because that VM would have the
        // tap, which is made before.
        Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => remove(from, netlink)
            .and_then(|()| match make_qdisc(from, netlink) {
                Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                made => made,
            })
            .and_then(|()| make_filter(from, to, netlink)),
        made => made,
    }
    .map_err(failed)
}

/// Removes the redirect from an interface, which may be gone.
///
/// # Errors
/// The kernel's.
pub fn remove(from: u32, netlink: &mut Netlink) -> io::Result<()> {
    let filter = netlink.ask(filter(libc::RTM_DELTFILTER, 0, from));
    if !is_gone(&filter) {
        filter?;
    }
    // The qdisc of somebody else is left, and so is one that has other filters by now.
    if !netlink.list(libc::RTM_GETTFILTER, &body(from, 0, INGRESS, 0))?.is_empty() {
        return Ok(());
    }
    match netlink.ask(qdisc(libc::RTM_DELQDISC, 0, from)) {
        Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        removed if is_gone(&removed) => Ok(()),
        removed => removed,
    }
}

fn is_gone(result: &io::Result<()>) -> bool {
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

fn make_qdisc(index: u32, netlink: &mut Netlink) -> io::Result<()> {
    netlink.ask(qdisc(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, index))
}

fn qdisc(kind: u16, flags: i32, index: u32) -> Message {
    let mut message = Message::new(kind, flags, &body(index, INGRESS, TC_H_INGRESS, 0));
    message.string(TCA_KIND, QDISC);
    message
}

fn make_filter(from: u32, to: u32, netlink: &mut Netlink) -> io::Result<()> {
    // `struct tc_mirred`: index, capabilities, action, two counts, what to do, and to which interface.
    let words = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to];
    let parameters: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut message = filter(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_EXCL, from);
    message.nested(TCA_OPTIONS, |options| {
        options.nested(TCA_MATCHALL_ACT, |actions| {
            // Actions go by their place, from 1 on.
            actions.nested(1, |action| {
                action.string(TCA_ACT_KIND, "mirred");
                action.nested(TCA_ACT_OPTIONS, |options| options.attribute(TCA_MIRRED_PARMS, &parameters));
            });
        });
    });
    netlink.ask(message)
}

fn filter(kind: u16, flags: i32, from: u32) -> Message {
    let protocol = PRIORITY << 16 | u32::from(ETH_P_ALL.to_be());
    let mut message = Message::new(kind, flags, &body(from, FILTER, INGRESS, protocol));
    message.string(TCA_KIND, "matchall");
    message
}

/// `struct tcmsg`.
fn body(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut body = [0; 20];
    for (place, word) in body[4..].chunks_exact_mut(4).zip([index, handle, parent, info]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    body
}

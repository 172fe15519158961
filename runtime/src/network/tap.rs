//! Taps, through which the VMM reaches an interface. A tap goes when its last descriptor is closed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use stockade_protocol::network::Link;
use stockade_sys::netlink::Message;

use super::NetworkError;
use super::netlink::{Netlink, named};

/// The prefix of taps' names; the number of the interface follows.
const PREFIX: &str = "stkd";

/// IFLA_INFO_KIND of a tap.
const KIND: &str = "tun";

/// The device that makes taps.
pub const DEVICE: &str = "/dev/net/tun";

/// `_IOW('T', 202, int)` of linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// A tap that is up.
#[derive(Debug)]
pub struct Tap {
    /// Its number.
    pub index: u32,
    /// One descriptor for each pair of queues.
    pub queues: Vec<OwnedFd>,
}

/// Whether an interface is a tap of stockade.
pub fn is_ours(name: &str, kind: &str) -> bool {
    kind == KIND && name.strip_prefix(PREFIX).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Makes the tap of an interface in the calling thread's network namespace.
///
/// # Errors
/// [`NetworkError::Tap`].
pub fn make(link: &Link, pairs: usize, netlink: &mut Netlink) -> Result<Tap, NetworkError> {
    let name = format!("{PREFIX}{}", link.interface);
    let failed = |cause: io::Error| NetworkError::Tap {
        interface: link.name.clone(),
        remedy: match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "; load the kernel module tun",
            Some(libc::EBUSY) => {
                "; another VM is connected to it, or somebody has made an interface of this name"
            }
            _ => "",
        },
        name: name.clone(),
        cause,
    };
    let queues = (0..pairs.max(1)).map(|_| open(&name, pairs > 1)).collect::<io::Result<Vec<_>>>();
    let queues = queues.map_err(failed)?;
    let index = netlink.index(&name).map_err(failed)?;
    set_up(index, link.mtu, netlink).map_err(failed)?;
    Ok(Tap { index, queues })
}

fn open(name: &str, is_one_of_several: bool) -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    let several = if is_one_of_several { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
    let mut request = named(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags as i16 });
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    match unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0 => Ok(file.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the tap up so that the host's kernel sends no packets of its own on it: only redirected packets reach the
/// guest.
fn set_up(index: u32, mtu: u32, netlink: &mut Netlink) -> io::Result<()> {
    let mut silent = change(index, 0);
    silent.nested(libc::IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET6 as u16, |ipv6| {
            ipv6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
    match netlink.ask(silent) {
        // The kernel has no IPv6.
        Err(cause) if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
        set => set?,
    }
    let mut up = change(index, libc::IFF_UP);
    up.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
    netlink.ask(up)
}

/// A request that changes an interface and sets these flags.
fn change(index: u32, flags: libc::c_int) -> Message {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&flags.to_ne_bytes());
    Message::new(libc::RTM_NEWLINK, 0, &body)
}

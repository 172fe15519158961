//! A tap: packets that the device writes to it arrive at the host's interface, and the other way round.
//!
//! The device's requests of ioctl(2) need no privilege on an open tap.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
};

use super::{HEADER_SIZE, bit};

/// Flags that a tap must have been opened with, and their names.
const FLAGS: [(libc::c_int, &str); 3] =
    [(libc::IFF_TAP, "IFF_TAP"), (libc::IFF_NO_PI, "IFF_NO_PI"), (libc::IFF_VNET_HDR, "IFF_VNET_HDR")];

/// The flag of TUNSETOFFLOAD for each feature by which a driver says what it accepts. A tap segments UDP for both
/// families or for none.
const OFFLOADS: [(u64, libc::c_uint); 5] = [
    (bit(VIRTIO_NET_F_GUEST_CSUM), libc::TUN_F_CSUM),
    (bit(VIRTIO_NET_F_GUEST_TSO4), libc::TUN_F_TSO4),
    (bit(VIRTIO_NET_F_GUEST_TSO6), libc::TUN_F_TSO6),
    (bit(VIRTIO_NET_F_GUEST_ECN), libc::TUN_F_TSO_ECN),
    (bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6), libc::TUN_F_USO4 | libc::TUN_F_USO6),
];

/// Why a descriptor cannot be used as a tap.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor is not a tap.
    #[error("not an open tap: {0}")]
    NotATap(io::Error),
    /// The tap was opened without a flag.
    #[error("not opened with {0}")]
    Flags(&'static str),
    /// The kernel refuses a setting.
    #[error("{request}: {source}")]
    Refused {
        /// The request.
        request: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Why a packet has not been read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is nothing to read now, or no room to write.
    Later,
    /// This packet cannot be written, or the read failed.
    Packet,
    /// The interface has been deleted, or this queue of it is detached.
    Gone,
}

/// An open tap, or one queue of it.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    attached: AtomicBool,
}

impl Tap {
    /// Makes a descriptor ready for the device: it does not block and has headers of [`HEADER_SIZE`].
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn new(fd: OwnedFd, several: bool) -> Result<Self, Error> {
        // SAFETY: all-zero is a valid ifreq.
        let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: the request fills an ifreq in.
        unsafe { request(&fd, libc::TUNGETIFF, &raw mut interface) }.map_err(Error::NotATap)?;
        // SAFETY: it has just been filled in, with flags.
        let flags = libc::c_int::from(unsafe { interface.ifr_ifru.ifru_flags });
        let several = several.then_some((libc::IFF_MULTI_QUEUE, "IFF_MULTI_QUEUE"));
        if let Some((_, name)) = FLAGS.into_iter().chain(several).find(|(flag, _)| flags & flag == 0) {
            return Err(Error::Flags(name));
        }
        let refused = |request| move |source| Error::Refused { request, source };
        let mut size = HEADER_SIZE as libc::c_int;
        // SAFETY: the request reads an int.
        unsafe { request(&fd, libc::TUNSETVNETHDRSZ, &raw mut size) }.map_err(refused("TUNSETVNETHDRSZ"))?;
        Self::over(fd).map_err(refused("O_NONBLOCK"))
    }

    /// A tap that is ready except for O_NONBLOCK; tests use other files in its place.
    pub(super) fn over(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd, attached: AtomicBool::new(true) })
    }

    /// True if the kernel segments UDP for taps.
    pub fn segments_udp(&self) -> bool {
        let does = self.set_offloads(libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
        does && self.set_offloads(0).is_ok()
    }

    /// From now on, the tap's reader gets packets as a driver with these `features` accepts them.
    ///
    /// # Errors
    /// Those of ioctl(2); a tap that has gone is not an error.
    pub fn accept(&self, features: u64) -> io::Result<()> {
        let wanted = |(feature, _): &&(u64, libc::c_uint)| features & feature == *feature;
        match self.set_offloads(OFFLOADS.iter().filter(wanted).fold(0, |all, (_, offload)| all | offload)) {
            Err(e) if e.raw_os_error() == Some(libc::EBADFD) => Ok(()),
            outcome => outcome,
        }
    }

    fn set_offloads(&self, offloads: libc::c_uint) -> io::Result<()> {
        // SAFETY: the request takes its argument by value.
        let outcome =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Attaches this queue to the interface, which then puts packets into it, or detaches it.
    ///
    /// # Errors
    /// Those of ioctl(2); a tap that has gone is not an error.
    pub fn attach(&self, attached: bool) -> io::Result<()> {
        if self.attached.load(Ordering::Relaxed) == attached {
            return Ok(());
        }
        // SAFETY: all-zero is a valid ifreq.
        let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        // Both flags are below 2^15.
        interface.ifr_ifru.ifru_flags = flag as libc::c_short;
        // SAFETY: the request reads an ifreq.
        match unsafe { request(&self.fd, libc::TUNSETQUEUE, &raw mut interface) } {
            Err(e) if !matches!(e.raw_os_error(), Some(libc::EBADFD | libc::EINVAL)) => Err(e),
            _ => {
                self.attached.store(attached, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Reads one packet, and returns its length with the header. The part that does not fit is lost.
    ///
    /// # Errors
    /// [`Failure`].
    ///
    /// # Safety
    /// The buffers may be written to for the duration of the call, and no reference to them exists.
    pub unsafe fn read(&self, buffers: &[libc::iovec]) -> Result<usize, Failure> {
        // SAFETY: the caller vouches for the buffers.
        let length = unsafe { libc::readv(self.fd.as_raw_fd(), buffers.as_ptr(), count(buffers)) };
        // A packet has at least a header, so 0 is the end of a file that a test uses in place of a tap.
        usize::try_from(length).map_err(|_| failure()).and_then(|length| match length {
            0 => Err(Failure::Gone),
            length => Ok(length),
        })
    }

    /// Writes one packet with its header.
    ///
    /// # Errors
    /// [`Failure`].
    ///
    /// # Safety
    /// The buffers are mapped for the duration of the call.
    pub unsafe fn write(&self, buffers: &[libc::iovec]) -> Result<(), Failure> {
        // SAFETY: the caller vouches for the buffers.
        let length = unsafe { libc::writev(self.fd.as_raw_fd(), buffers.as_ptr(), count(buffers)) };
        if length < 0 { Err(failure()) } else { Ok(()) }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The callers limit the list to UIO_MAXIOV.
fn count(buffers: &[libc::iovec]) -> libc::c_int {
    buffers.len() as libc::c_int
}

fn failure() -> Failure {
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Failure::Later,
        Some(libc::EBADFD) => Failure::Gone,
        _ => Failure::Packet,
    }
}

/// # Safety
/// The request takes a pointer to a `T`, which is valid.
unsafe fn request<T>(fd: &OwnedFd, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for the argument.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

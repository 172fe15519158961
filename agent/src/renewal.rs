//! What makes the clones of a template differ: nothing happens in a clone until the host has sent a [`Renewal`].
//!
//! The kernel draws what it has not drawn before (the boot ID, the secrets of TCP, canaries and layouts of new
//! programs) from its random numbers when it needs it, and so each clone draws its own. What the kernel drew while it
//! booted is the same in all clones (`docs/security.md`).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        socket::SockFlag,
        stat::{Mode, SFlag, makedev, mknod},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime, clock_settime},
    unistd::unlink,
};
use stockade_protocol::{
    agent::MAGIC,
    frame,
    renewal::{PARAMETER, PORT, Renewal},
};

use crate::{
    error::{Context, ErrorKind, Result, error},
    vsock,
};

/// Path of a node for the kernel's random numbers while it is opened: the agent's root has no device nodes.
const RANDOM: &str = "/run/random";
const RANDOM_NUMBER: (u64, u64) = (1, 8);

/// The clock is set only if it differs by more than this. Then the VMM has not set it; a clock that the VMM has set
/// would only get worse, because the message takes some time.
const CLOCK_IS_OFF: Duration = Duration::from_secs(1);

/// Longest message, in bytes.
const LIMIT: usize = 256;

/// The request of ioctl(2) in linux/random.h.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with the entropy of one message.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    bytes: libc::c_int,
    data: [u8; 32],
}

/// Whether this guest is to become a template, by the parameters of its kernel.
pub fn is_template() -> bool {
    std::env::var_os(PARAMETER).is_some()
}

/// All that is needed to become a clone.
pub struct Waiting {
    listener: OwnedFd,
    random: OwnedFd,
}

impl Waiting {
    /// Listens for the host.
    pub fn prepare() -> Result<Self> {
        Ok(Self { listener: vsock::listen_on_port(PORT, SockFlag::empty())?, random: open_random()? })
    }

    /// Waits for the host's message, and applies it. Until then, nothing that a container could get is drawn from the
    /// random numbers.
    pub fn wait(self) -> Result<()> {
        let socket = loop {
            if let Some(socket) = vsock::accept(&self.listener) {
                break socket;
            }
        };
        set_blocking(&socket)?;
        let renewal = frame::read::<Renewal>(&mut File::from(socket), LIMIT)
            .map_err(|cause| error(ErrorKind::Internal, format!("the host's message to a clone: {cause}")))?
            .filter(|renewal| renewal.magic == MAGIC)
            .ok_or_else(|| {
                error(ErrorKind::Internal, "the host's message to a clone is missing or not valid".to_owned())
            })?;
        renew_random_numbers(&self.random, &renewal)?;
        set_clock(Duration::new(renewal.seconds, renewal.nanoseconds))
    }
}

fn open_random() -> Result<OwnedFd> {
    let (major, minor) = RANDOM_NUMBER;
    let open = || {
        mknod(RANDOM, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
        let random = open(RANDOM, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        unlink(RANDOM)?;
        random
    };
    open().or_internal(|| "open the kernel's random numbers".to_owned())
}

/// Makes the kernel's random numbers differ from those of all other clones.
fn renew_random_numbers(random: &OwnedFd, renewal: &Renewal) -> Result<()> {
    for data in renewal.entropy {
        let bytes = data.len() as libc::c_int;
        let entropy = Entropy { bits: 8 * bytes, bytes, data };
        // SAFETY: the request reads a rand_pool_info and as many bytes behind it as that says, which are there.
        let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const entropy) };
        Errno::result(added).or_internal(|| "add to the kernel's entropy".to_owned())?;
    }
    // SAFETY: the request takes no argument.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    Errno::result(reseeded).map(drop).or_internal(|| "reseed the kernel's random numbers".to_owned())
}

fn set_clock(host: Duration) -> Result<()> {
    let clock = ClockId::CLOCK_REALTIME;
    let now = clock_gettime(clock).or_internal(|| "read the clock".to_owned())?;
    if Duration::from(now).abs_diff(host) < CLOCK_IS_OFF {
        return Ok(());
    }
    clock_settime(clock, TimeSpec::from_duration(host)).or_internal(|| "set the clock".to_owned())
}

fn set_blocking(socket: &OwnedFd) -> Result<()> {
    nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))
        .map(drop)
        .map_err(io::Error::from)
        .or_internal(|| "wait for the host's message".to_owned())
}

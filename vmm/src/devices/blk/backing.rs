//! The backing of a disk: a file or a block device of the host.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vm_memory::VolatileSlice;

use super::{SECTOR, SERIAL_SIZE};
use crate::virtio::buffers;

/// Why a disk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is not exactly one descriptor.
    #[error("a block device takes one descriptor, and {0} came with the request")]
    Descriptors(usize),
    /// The serial number is too long.
    #[error("the serial number {0:?} has more than {SERIAL_SIZE} bytes")]
    Serial(String),
    /// The descriptor is neither a file nor a block device.
    #[error("the disk's backing is neither a file nor a block device")]
    Kind,
    /// The descriptor does not allow what the guest may do.
    #[error("the disk's backing was not opened for {0}")]
    Mode(&'static str),
    /// The backing is empty.
    #[error("the disk's backing is empty")]
    Empty,
    /// A system call failed.
    #[error("the disk's backing: {0}")]
    Io(#[from] io::Error),
}

/// An open file or block device.
#[derive(Debug)]
pub struct Backing(File);

impl Backing {
    /// Checks that the descriptor is a file or a block device, and how it was opened.
    ///
    /// # Errors
    /// [`Error::Kind`], [`Error::Mode`], [`Error::Io`].
    pub fn new(descriptor: OwnedFd, writable: bool) -> Result<Self, Error> {
        let file = File::from(descriptor);
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::Kind);
        }
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).map_err(io::Error::from)?);
        let mode = flags & OFlag::O_ACCMODE;
        // Writes go to given offsets: O_APPEND would write them elsewhere, and O_DIRECT refuses unaligned buffers of
        // the guest.
        if flags.intersects(OFlag::O_APPEND | OFlag::O_DIRECT) {
            return Err(Error::Mode("reads and writes at any place (O_APPEND, O_DIRECT)"));
        }
        if flags.contains(OFlag::O_PATH) || mode == OFlag::O_WRONLY {
            return Err(Error::Mode("reading"));
        }
        if writable && mode != OFlag::O_RDWR {
            return Err(Error::Mode("writing"));
        }
        Ok(Self(file))
    }

    /// Its size, in bytes.
    ///
    /// # Errors
    /// Those of lseek(2), which knows it of block devices too.
    pub fn size(&self) -> io::Result<u64> {
        (&self.0).seek(SeekFrom::End(0))
    }

    /// The size of a block, in bytes; for a file, that of a sector.
    ///
    /// # Errors
    /// Those of BLKSSZGET.
    pub fn block_size(&self) -> io::Result<u32> {
        if !self.0.metadata()?.file_type().is_block_device() {
            return Ok(SECTOR as u32);
        }
        let mut size: libc::c_int = 0;
        // SAFETY: the request writes an int.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), libc::BLKSSZGET, &raw mut size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(u32::try_from(size).unwrap_or(SECTOR as u32))
    }

    /// Fills `slices` from `offset`.
    ///
    /// # Errors
    /// Those of preadv(2), and `UnexpectedEof`.
    pub fn read(&self, slices: &mut [VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        transfer(slices, offset, |iovecs, count, offset| {
            // SAFETY: guest memory stays mapped while there are slices of it, and no references to it exist.
            unsafe { libc::preadv(self.0.as_raw_fd(), iovecs, count, offset) }
        })
    }

    /// Writes `slices` to `offset`.
    ///
    /// # Errors
    /// Those of pwritev(2), and `UnexpectedEof` where nothing more can be written.
    pub fn write(&self, slices: &mut [VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        transfer(slices, offset, |iovecs, count, offset| {
            // SAFETY: guest memory stays mapped while there are slices of it; the kernel only reads it, and tolerates that
            // the guest writes to it meanwhile.
            unsafe { libc::pwritev(self.0.as_raw_fd(), iovecs, count, offset) }
        })
    }

    /// Waits until everything that was written before is on the medium.
    ///
    /// # Errors
    /// Those of fdatasync(2).
    pub fn flush(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Makes a range read as zeros; with `discard`, the medium also frees it.
    ///
    /// # Errors
    /// Those of fallocate(2): `Unsupported` where the backing cannot do it.
    pub fn zero(&self, offset: u64, length: u64, discard: bool) -> io::Result<()> {
        let how = if discard { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        loop {
            // SAFETY: takes numbers only.
            let outcome = unsafe {
                libc::fallocate(self.0.as_raw_fd(), how | libc::FALLOC_FL_KEEP_SIZE, offset, length)
            };
            if outcome == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Repeats `call` until all bytes are moved.
fn transfer(
    mut slices: &mut [VolatileSlice<'_>],
    mut offset: u64,
    call: impl Fn(*const libc::iovec, libc::c_int, libc::off_t) -> libc::ssize_t,
) -> io::Result<()> {
    while !slices.is_empty() {
        let iovecs: Vec<_> = slices.iter().map(buffers::iovec).collect();
        let place = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // At most MAX_DESCRIPTORS, which is less than UIO_MAXIOV.
        let moved = call(iovecs.as_ptr(), iovecs.len() as libc::c_int, place);
        match usize::try_from(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => {
                slices = buffers::skip(slices, moved);
                offset += moved as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

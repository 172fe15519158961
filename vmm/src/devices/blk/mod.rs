//! virtio-blk (virtio 1.3 §5.2): a file or a block device of the host as a disk of the guest.
//!
//! One queue and one thread, which reads and writes the backing where the guest has its buffers ([`request`]), through the
//! host's page cache. Its size is fixed when the device is made: the guest reaches nothing beyond, and gets I/O errors
//! if the backing becomes shorter.

mod backing;
mod request;

use std::{os::fd::OwnedFd, sync::Arc};

use stockade_protocol::vmm;
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
        VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

pub use self::backing::Error;
use self::{
    backing::Backing,
    request::{MAX_RANGES, Requests},
};
use crate::{
    seccomp::Thread,
    virtio::{
        buffers::MAX_DESCRIPTORS,
        device::read_space,
        worker::{ChainDevice, Handler, WorkerDevice},
    },
};

/// Bytes of a sector, in which requests count (§5.2.5.2).
const SECTOR: u64 = 512;

/// Bytes of the serial number, without a terminator if it fills them.
const SERIAL_SIZE: usize = 20;

/// Largest number of data segments in a request: the header and the status take one descriptor each.
const MAX_SEGMENTS: u32 = MAX_DESCRIPTORS as u32 - 2;

/// Largest number of sectors in one range of a request to discard or to zero.
const MAX_RANGE_SECTORS: u32 = 1 << 22;

/// Features that every disk offers.
const FEATURES: u64 = 1 << VIRTIO_BLK_F_SEG_MAX
    | 1 << VIRTIO_BLK_F_BLK_SIZE
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Features of a writable disk. Whether the backing supports them is found out by the first request; a guest that gets
/// an error does not ask again.
const WRITABLE: u64 = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// The properties of a disk that its driver sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Whether the guest can only read it.
    pub readonly: bool,
    /// Its serial number.
    pub serial: String,
    /// Its size, in sectors.
    pub sectors: u64,
    /// Size of a block of the backing, in bytes.
    pub block_size: u32,
}

/// A disk.
pub type Blk = WorkerDevice<Disk>;

impl Blk {
    /// Makes a disk over the one descriptor that came with the request.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn new(disk: vmm::Disk, descriptors: Vec<OwnedFd>) -> Result<Self, Error> {
        let vmm::Disk { readonly, serial } = disk;
        let count = descriptors.len();
        let Ok([descriptor]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err(Error::Descriptors(count));
        };
        if serial.len() > SERIAL_SIZE {
            return Err(Error::Serial(serial));
        }
        let backing = Backing::new(descriptor, !readonly)?;
        let sectors = backing.size()? / SECTOR;
        if sectors == 0 {
            return Err(Error::Empty);
        }
        let geometry = Geometry { readonly, serial, sectors, block_size: backing.block_size()? };
        Ok(Self::over(Disk { geometry: Arc::new(geometry), backing: Arc::new(backing) }))
    }
}

/// The parts that only a disk has.
#[derive(Debug)]
pub struct Disk {
    geometry: Arc<Geometry>,
    backing: Arc<Backing>,
}

impl Disk {
    /// The handler that carries out its requests.
    pub(crate) fn requests(&self) -> Requests {
        Requests::new(Arc::clone(&self.geometry), Arc::clone(&self.backing))
    }
}

impl ChainDevice for Disk {
    const NAME: &'static str = "blk";
    const DEVICE_TYPE: u32 = VIRTIO_ID_BLOCK;
    const QUEUE_SIZES: &'static [u16] = &[128];
    const FILTER: Thread = Thread::Blk;

    fn features(&self) -> u64 {
        FEATURES | if self.geometry.readonly { 1 << VIRTIO_BLK_F_RO } else { WRITABLE }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // §5.2.4; fields of features that are not offered stay zero.
        let mut space = [0; 60];
        let block_size = self.geometry.block_size;
        let fields: [(usize, u32); 7] = [
            (12, MAX_SEGMENTS),
            (20, block_size),
            // Sectors, ranges and alignment of what is discarded, then the same of what is zeroed.
            (36, MAX_RANGE_SECTORS),
            (40, MAX_RANGES as u32),
            (44, block_size / SECTOR as u32),
            (48, MAX_RANGE_SECTORS),
            (52, MAX_RANGES as u32),
        ];
        space[..8].copy_from_slice(&self.geometry.sectors.to_le_bytes());
        for (at, value) in fields {
            space[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        // What is zeroed may be given back to the host.
        space[56] = 1;
        read_space(&space, offset, data);
    }

    fn handler(&self) -> impl Handler {
        self.requests()
    }
}

#[cfg(test)]
#[path = "blk_test.rs"]
mod tests;

//! One request: header, data and status (§5.2.6).
//!
//! The driver may distribute these over descriptors as it likes (§2.7.4.1): the header is the first 16 readable bytes,
//! the status the last writable byte, and everything between them is data.

use std::{io, sync::Arc};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::{Geometry, MAX_RANGE_SECTORS, SECTOR, SERIAL_SIZE, backing::Backing};
use crate::virtio::{
    buffers::{self, MAX_DESCRIPTORS},
    worker::{self, Handler},
};

/// Bytes of a header: type, 4 unused, sector.
const HEADER_SIZE: usize = 16;

/// Bytes of a range to discard or to zero: sector, number of sectors, flags.
const RANGE_SIZE: usize = 16;

/// Largest number of ranges in one request.
pub const MAX_RANGES: usize = 16;

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The request failed.
    Io,
    /// This device does not support this kind of request.
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Self::Unsupported } else { Self::Io }
    }
}

/// Carries requests out.
pub struct Requests {
    geometry: Arc<Geometry>,
    backing: Arc<Backing>,
}

impl Requests {
    /// Makes a handler for this disk.
    pub fn new(geometry: Arc<Geometry>, backing: Arc<Backing>) -> Self {
        Self { geometry, backing }
    }

    /// Carries out a request; returns how many bytes it has written to `to_guest`.
    fn carry_out(
        &self,
        header: &[u8; HEADER_SIZE],
        from_guest: &mut [VolatileSlice<'_>],
        to_guest: &mut [VolatileSlice<'_>],
    ) -> Result<u64, Failure> {
        let kind = u32::from_le_bytes(std::array::from_fn(|index| header[index]));
        let sector = u64::from_le_bytes(std::array::from_fn(|index| header[8 + index]));
        match kind {
            VIRTIO_BLK_T_IN => {
                let length = total(to_guest);
                self.backing.read(to_guest, self.place(sector, length)?)?;
                Ok(length)
            }
            VIRTIO_BLK_T_OUT => {
                self.check_writable()?;
                self.backing.write(from_guest, self.place(sector, total(from_guest))?)?;
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                self.backing.flush()?;
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => {
                let mut serial = [0; SERIAL_SIZE];
                serial[..self.geometry.serial.len()].copy_from_slice(self.geometry.serial.as_bytes());
                buffers::copy_in(to_guest, &serial);
                Ok(total(to_guest).min(SERIAL_SIZE as u64))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                self.check_writable()?;
                self.zero(from_guest, kind == VIRTIO_BLK_T_DISCARD)?;
                Ok(0)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.geometry.readonly { Err(Failure::Io) } else { Ok(()) }
    }

    /// The offset of a range of whole sectors, if all of it is on the disk.
    fn place(&self, sector: u64, length: u64) -> Result<u64, Failure> {
        let sectors = length / SECTOR;
        let fits = sector.checked_add(sectors).is_some_and(|end| end <= self.geometry.sectors);
        if fits && length.is_multiple_of(SECTOR) { Ok(sector * SECTOR) } else { Err(Failure::Io) }
    }

    fn zero(&self, ranges: &[VolatileSlice<'_>], discard: bool) -> Result<(), Failure> {
        let mut bytes = [0; MAX_RANGES * RANGE_SIZE];
        let length = total(ranges) as usize;
        if length > bytes.len() || !length.is_multiple_of(RANGE_SIZE) {
            return Err(Failure::Io);
        }
        buffers::copy_out(ranges, &mut bytes);
        for range in bytes[..length].as_chunks::<RANGE_SIZE>().0 {
            let sector = u64::from_le_bytes(std::array::from_fn(|index| range[index]));
            let sectors = u32::from_le_bytes(std::array::from_fn(|index| range[8 + index]));
            let flags = u32::from_le_bytes(std::array::from_fn(|index| range[12 + index]));
            // What is discarded is forgotten anyway, and may not be marked so (§5.2.6.1).
            let known = if discard { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
            if flags & !known != 0 {
                return Err(Failure::Unsupported);
            }
            if sectors > MAX_RANGE_SECTORS {
                return Err(Failure::Io);
            }
            let length = u64::from(sectors) * SECTOR;
            let place = self.place(sector, length)?;
            if length > 0 {
                self.backing.zero(place, length, discard || flags != 0)?;
            }
        }
        Ok(())
    }
}

impl Handler for Requests {
    fn handle(
        &mut self,
        _queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, worker::Failure> {
        let malformed = worker::Failure::Malformed;
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        buffers::collect_request(memory, chain, MAX_DESCRIPTORS, &mut readable, &mut writable)?;
        let mut header = [0; HEADER_SIZE];
        if buffers::copy_out(&readable, &mut header) < HEADER_SIZE {
            return Err(malformed("too short for a header"));
        }
        let from_guest = buffers::skip(&mut readable, HEADER_SIZE);
        // The last byte of the last slice: there are no empty ones.
        let last = writable.last().ok_or(malformed("no room for the status"))?;
        let status = last.offset(last.len() - 1).map_err(|_| malformed("no room for the status"))?;
        let length = total(&writable) - 1;
        buffers::truncate(&mut writable, length as usize);
        let outcome = self.carry_out(&header, from_guest, &mut writable);
        let (written, code) = match outcome {
            Ok(written) => (written, VIRTIO_BLK_S_OK),
            Err(Failure::Io) => (0, VIRTIO_BLK_S_IOERR),
            Err(Failure::Unsupported) => (0, VIRTIO_BLK_S_UNSUPP),
        };
        status.copy_from(&[code as u8]);
        // The number of bytes written from the start without a gap (§2.7.8.2); a chain has less than 2^32 bytes.
        Ok((written + u64::from(written == length)) as u32)
    }
}

fn total(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

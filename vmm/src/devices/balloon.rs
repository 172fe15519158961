//! The balloon device (virtio 1.3 §5.5), for the only feature of it that guests need: they report pages that they have
//! freed (§5.5.6.7), and the host takes those back.
//!
//! The balloon is never inflated, because the memory device sets the guest's size. When the guest uses a reported page again,
//! the page may hold zeros, or bytes of the kernel's file if that is mapped there: a guest that needs the content does not
//! report the page.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::DescriptorChain;
use vm_memory::{Address, GuestAddress, GuestMemory, GuestMemoryMmap};

use crate::{
    memory::PAGE_SIZE,
    seccomp::Thread,
    virtio::worker::{ChainDevice, Failure, Handler, WorkerDevice},
};

/// VIRTIO_BALLOON_F_PAGE_REPORTING.
const REPORTING: u64 = 1 << 5;

/// The queue of reports.
const REPORTS: usize = 2;

/// A balloon device.
pub type Balloon = WorkerDevice<Reporting>;

/// The parts that only the balloon has. Its configuration space is all zero: the balloon is to be empty, and is empty.
#[derive(Debug, Default)]
pub struct Reporting {
    reports: Reports,
}

/// How many reports have come.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<AtomicU64>);

impl Reports {
    /// As of now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Balloon {
    /// A balloon device that counts its reports.
    pub fn counting(reports: Reports) -> Self {
        Self::over(Reporting { reports })
    }
}

impl ChainDevice for Reporting {
    const NAME: &'static str = "balloon";
    const DEVICE_TYPE: u32 = 5;
    /// The queues to inflate, to deflate and to report: queues whose features are not offered have no number.
    const QUEUE_SIZES: &'static [u16] = &[16, 16, 64];
    const FILTER: Thread = Thread::Devices;

    fn features(&self) -> u64 {
        REPORTING | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn handler(&self) -> impl Handler {
        Host { reports: self.reports.clone() }
    }
}

/// Takes reported pages back.
#[derive(Default)]
pub(crate) struct Host {
    reports: Reports,
}

impl Handler for Host {
    fn handle(
        &mut self,
        queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, Failure> {
        // If a driver inflates the balloon without being asked, it keeps its pages.
        if queue == REPORTS {
            self.reports.0.fetch_add(1, Ordering::Relaxed);
            // The buffers are the pages. The device may write to them, but leaves them unchanged.
            for buffer in chain {
                take(memory, buffer.addr(), buffer.len().into())?;
            }
        }
        Ok(0)
    }
}

/// Gives the whole pages of a range of RAM back to the host.
fn take(memory: &GuestMemoryMmap, start: GuestAddress, length: u64) -> Result<(), Failure> {
    let outside = Failure::Malformed("a page outside of guest memory");
    let (Some(end), Some(start)) =
        (start.checked_add(length), start.raw_value().checked_next_multiple_of(PAGE_SIZE))
    else {
        return Err(outside);
    };
    let end = end.raw_value() / PAGE_SIZE * PAGE_SIZE;
    let Some(size) = end.checked_sub(start).filter(|size| *size > 0) else { return Ok(()) };
    let slice = memory.get_slice(GuestAddress(start), size as usize).map_err(|_| outside)?;
    // SAFETY: the range is the guest's own memory, which holds no references.
    let taken =
        unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), size as usize, libc::MADV_DONTNEED) };
    if taken == 0 {
        Ok(())
    } else {
        Err(Failure::Host { what: "madvise", source: io::Error::last_os_error() })
    }
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod tests;

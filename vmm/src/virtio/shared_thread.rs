//! A thread that works for the queues of one device, or of several that seldom have something to do.
//!
//! It runs while one of them is active. Each thread costs a start its seccomp filter, which the host's kernel checks and translates:
//! some 350,000 instructions.

use std::{
    fmt::{self, Debug, Display},
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::seccomp;

/// Stack of the thread, in bytes.
const STACK: usize = 64 << 10;

/// What epoll says for the event that ends the thread.
const STOP: u64 = u64::MAX;

/// Bits of a queue's index in what epoll says for its event; the device's place is above.
const QUEUE_BITS: u32 = 16;

/// The queues of one active device.
pub trait Job: Send {
    /// Signalled when the driver notifies the queue of the same index.
    fn events(&self) -> &[EventFd];

    /// Called when the event of this index is signalled.
    fn notified(&mut self, index: usize);

    /// Called when the thread cannot go on.
    fn fail(&mut self, cause: &dyn Display);

    /// The queues, in their final state.
    fn into_queues(self: Box<Self>) -> Vec<Queue>;
}

/// The place of a device among those of a thread.
#[derive(Debug)]
pub struct Place(usize);

/// A thread for the devices that are given it. Copies are of the same thread.
#[derive(Clone, Debug)]
pub struct SharedThread {
    name: &'static str,
    filter: seccomp::Thread,
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Debug)]
struct Running {
    epoll: Arc<Epoll>,
    jobs: Arc<Mutex<Jobs>>,
    stop: EventFd,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Jobs {
    all: Vec<Option<Box<dyn Job>>>,
    /// Why the thread has ended by itself.
    failure: Option<String>,
}

impl Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl SharedThread {
    /// A thread of this name and with this seccomp filter, which does not run yet.
    pub fn new(name: &'static str, filter: seccomp::Thread) -> Self {
        Self { name, filter, running: Arc::default() }
    }

    /// Works for these queues, too.
    ///
    /// # Errors
    /// The host has no descriptors or threads left, or the thread could not be restricted.
    pub fn add(&self, job: Box<dyn Job>) -> io::Result<Place> {
        let mut running = lock(&self.running);
        let running = match &mut *running {
            Some(running) => running,
            none => none.insert(Running::start(self.name, self.filter)?),
        };
        running.add(job)
    }

    /// Works no longer for this device, after the chain at hand; returns its queues. Without any device the thread ends.
    pub fn remove(&self, place: Place) -> Option<Vec<Queue>> {
        let mut slot = lock(&self.running);
        let running = slot.as_ref()?;
        let (queues, is_last) = running.remove(&place);
        if is_last && let Some(running) = slot.take() {
            running.end();
        }
        queues
    }
}

impl Running {
    fn start(name: &'static str, filter: seccomp::Thread) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(borrow(&stop), EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let jobs = Arc::<Mutex<Jobs>>::default();
        let (its_epoll, its_jobs) = (Arc::clone(&epoll), Arc::clone(&jobs));
        let run = move || {
            let Err(failure) = seccomp::restrict(filter)
                .map_err(|error| error.to_string())
                .and_then(|()| work(&its_epoll, &its_jobs))
            else {
                return;
            };
            let mut jobs = lock(&its_jobs);
            jobs.all.iter_mut().flatten().for_each(|job| job.fail(&failure));
            jobs.failure = Some(failure);
        };
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run)?;
        Ok(Self { epoll, jobs, stop, thread })
    }

    fn add(&self, job: Box<dyn Job>) -> io::Result<Place> {
        let mut jobs = lock(&self.jobs);
        if let Some(failure) = &jobs.failure {
            return Err(io::Error::other(failure.clone()));
        }
        let free = jobs.all.iter().position(Option::is_none);
        let place = free.unwrap_or(jobs.all.len());
        for (event, index) in job.events().iter().zip(0..) {
            let token = (place as u64) << QUEUE_BITS | index;
            if let Err(errno) = self.epoll.add(borrow(event), EpollEvent::new(EpollFlags::EPOLLIN, token)) {
                self.forget(job.as_ref());
                return Err(errno.into());
            }
        }
        match free {
            Some(place) => jobs.all[place] = Some(job),
            None => jobs.all.push(Some(job)),
        }
        Ok(Place(place))
    }

    /// The queues of the device at this place, and whether it was the last one.
    fn remove(&self, place: &Place) -> (Option<Vec<Queue>>, bool) {
        let mut jobs = lock(&self.jobs);
        let job = jobs.all.get_mut(place.0).and_then(Option::take);
        let queues = job.map(|job| {
            self.forget(job.as_ref());
            job.into_queues()
        });
        (queues, jobs.all.iter().all(Option::is_none))
    }

    /// The transport has copies of the events, so that closing them does not end their watch.
    fn forget(&self, job: &dyn Job) {
        for event in job.events() {
            // What is not watched need not be forgotten.
            let _ = self.epoll.delete(borrow(event));
        }
    }

    fn end(self) {
        // The counter is written once.
        let _ = self.stop.write(1);
        // A thread that has panicked has ended the process.
        let _ = self.thread.join();
    }
}

/// Works until stopped.
fn work(epoll: &Epoll, jobs: &Mutex<Jobs>) -> Result<(), String> {
    let mut events = [EpollEvent::empty(); 4];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(format!("epoll: {errno}")),
        };
        for token in events[..ready].iter().map(EpollEvent::data) {
            if token == STOP {
                return Ok(());
            }
            // x86_64: u64 fits usize.
            let (place, index) = ((token >> QUEUE_BITS) as usize, (token & ((1 << QUEUE_BITS) - 1)) as usize);
            // A device that was removed meanwhile is not there, and one that has taken its place has nothing to do.
            if let Some(Some(job)) = lock(jobs).all.get_mut(place) {
                job.notified(index);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the event is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
#[path = "shared_thread_test.rs"]
mod tests;

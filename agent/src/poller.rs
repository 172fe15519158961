//! epoll with targets instead of numbers.
//!
//! Everything but the listener is edge-triggered: two descriptors joined by a pump are ready for one another
//! at different times, and level-triggered epoll would report the ready one over and over while the other
//! blocks. Therefore the code that handles an event must go on until it would block.

use std::{collections::BTreeMap, os::fd::AsFd};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::error::{Context, Result};

/// The name of one registration, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(u64);

/// The registrations, each with its target.
pub struct Poller<T> {
    epoll: Epoll,
    targets: BTreeMap<Token, T>,
    next: u64,
}

impl<T: Clone> Poller<T> {
    /// A poller without registrations.
    pub fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .or_internal(|| "create an epoll instance".to_owned())?;
        Ok(Self { epoll, targets: BTreeMap::new(), next: 0 })
    }

    /// Reports `target` whenever `fd` becomes readable or writable, has an EPOLLPRI event or hangs up.
    pub fn add(&mut self, fd: impl AsFd, target: impl FnOnce(Token) -> T) -> Result<Token> {
        let every =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDHUP;
        self.register(fd, every | EpollFlags::EPOLLET, target)
    }

    /// Reports `target` as long as `fd` is readable.
    pub fn add_listener(&mut self, fd: impl AsFd, target: T) -> Result<Token> {
        self.register(fd, EpollFlags::EPOLLIN, |_| target)
    }

    fn register(
        &mut self,
        fd: impl AsFd,
        events: EpollFlags,
        target: impl FnOnce(Token) -> T,
    ) -> Result<Token> {
        let token = Token(self.next);
        self.epoll
            .add(fd, EpollEvent::new(events, token.0))
            .or_internal(|| "watch a descriptor".to_owned())?;
        self.next += 1;
        self.targets.insert(token, target(token));
        Ok(token)
    }

    /// Forgets a registration. All copies of its descriptor must be closed before or soon after: a forgotten
    /// registration is ignored, but still wakes the loop.
    pub fn forget(&mut self, token: Token) {
        self.targets.remove(&token);
    }

    /// Removes a descriptor that stays open from the set.
    pub fn remove(&mut self, fd: impl AsFd, token: Token) {
        // The descriptor is in the set: add() has put it there, and only this removes it.
        let _ = self.epoll.delete(fd);
        self.forget(token);
    }

    /// The targets with events; waits for one unless `poll`.
    pub fn wait(&mut self, poll: bool) -> Result<Vec<T>> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = if poll { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other.or_internal(|| "wait for events".to_owned())?,
        };
        let tokens = events[..count].iter().map(|event| Token(event.data()));
        Ok(tokens.filter_map(|token| self.targets.get(&token).cloned()).collect())
    }
}

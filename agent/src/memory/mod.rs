//! The guest boots with little memory and gets the rest while it runs. Values that its kernel derived from the memory
//! at boot are adapted to the present memory: by the kernel's own formulas ([`values`]), combined with what the node
//! has set.
//!
//! The kernel reports memory that comes and goes, block by block; a block that grows is noticed with the host's next
//! request.

mod tmpfs;
mod values;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
        },
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use crate::{
    boot,
    error::{Context, Result},
    init::proc_files,
};

pub use tmpfs::Tmpfs;
pub use values::Memory;
use values::{CONNTRACK, VALUES, Value};

/// How long memory must be unchanged before values follow it: many blocks come at once.
const SETTLES_AFTER: Duration = Duration::from_millis(50);

/// The multicast group of the kernel's own events.
const KERNEL_EVENTS: u32 = 1;

/// The text after the verb in events of memory blocks.
const BLOCK: &str = "@/devices/system/memory/memory";

/// The values that follow the memory, and the timer for that.
#[derive(Debug)]
pub struct Follower {
    events: OwnedFd,
    settled: TimerFd,
    /// The memory that they follow from now; `None` outside of a guest, where nothing is changed.
    memory: Option<Memory>,
    /// The values that the node has set.
    node: BTreeMap<&'static str, String>,
    /// The values that were written to the kernel.
    written: BTreeMap<&'static str, String>,
    tracks_connections: bool,
}

impl Follower {
    /// Receives events about memory from now on. Only PID 1 changes values: tests have no kernel of their own.
    pub fn new() -> Result<Self> {
        let step = || "listen to the kernel's events".to_owned();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let events = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol).or_internal(step)?;
        bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS)).or_internal(step)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let settled =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).or_internal(|| "make a timer".to_owned())?;
        let is_guest = nix::unistd::getpid().as_raw() == 1;
        Ok(Self {
            events,
            settled,
            memory: is_guest.then_some(Memory { pages: 0 }),
            node: BTreeMap::new(),
            written: BTreeMap::new(),
            tracks_connections: false,
        })
    }

    /// The socket that becomes readable when the kernel has events.
    pub fn events(&self) -> &OwnedFd {
        &self.events
    }

    /// The timer that becomes readable when it is time to adapt the values.
    pub fn settled(&self) -> &TimerFd {
        &self.settled
    }

    /// Reads the kernel's events.
    pub fn hear(&self) {
        let mut buffer = [0; 2048];
        let mut changes = false;
        loop {
            match recv(self.events.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    changes |=
                        std::str::from_utf8(&buffer[..length]).is_ok_and(|event| event.contains(BLOCK));
                }
                // Some events were lost.
                Err(Errno::ENOBUFS) => changes = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if changes {
            // This cannot fail for this time.
            let at = Expiration::OneShot(TimeSpec::from_duration(SETTLES_AFTER));
            let _ = self.settled.set(at, TimerSetTimeFlags::empty());
        }
    }

    /// Takes over the node's setting, if it is one of these values.
    pub fn take_from_node(&mut self, name: &str, value: &str) -> bool {
        let known = VALUES.iter().find(|known| known.name == name);
        if let Some(known) = known {
            self.node.insert(known.name, value.to_owned());
            self.memory = self.memory.map(|_| Memory { pages: 0 });
        }
        known.is_some()
    }

    /// Makes the table of tracked connections follow the memory, too, from now on.
    pub fn track_connections(&mut self) {
        if !self.tracks_connections {
            self.tracks_connections = true;
            self.memory = self.memory.map(|_| Memory { pages: 0 });
        }
    }

    /// Adapts the values to the present memory; returns the memory if it has changed.
    ///
    /// A value that cannot be written is ignored: this kernel does not have it, or a workload has taken it
    /// over.
    pub fn follow(&mut self) -> Option<Memory> {
        let memory = Memory::now();
        if self.memory.is_none_or(|former| former == memory) {
            return None;
        }
        self.memory = Some(memory);
        if let Err(error) = follow_huge_pages(memory) {
            eprintln!("stockade-agent: huge pages do not follow the memory: {error}");
        }
        for value in &VALUES {
            self.write(value, memory);
        }
        if self.tracks_connections && self.written.get(CONNTRACK.name) != Some(&CONNTRACK.with(memory, None))
        {
            // Otherwise the whole guest would wait until the table's former memory is free.
            let expedite = |value| fs::write(format!("{}/kernel/rcu_expedited", boot::SYSFS), value);
            let expedited = expedite("1").is_ok();
            self.write(&CONNTRACK, memory);
            if expedited {
                let _ = expedite("0");
            }
        }
        Some(memory)
    }

    fn write(&mut self, value: &Value, memory: Memory) {
        let wanted = value.with(memory, self.node.get(value.name).map(String::as_str));
        // khugepaged changes this value, so it is written each time.
        let stays = self.written.get(value.name) == Some(&wanted) && value.name != "vm/min_free_kbytes";
        if !stays && proc_files::write(format!("sys/{}", value.name), &wanted).is_ok() {
            self.written.insert(value.name, wanted);
        }
    }
}

/// Adapts transparent huge pages, which the kernel turns off at a boot with less than 512 MiB, and FUSE's limits on
/// background requests.
fn follow_huge_pages(memory: Memory) -> io::Result<()> {
    boot::mount_sysfs().map_err(|error| io::Error::other(error.message))?;
    let mode = if memory.has_huge_pages() { "madvise" } else { "never" };
    let write = |file: &str, value: &str| match fs::write(format!("{}/{file}", boot::SYSFS), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    };
    write("kernel/mm/transparent_hugepage/enabled", mode)?;
    // 0 is as many as the kernel finds right now: fs/fuse/inode.c, sanitize_global_limit.
    write("module/fuse/parameters/max_user_bgreq", "0")?;
    write("module/fuse/parameters/max_user_congthresh", "0")
}

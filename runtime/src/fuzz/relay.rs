//! A relay whose agent, and whose VMM's last packet, come from a fuzz target.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use stockade_sys::fd_passing;

use super::peer;
use crate::relay::notify::{self, Notifier};
use crate::relay::serve::{Ends, Relay};
use crate::sys::descriptors;

/// What the agent tells of the process and what the process writes, and the VMM's last packet.
pub fn run(input: &[u8]) {
    let (last_packet, rest) = peer::halves(input);
    let (events, output) = peer::halves(rest);
    let (process, _agent) = peer::saying(events);
    let (stdin, _stdin) = peer::saying(&[]);
    let (stdout, _stdout) = peer::saying(output);
    let (stderr, _stderr) = peer::saying(&[]);

    let (_creator, creator) = descriptors::packet_pair().unwrap();
    let lease = (!last_packet.is_empty()).then(|| {
        let (vmm, lease) = descriptors::packet_pair().unwrap();
        // It ends with these words; those that no packet holds are not said.
        let _ = fd_passing::send(&vmm, last_packet, &[]);
        lease
    });
    let (manager, notified) = UnixDatagram::pair().unwrap();
    notified.set_nonblocking(true).unwrap();
    manager.set_nonblocking(true).unwrap();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let ends = Ends {
        signals: SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_NONBLOCK).unwrap(),
        creator,
        lease,
        console_log: Some(null().into()),
        window: None,
        hangs_up: false,
        streams: Vec::new(),
        notifier: Some(Notifier::new(notified.into()).unwrap()),
        services: Vec::new(),
        watches: Vec::new(),
        adopted: None,
        heir: None,
    };
    let connections = [process, stdin, stdout, stderr].map(OwnedFd::from);
    let mut relay = Relay::new(ends, connections.into(), [null(), null(), null()]).unwrap();
    let _ = relay.run().unwrap();
    drop(relay);

    let mut datagram = [0; 0x1_0000];
    while let Ok(length @ 1..) = manager.recv(&mut datagram) {
        let text = str::from_utf8(&datagram[..length]).unwrap();
        let is_known = |line: &str| line.starts_with("MAINPID=") || notify::is_passed(line);
        assert!(text.lines().all(is_known), "{text:?} reaches the service manager");
    }
}

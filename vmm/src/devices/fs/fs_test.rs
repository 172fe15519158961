use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use proptest::prelude::*;

use super::{
    FORGET_QUEUE, Fs, QUEUE_SIZES, SHARE_TAG, channel,
    forward::{self, Forwarder},
    turns::IN_FLIGHT,
};
use crate::{
    file_server::Workers,
    files::{FileServer, Limits},
    seccomp,
    virtio::{
        device::VirtioDevice,
        device_fixture::{BUFFERS, DeviceFixture, MEMORY},
        failures::Failures,
        interrupt::{Interrupt, Line},
        queue_fixture::{Buffer, QueueFixture},
    },
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const REQUESTS: usize = 1;
const FUSE_LOOKUP: u32 = 1;
const FUSE_FORGET: u32 = 2;
const FUSE_OPEN: u32 = 14;
const FUSE_READ: u32 = 15;
const FUSE_INIT: u32 = 26;
const ROOT: u64 = 1;

/// A device before a file server on threads of this process.
struct Served {
    fs: Fs,
    server: Arc<FileServer>,
}

fn served() -> Served {
    let (device, server_end) = channel::new().unwrap();
    let proc_fds = path("/proc/self/fd");
    let server = Arc::new(FileServer::new(proc_fds.into(), Limits::default()));
    Workers::start(Arc::clone(&server), server_end, confine, |_| ()).unwrap();
    Served { fs: Fs::new(device), server }
}

/// As the file server's process does: a call that is missing in the list ends the test.
fn confine() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    seccomp::restrict(seccomp::Thread::FileWorker).map_err(io::Error::other)
}

fn path(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap()
}

/// A FUSE request: its header (40 bytes) and what follows.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend((40 + body.len() as u32).to_le_bytes());
    request.extend(opcode.to_le_bytes());
    request.extend(7u64.to_le_bytes()); // unique
    request.extend(node.to_le_bytes());
    request.extend([0; 16]); // uid, gid, pid, padding
    request.extend(body);
    request
}

fn init() -> Vec<u8> {
    let mut body: Vec<u8> = [7u32, 38, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    body.resize(64, 0);
    request(FUSE_INIT, 0, &body)
}

/// The error of a reply (its second word), which repeats the request's unique number.
fn error(reply: &[u8]) -> i32 {
    assert_eq!(reply[8..16], 7u64.to_le_bytes());
    i32::from_le_bytes(reply[4..8].try_into().unwrap())
}

fn word(reply: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(reply[offset..offset + 8].try_into().unwrap())
}

/// Looks a name up; the node's number begins the reply's body.
fn lookup(driver: &mut DeviceFixture, parent: u64, name: &str) -> u64 {
    let reply =
        driver.ask(REQUESTS, &request(FUSE_LOOKUP, parent, format!("{name}\0").as_bytes()), 256).unwrap();
    assert_eq!(error(&reply), 0, "{name}");
    word(&reply, 16)
}

#[test]
fn configuration_has_the_tag_and_one_request_queue() {
    let fs = served().fs;
    let mut config = [0xff; 44];
    fs.read_config(0, &mut config[..40]);
    assert_eq!(config[..SHARE_TAG.len()], *SHARE_TAG.as_bytes());
    assert_eq!(config[SHARE_TAG.len()..36], vec![0; 36 - SHARE_TAG.len()]);
    assert_eq!(config[36..40], 1u32.to_le_bytes());
    fs.read_config(u64::MAX, &mut config[40..]);
    assert_eq!(config[40..], [0xff; 4]);
}

#[test]
fn the_guest_finds_what_it_is_given() {
    let Served { mut fs, server } = served();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    server.add_share("c").unwrap();
    server.add_trees("c", vec![("rootfs".into(), path(directory.path()).into())]).unwrap();
    let mut driver = DeviceFixture::activate(&mut fs);
    assert_eq!(error(&driver.ask(REQUESTS, &init(), 256).unwrap()), 0);
    let missing = request(FUSE_LOOKUP, ROOT, b"nothing\0");
    assert_eq!(error(&driver.ask(REQUESTS, &missing, 256).unwrap()), -libc::ENOENT);
    let share = lookup(&mut driver, ROOT, "c");
    let tree = lookup(&mut driver, share, "rootfs");
    let file = lookup(&mut driver, tree, "file");
    let opened = driver.ask(REQUESTS, &request(FUSE_OPEN, file, &[0; 8]), 256).unwrap();
    assert_eq!(error(&opened), 0);
    let mut read = Vec::new();
    read.extend(word(&opened, 16).to_le_bytes());
    read.extend([0; 8]); // offset
    read.extend(4096u32.to_le_bytes());
    read.extend([0; 20]);
    let reply = driver.ask(REQUESTS, &request(FUSE_READ, file, &read), 16 + 4096).unwrap();
    assert_eq!(&reply[16..], b"content");
    fs.reset();
}

#[test]
fn a_guest_can_begin_anew_after_a_reset() {
    let mut fs = served().fs;
    for _ in 0..3 {
        let mut driver = DeviceFixture::activate(&mut fs);
        assert_eq!(error(&driver.ask(REQUESTS, &init(), 256).unwrap()), 0);
        fs.reset();
    }
}

/// The device of a file server that never answers, and the number of requests that it has.
struct Mute {
    fs: Fs,
    server: channel::ServerEnd,
}

fn mute() -> Mute {
    let (device, server) = channel::new().unwrap();
    Mute { fs: Fs::new(device), server }
}

fn offer(driver: &mut DeviceFixture, node: u64, place: u64) {
    let request = request(FUSE_LOOKUP, node, b"x\0");
    let at = BUFFERS + place * 512;
    driver.memory.write_slice(&request, GuestAddress(at)).unwrap();
    driver.queues[REQUESTS]
        .offer(&[
            Buffer { address: at, length: request.len() as u32, writable: false },
            Buffer { address: at + 256, length: 256, writable: true },
        ])
        .unwrap();
}

/// The slots and nodes of the next requests that the server gets.
fn take(server: &channel::ServerEnd, count: usize) -> Vec<(usize, u64)> {
    (0..count)
        .map(|_| match server.next().unwrap() {
            channel::Wanted::Request { slot, .. } => (slot, server.slot(slot).read_obj::<u64>(16).unwrap()),
            channel::Wanted::Reset => panic!("a reset"),
        })
        .collect()
}

#[test]
fn a_share_that_hangs_holds_up_no_other() {
    let Mute { mut fs, server } = mute();
    let mut driver = DeviceFixture::activate(&mut fs);
    let (hanging, other) = (5u64 << 40 | 9, 6u64 << 40 | 9);
    for place in 0..20 {
        offer(&mut driver, hanging, place);
    }
    driver.kick(REQUESTS);
    let hung = take(&server, IN_FLIGHT);
    assert!(hung.iter().all(|(_, node)| *node == hanging));
    for place in 20..30 {
        offer(&mut driver, other, place);
        driver.kick(REQUESTS);
        let [(slot, node)] = take(&server, 1)[..] else { panic!() };
        assert_eq!(node, other);
        server.reply(slot, 16).unwrap();
        driver.wait();
        assert_eq!(driver.queues[REQUESTS].used().unwrap().1, 16);
    }
    // One that comes back makes room for one that waits.
    server.reply(hung[2].0, 16).unwrap();
    assert_eq!(take(&server, 1)[0].1, hanging);
    fs.reset();
}

#[test]
fn no_more_requests_wait_than_a_ring_holds() {
    let (mut device, _server) = channel::new().unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let forgets = QueueFixture::new(&memory, 0x1_0000, QUEUE_SIZES[0]);
    let mut requests = QueueFixture::new(&memory, 0x1_0000 + QueueFixture::FOOTPRINT, QUEUE_SIZES[1]);
    let bytes = request(FUSE_LOOKUP, 5 << 40 | 9, b"x\0");
    memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
    let buffer = Buffer { address: BUFFERS, length: bytes.len() as u32, writable: false };
    requests.write_descriptor(0, buffer, 0, 0);

    let events = [0, 1].map(|_| EventFd::new(EFD_NONBLOCK).unwrap());
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    let epoll = forward::watch(&events, &device, &stop).unwrap();
    let interrupt = Interrupt::new(Line::Event(EventFd::new(EFD_NONBLOCK).unwrap()));
    let kick = events[REQUESTS].try_clone().unwrap();
    let queues = vec![forgets.queue(), requests.queue()];
    let mut forwarder = Forwarder::new(&memory, queues, events.into(), &interrupt, &mut device);
    // The driver has one request, which it makes available again before it is answered.
    (0..QUEUE_SIZES[1]).for_each(|_| requests.publish(0));
    kick.write(1).unwrap();
    assert!(forwarder.round(&epoll).unwrap());
    requests.publish(0);
    kick.write(1).unwrap();
    let error = forwarder.round(&epoll).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest's driver made more requests available than its ring of 1024 holds"
    );
}

#[test]
fn a_reset_does_not_wait_for_a_request_that_hangs() {
    let Mute { mut fs, server } = mute();
    let mut driver = DeviceFixture::activate(&mut fs);
    offer(&mut driver, ROOT, 0);
    driver.kick(REQUESTS);
    let [(old, _)] = take(&server, 1)[..] else { panic!() };
    fs.reset();
    let mut driver = DeviceFixture::activate(&mut fs);
    offer(&mut driver, ROOT, 1);
    driver.kick(REQUESTS);
    // The new kernel waits until the server has forgotten the old one.
    assert_eq!(server.next().unwrap(), channel::Wanted::Reset);
    server.has_reset().unwrap();
    let [(new, _)] = take(&server, 1)[..] else { panic!() };
    assert_ne!(old, new);
    server.slot(old).write_slice(&[0xee; 16], 0).unwrap();
    server.reply(old, 16).unwrap();
    server.reply(new, 16).unwrap();
    driver.wait();
    assert_eq!(driver.queues[REQUESTS].used().unwrap().1, 16);
    assert_eq!(driver.queues[REQUESTS].used(), None, "the old request is nobody's");
    fs.reset();
}

#[test]
fn forgetting_does_not_wait_for_a_share() {
    let Mute { mut fs, server } = mute();
    let mut driver = DeviceFixture::activate(&mut fs);
    let hanging = 5u64 << 40 | 9;
    (0..10).for_each(|place| offer(&mut driver, hanging, place));
    driver.kick(REQUESTS);
    take(&server, IN_FLIGHT);
    let forget = request(FUSE_FORGET, hanging, &[1; 8]);
    driver.memory.write_slice(&forget, GuestAddress(BUFFERS + 0x8000)).unwrap();
    let buffer = Buffer { address: BUFFERS + 0x8000, length: forget.len() as u32, writable: false };
    driver.queues[FORGET_QUEUE].offer(&[buffer]).unwrap();
    driver.kick(FORGET_QUEUE);
    let [(slot, _)] = take(&server, 1)[..] else { panic!() };
    server.reply(slot, 0).unwrap();
    driver.wait();
    assert_eq!(driver.queues[FORGET_QUEUE].used().unwrap().1, 0);
    fs.reset();
}

/// The cause of the failure that `request` leads to.
fn cause(request: &[u8], room: u32) -> String {
    let mut fs = served().fs;
    let failures = Failures::new().unwrap();
    let mut driver = DeviceFixture::activate_reporting(&mut fs, &failures);
    assert_eq!(driver.ask(REQUESTS, request, room), None);
    fs.reset();
    failures.all()[0].cause.clone()
}

#[test]
fn a_request_that_makes_no_sense_fails_the_device_with_a_cause() {
    let short = cause(b"short", 256);
    assert!(short.contains("5 bytes"), "{short}");
    let large = cause(&init(), 2 << 20);
    assert!(large.contains("room for a reply of 2097152"), "{large}");
    let mut lying = init();
    lying[0] = 0xff;
    let lying = cause(&lying, 256);
    assert!(lying.contains("malformed request"), "{lying}");
}

#[test]
fn a_hostile_server_fails_the_device_and_no_more() {
    let Mute { mut fs, server } = mute();
    let failures = Failures::new().unwrap();
    let driver = DeviceFixture::activate_reporting(&mut fs, &failures);
    server.reply(3, 16).unwrap();
    driver.wait();
    assert!(driver.interrupt.has_failed());
    assert!(failures.all()[0].cause.contains("a slot that it does not have"), "{:?}", failures.all());
    fs.reset();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_ends_the_device_thread(
        opcode in 0u32..60,
        node in prop_oneof![Just(ROOT), any::<u64>()],
        body in prop::collection::vec(any::<u8>(), 0..200),
        room in 0u32..8192,
    ) {
        let mut fs = served().fs;
        let mut driver = DeviceFixture::activate(&mut fs);
        prop_assert_eq!(error(&driver.ask(REQUESTS, &init(), 256).unwrap()), 0);
        let _ = driver.ask(REQUESTS, &request(opcode, node, &body), room);
        // It answers or has failed; a panic would leave both undone.
        if !driver.interrupt.has_failed() {
            prop_assert!(driver.ask(REQUESTS, &request(FUSE_LOOKUP, ROOT, b"x\0"), 256).is_some());
        }
        fs.reset();
    }
}

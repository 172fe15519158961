use proptest::prelude::*;

use super::{Fs, SHARE_TAG, shares::Shares};
use crate::virtio::{device::VirtioDevice, device_fixture::DeviceFixture};

const REQUESTS: usize = 1;
const FUSE_LOOKUP: u32 = 1;
const FUSE_INIT: u32 = 26;
const ROOT: u64 = 1;

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
    let body: Vec<u8> = [7u32, 38, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    request(FUSE_INIT, 0, &body)
}

/// The error of a reply (its second word), which repeats the request's unique number.
fn error(reply: &[u8]) -> i32 {
    assert_eq!(reply[8..16], 7u64.to_le_bytes());
    i32::from_le_bytes(reply[4..8].try_into().unwrap())
}

#[test]
fn configuration_has_the_tag_and_one_request_queue() {
    let fs = Fs::new(Shares::new());
    let mut config = [0xff; 44];
    fs.read_config(0, &mut config[..40]);
    assert_eq!(config[..SHARE_TAG.len()], *SHARE_TAG.as_bytes());
    assert_eq!(config[SHARE_TAG.len()..36], vec![0; 36 - SHARE_TAG.len()]);
    assert_eq!(config[36..40], 1u32.to_le_bytes());
    fs.read_config(u64::MAX, &mut config[40..]);
    assert_eq!(config[40..], [0xff; 4]);
}

#[test]
fn the_guest_finds_an_empty_tree() {
    let mut fs = Fs::new(Shares::new());
    let mut driver = DeviceFixture::activate(&mut fs);
    assert_eq!(error(&driver.ask(REQUESTS, &init(), 256).unwrap()), 0);
    let lookup = request(FUSE_LOOKUP, ROOT, b"nothing\0");
    assert_eq!(error(&driver.ask(REQUESTS, &lookup, 256).unwrap()), -libc::ENOENT);
    fs.reset();
}

#[test]
fn a_guest_can_begin_anew_after_a_reset() {
    let mut fs = Fs::new(Shares::new());
    for _ in 0..2 {
        let mut driver = DeviceFixture::activate(&mut fs);
        assert_eq!(error(&driver.ask(REQUESTS, &init(), 256).unwrap()), 0);
        fs.reset();
    }
}

#[test]
fn a_request_without_a_whole_header_fails_the_device() {
    let mut fs = Fs::new(Shares::new());
    assert_eq!(DeviceFixture::activate(&mut fs).ask(REQUESTS, b"short", 256), None);
    fs.reset();
}

/// What an unprivileged process of a container could do: its OPEN or READ has a flag that the host refuses for this file.
#[test]
fn a_handle_keeps_its_descriptor_whatever_flags_a_guest_sends() {
    const FUSE_OPEN: u32 = 14;
    const FUSE_READ: u32 = 15;
    let name = format!("flags-{}", std::process::id());
    let root = std::path::Path::new(crate::isolation::SHARES).join(&name);
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("file"), b"hello").unwrap();
    let shares = Shares::new();
    shares.add(&name).unwrap();
    let mut fs = Fs::new(shares);
    let mut driver = DeviceFixture::activate(&mut fs);
    driver.ask(REQUESTS, &init(), 256).unwrap();
    let word = |reply: &[u8]| u64::from_le_bytes(reply[16..24].try_into().unwrap());
    let share = word(
        &driver.ask(REQUESTS, &request(FUSE_LOOKUP, ROOT, format!("{name}\0").as_bytes()), 256).unwrap(),
    );
    let file = word(&driver.ask(REQUESTS, &request(FUSE_LOOKUP, share, b"file\0"), 256).unwrap());
    let open: Vec<u8> = [libc::O_PATH as u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let handle = word(&driver.ask(REQUESTS, &request(FUSE_OPEN, file, &open), 256).unwrap());
    for flags in [0, libc::O_DIRECT, libc::O_PATH, -1] {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(0u64.to_le_bytes());
        body.extend([64u32, 0, 0, 0, flags as u32, 0].iter().flat_map(|word| word.to_le_bytes()));
        let reply = driver.ask(REQUESTS, &request(FUSE_READ, file, &body), 256).unwrap();
        assert_eq!((error(&reply), &reply[16..]), (0, &b"hello"[..]), "with flags {flags:#x}");
    }
    fs.reset();
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn room_for_a_reply_of_two_mebibytes_fails_the_device() {
    let mut fs = Fs::new(Shares::new());
    assert_eq!(DeviceFixture::activate(&mut fs).ask(REQUESTS, &init(), 2 << 20), None);
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
        let mut fs = Fs::new(Shares::new());
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

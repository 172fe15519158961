use std::os::fd::AsRawFd;

use nix::unistd::write;
use proptest::prelude::*;
use vm_memory::Bytes;

use super::{
    ChannelError, DeviceEnd, KEEPING, KEPT, MAX_MESSAGE, Notice, Notification, SLOT_SIZE, SLOTS, ServerEnd,
    Wanted, new,
};

/// What has come from the server.
fn receive(device: &mut DeviceEnd) -> Result<Vec<Notification>, ChannelError> {
    let mut all = Vec::new();
    device.receive(|_, notification| {
        all.push(notification);
        Ok::<_, ChannelError>(())
    })?;
    Ok(all)
}

/// Lets the device send `request` and the server answer it with `reply`.
fn exchange(device: &mut DeviceEnd, server: &ServerEnd, request: &[u8], reply: &[u8]) -> usize {
    let slot = device.free_slot().unwrap();
    device.slot(slot).write_slice(request, 0).unwrap();
    device.send(slot, request.len(), reply.len()).unwrap();
    let wanted = server.next().unwrap();
    assert_eq!(wanted, Wanted::Request { slot, request: request.len(), room: reply.len() });
    let mut read = vec![0; request.len()];
    server.slot(slot).read_slice(&mut read, 0).unwrap();
    assert_eq!(read, request);
    server.slot(slot).write_slice(reply, 0).unwrap();
    server.reply(slot, reply.len()).unwrap();
    assert_eq!(receive(device).unwrap(), [Notification::Replied { slot, length: reply.len() }]);
    slot
}

/// Bytes of the channel's memory that this process has.
fn resident(device: &DeviceEnd) -> usize {
    let mut pages = vec![0u8; SLOTS * SLOT_SIZE / 4096];
    let start = device.slot(0).ptr_guard_mut().as_ptr();
    // SAFETY: the range is the channel's, and there is a byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(start.cast(), SLOTS * SLOT_SIZE, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|page| **page & 1 != 0).count() * 4096
}

#[test]
fn requests_and_replies_share_a_slot_and_the_lowest_is_used_again() {
    let (mut device, server) = new().unwrap();
    for length in [1, 100, MAX_MESSAGE] {
        assert_eq!(exchange(&mut device, &server, &vec![1; length], &vec![2; MAX_MESSAGE - length]), 0);
    }
}

#[test]
fn what_large_messages_leave_is_given_back() {
    let (mut device, server) = new().unwrap();
    exchange(&mut device, &server, &[1; 100], &[2; 5000]);
    assert!(!device.is_dirty());
    for slot in 0..8 {
        device.slot(slot).write_slice(&vec![7; MAX_MESSAGE], 0).unwrap();
        device.send(slot, MAX_MESSAGE, 16).unwrap();
    }
    for slot in 0..8 {
        server.next().unwrap();
        server.reply(slot, 16).unwrap();
    }
    receive(&mut device).unwrap();
    assert!(device.is_dirty());
    assert!(resident(&device) > 8 << 20);
    device.clean();
    assert!(!device.is_dirty());
    assert_eq!(resident(&device), KEEPING * KEPT as usize);
}

#[test]
fn there_is_an_end_to_slots_and_each_comes_back() {
    let (mut device, server) = new().unwrap();
    for expected in 0..SLOTS {
        assert_eq!(device.free_slot(), Some(expected));
        device.send(expected, 40, 16).unwrap();
    }
    assert_eq!(device.free_slot(), None);
    for slot in (0..SLOTS).rev() {
        server.reply(slot, 16).unwrap();
    }
    assert_eq!(receive(&mut device).unwrap().len(), SLOTS);
    assert_eq!(device.free_slot(), Some(0));
}

#[test]
fn a_reset_is_told_once_and_what_was_asked_before_comes_back_all_the_same() {
    let (mut device, server) = new().unwrap();
    device.send(0, 40, 16).unwrap();
    device.reset().unwrap();
    device.reset().unwrap();
    assert!(device.is_resetting());
    assert!(matches!(server.next().unwrap(), Wanted::Request { .. }));
    assert_eq!(server.next().unwrap(), Wanted::Reset);
    server.has_reset().unwrap();
    server.reply(0, 16).unwrap();
    assert_eq!(
        receive(&mut device).unwrap(),
        [Notification::Reset, Notification::Replied { slot: 0, length: 16 }]
    );
    assert!(!device.is_resetting());
}

#[test]
fn a_reason_is_cut_where_it_is_too_long() {
    let (mut device, server) = new().unwrap();
    device.send(0, 40, 16).unwrap();
    server.malformed(0, &"x".repeat(1000)).unwrap();
    assert_eq!(
        receive(&mut device).unwrap(),
        [Notification::Malformed { slot: 0, length: super::REASON_LIMIT }]
    );
}

#[test]
fn a_server_that_is_gone_is_noticed() {
    let (mut device, server) = new().unwrap();
    drop(server);
    assert!(matches!(receive(&mut device), Err(ChannelError::Gone)));
    let (device, server) = new().unwrap();
    drop(device);
    assert!(matches!(server.next(), Err(ChannelError::Gone)));
}

#[test]
fn a_hostile_device_names_no_memory_outside_of_a_slot() {
    for words in [
        [SLOTS as u32, 40, 16],
        [u32::MAX - 1, 40, 16],
        [0, MAX_MESSAGE as u32 + 1, 16],
        [0, 40, MAX_MESSAGE as u32 + 1],
        [0, u32::MAX, u32::MAX],
    ] {
        let (device, server) = new().unwrap();
        write(&device.requests, &Notice(words).to_bytes()).unwrap();
        assert!(matches!(server.next(), Err(ChannelError::Rules(_))), "{words:?}");
    }
    let (device, server) = new().unwrap();
    write(&device.requests, b"part").unwrap();
    assert!(matches!(server.next(), Err(ChannelError::Rules(_))));
    assert!(server.descriptors().contains(&server.requests.as_raw_fd()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A reply is of a slot that the server has and no longer than it has room, or the channel is broken.
    #[test]
    fn a_hostile_server_gives_back_only_what_it_has(
        notices in prop::collection::vec(
            prop::array::uniform3(prop_oneof![0u32..8, Just(u32::MAX), Just(SLOTS as u32), any::<u32>()]), 1..20),
    ) {
        let (mut device, server) = new().unwrap();
        for slot in 0..4 {
            device.send(slot, 40, 4).unwrap();
        }
        for notice in &notices {
            write(&server.replies, &Notice(*notice).to_bytes()).unwrap();
        }
        let mut has = vec![0, 1, 2, 3];
        let _ = device.receive(|_, notification| {
            let (Notification::Replied { slot, length } | Notification::Malformed { slot, length }) = notification else {
                panic!("no reset was asked for");
            };
            assert!(length <= super::REASON_LIMIT);
            has.retain(|known| *known != slot);
            Ok::<_, ChannelError>(())
        });
        // One that broke the rules may have been taken back, but none is free that was not.
        prop_assert!(device.free_slot().is_none_or(|slot| !has.contains(&slot)));
    }
}

/// A guest may make its device fail as often as it likes: it has all slots again after each reset.
#[test]
fn no_slot_is_lost_with_a_request_that_makes_the_device_fail() {
    let (mut device, server) = new().unwrap();
    for _ in 0..2 * SLOTS {
        let slots: Vec<usize> = (0..3)
            .map(|_| {
                let slot = device.free_slot().unwrap();
                device.send(slot, 40, 40).unwrap();
                slot
            })
            .collect();
        device.reset().unwrap();
        server.malformed(slots[0], "no request").unwrap();
        server.malformed(slots[1], "no request").unwrap();
        server.reply(slots[2], 16).unwrap();
        server.has_reset().unwrap();
        let failed = device.receive(|_, notification| match notification {
            Notification::Malformed { .. } => Err(ChannelError::Rules("malformed")),
            _ => Ok(()),
        });
        assert!(matches!(failed, Err(ChannelError::Rules("malformed"))));
        assert!(!device.is_resetting(), "what came with it has been heard");
        (0..4).for_each(|_| _ = server.next().unwrap());
    }
    assert_eq!((device.free_slot(), receive(&mut device).unwrap()), (Some(0), vec![]));
}

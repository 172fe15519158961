use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use proptest::{collection::vec, prelude::*};
use stockade_protocol::vmm::Disk;
use virtio_bindings::virtio_blk::*;
use vm_memory::{Bytes, GuestAddress};

use super::{Blk, Error, MAX_SEGMENTS};
use crate::virtio::{
    device::VirtioDevice,
    device_fixture::{BUFFERS, DeviceFixture},
    queue_fixture::Buffer,
};

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IO_ERROR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPPORTED: u8 = VIRTIO_BLK_S_UNSUPP as u8;

/// Sectors of a test's disk.
const SECTORS: u64 = 64;

/// A file in which each sector's bytes are its number.
fn file() -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[sector as u8; 512]).unwrap();
    }
    file
}

fn disk(readonly: bool, serial: &str) -> Disk {
    Disk { readonly, serial: serial.into() }
}

fn blk(file: &File, readonly: bool) -> Blk {
    Blk::new(disk(readonly, "volume"), vec![file.try_clone().unwrap().into()]).unwrap()
}

fn request(kind: u32, sector: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// One range to discard or to zero.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// The status of a request without an answer but that.
fn status(driver: &mut DeviceFixture, kind: u32, sector: u64, data: &[u8]) -> u8 {
    let reply = driver.ask(0, &request(kind, sector, data), 1).unwrap();
    assert_eq!(reply.len(), 1);
    reply[0]
}

/// The status of reading `sectors`.
fn read_status(driver: &mut DeviceFixture, sector: u64, sectors: u32) -> u8 {
    let room = sectors * 512 + 1;
    let reply = driver.ask(0, &request(VIRTIO_BLK_T_IN, sector, &[]), room).unwrap();
    let status: u8 = driver.memory.read_obj(GuestAddress(BUFFERS + 0x10_0000 + u64::from(room) - 1)).unwrap();
    assert_eq!(reply.len(), if status == OK { room as usize } else { 0 });
    status
}

fn content(file: &File) -> Vec<u8> {
    let mut file = file.try_clone().unwrap();
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

#[test]
fn what_is_written_is_in_the_file_and_read_back() {
    let file = file();
    let mut blk = blk(&file, false);
    let mut driver = DeviceFixture::activate(&mut blk);
    let data: Vec<u8> = (0..1024).map(|index| (index % 251) as u8).collect();
    assert_eq!(status(&mut driver, VIRTIO_BLK_T_OUT, 3, &data), OK);
    assert_eq!(status(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]), OK);
    assert_eq!(content(&file)[3 * 512..5 * 512], data);
    let reply = driver.ask(0, &request(VIRTIO_BLK_T_IN, 2, &[]), 4 * 512 + 1).unwrap();
    assert_eq!(reply.len(), 4 * 512 + 1);
    assert_eq!(reply[..512], [2; 512]);
    assert_eq!(reply[512..1536], data);
    assert_eq!(reply[1536..2048], [5; 512]);
    assert_eq!(reply[2048], OK);
}

#[test]
fn configuration_space_has_size_and_limits() {
    let file = file();
    file.set_len(SECTORS * 512 + 511).unwrap();
    let blk = blk(&file, false);
    let mut space = [0; 64];
    blk.read_config(0, &mut space);
    assert_eq!(space[..8], SECTORS.to_le_bytes());
    assert_eq!(space[12..16], MAX_SEGMENTS.to_le_bytes());
    assert_eq!(space[20..24], 512u32.to_le_bytes());
    assert_eq!(space[60..], [0; 4]);
    assert_eq!(blk.device().geometry.sectors, SECTORS);
}

#[test]
fn a_serial_number_ends_with_its_buffer_or_a_zero() {
    let mut blk = blk(&file(), true);
    let mut driver = DeviceFixture::activate(&mut blk);
    let reply = driver.ask(0, &request(VIRTIO_BLK_T_GET_ID, 0, &[]), 21).unwrap();
    assert_eq!(&reply[..], b"volume\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let file = file();
    let before = content(&file);
    let mut blk = blk(&file, true);
    assert_ne!(blk.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(blk.features() & (1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES), 0);
    let mut driver = DeviceFixture::activate(&mut blk);
    assert_eq!(status(&mut driver, VIRTIO_BLK_T_OUT, 0, &[1; 512]), IO_ERROR);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(status(&mut driver, kind, 0, &range(0, 1, 0)), IO_ERROR);
    }
    assert_eq!(content(&file), before);
}

#[test]
fn the_end_of_the_disk_is_the_end() {
    let file = file();
    let mut blk = blk(&file, false);
    // A file that others make longer does not make the disk longer.
    file.set_len(2 * SECTORS * 512).unwrap();
    let before = content(&file);
    let mut driver = DeviceFixture::activate(&mut blk);
    for sector in [SECTORS, SECTORS - 1, u64::MAX, u64::MAX / 512] {
        assert_eq!(status(&mut driver, VIRTIO_BLK_T_OUT, sector, &[9; 1024]), IO_ERROR, "{sector}");
        assert_eq!(read_status(&mut driver, sector, 2), IO_ERROR, "{sector}");
        for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            assert_eq!(status(&mut driver, kind, 0, &range(sector, 2, 0)), IO_ERROR, "{sector}");
        }
    }
    assert_eq!(content(&file), before);
}

#[test]
fn a_file_that_has_become_shorter_gives_errors() {
    let file = file();
    let mut blk = blk(&file, false);
    file.set_len(512).unwrap();
    let mut driver = DeviceFixture::activate(&mut blk);
    assert_eq!(read_status(&mut driver, 0, 1), OK);
    assert_eq!(read_status(&mut driver, 1, 1), IO_ERROR);
}

#[test]
fn zeroing_and_discarding_leave_zeros() {
    let file = file();
    let mut blk = blk(&file, false);
    let mut driver = DeviceFixture::activate(&mut blk);
    let mut expected = content(&file);
    let two = [range(8, 8, 0), range(40, 1, 0)].concat();
    assert_eq!(status(&mut driver, VIRTIO_BLK_T_DISCARD, 0, &two), OK);
    expected[8 * 512..16 * 512].fill(0);
    expected[40 * 512..41 * 512].fill(0);
    let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    assert_eq!(status(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(20, 2, unmap)), OK);
    expected[20 * 512..22 * 512].fill(0);
    // tmpfs, for one, cannot zero without punching a hole.
    match status(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(30, 2, 0)) {
        OK => expected[30 * 512..32 * 512].fill(0),
        code => assert_eq!(code, UNSUPPORTED),
    }
    assert_eq!(content(&file), expected);
}

#[test]
fn requests_that_make_no_sense_are_refused_one_by_one() {
    let file = file();
    let before = content(&file);
    let mut blk = blk(&file, false);
    let mut driver = DeviceFixture::activate(&mut blk);
    let cases = [
        (VIRTIO_BLK_T_OUT, vec![1; 511], IO_ERROR),
        (VIRTIO_BLK_T_DISCARD, vec![0; 15], IO_ERROR),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, 0).repeat(17), IO_ERROR),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), UNSUPPORTED),
        (VIRTIO_BLK_T_WRITE_ZEROES, range(0, 1, 2), UNSUPPORTED),
        (VIRTIO_BLK_T_WRITE_ZEROES, range(0, u32::MAX, 0), IO_ERROR),
        (VIRTIO_BLK_T_SCSI_CMD, Vec::new(), UNSUPPORTED),
        (u32::MAX, vec![1; 512], UNSUPPORTED),
    ];
    for (kind, data, expected) in cases {
        assert_eq!(status(&mut driver, kind, 0, &data), expected, "{kind} {data:?}");
    }
    assert_eq!(content(&file), before);
}

#[test]
fn chains_that_are_no_requests_fail_the_device() {
    let readable = |length| Buffer { address: BUFFERS, length, writable: false };
    let writable = |length| Buffer { address: BUFFERS + 0x1000, length, writable: true };
    let chains: [&[Buffer]; 5] = [
        &[readable(15), writable(1)],
        &[readable(16)],
        &[writable(1)],
        &[readable(8), writable(1), readable(8)],
        &[readable(16), Buffer { address: u64::MAX - 4, length: 8, writable: true }],
    ];
    for chain in chains {
        let mut blk = blk(&file(), false);
        let mut driver = DeviceFixture::activate(&mut blk);
        driver.queues[0].offer(chain).unwrap();
        driver.notify(0);
        assert!(driver.interrupt.has_failed(), "{chain:?}");
    }
}

#[test]
fn backings_are_looked_at_before_they_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, [0; 512]).unwrap();
    let open = |options: &mut std::fs::OpenOptions| OwnedFd::from(options.open(&path).unwrap());
    let make = |readonly, fd| Blk::new(disk(readonly, ""), vec![fd]).map(drop);
    let options = std::fs::OpenOptions::new;
    assert!(make(true, open(options().read(true))).is_ok());
    assert!(matches!(make(false, open(options().read(true))), Err(Error::Mode("writing"))));
    assert!(matches!(make(true, open(options().write(true))), Err(Error::Mode("reading"))));
    assert!(matches!(make(false, open(options().read(true).append(true))), Err(Error::Mode(_))));
    assert!(matches!(make(true, File::open(directory.path()).unwrap().into()), Err(Error::Kind)));
    assert!(matches!(make(true, File::open("/dev/null").unwrap().into()), Err(Error::Kind)));
    std::fs::write(&path, [0; 511]).unwrap();
    assert!(matches!(make(true, open(options().read(true))), Err(Error::Empty)));
    assert!(matches!(Blk::new(disk(true, ""), Vec::new()), Err(Error::Descriptors(0))));
    let serial = "one more than twenty!";
    assert!(matches!(Blk::new(disk(true, serial), vec![open(options().read(true))]), Err(Error::Serial(_))));
}

proptest! {
    /// However a request is laid over descriptors, it reads or writes what it says, and nothing else of guest memory.
    #[test]
    fn layout_does_not_matter(
        write in any::<bool>(),
        sector in 0..SECTORS,
        count in 1..20u64,
        cuts in vec(1..700usize, 0..12),
    ) {
        let file = file();
        let mut blk = blk(&file, false);
        let mut driver = DeviceFixture::activate(&mut blk);
        let before = content(&file);
        let length = count as usize * 512;
        let data = vec![0xa5; length];
        let bytes = request(if write { VIRTIO_BLK_T_OUT } else { VIRTIO_BLK_T_IN }, sector, if write { &data } else { &[] });
        let room = if write { 1 } else { length + 1 };
        driver.memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
        let reply = BUFFERS + 0x10_0000;
        driver.memory.write_slice(&vec![0x5a; room + 1], GuestAddress(reply)).unwrap();
        let mut buffers = Vec::new();
        for (start, length, writable) in [(BUFFERS, bytes.len(), false), (reply, room, true)] {
            let (mut address, mut left) = (start, length);
            for cut in cuts.iter().copied().chain([usize::MAX]) {
                let length = cut.min(left);
                if length > 0 {
                    buffers.push(Buffer { address, length: length as u32, writable });
                    (address, left) = (address + length as u64, left - length);
                }
            }
        }
        driver.queues[0].offer(&buffers).unwrap();
        driver.notify(0);
        let (_, used) = driver.queues[0].used().unwrap();
        let mut answer = vec![0; room + 1];
        driver.memory.read_slice(&mut answer, GuestAddress(reply)).unwrap();
        prop_assert_eq!(answer[room], 0x5a);
        let fits = sector + count <= SECTORS;
        prop_assert_eq!(answer[room - 1], if fits { OK } else { IO_ERROR });
        let place = sector as usize * 512;
        let mut expected = before.clone();
        if write {
            prop_assert_eq!(used, 1);
            if fits {
                expected[place..place + length].copy_from_slice(&data);
            }
        } else if fits {
            prop_assert_eq!(used as usize, room);
            prop_assert_eq!(&answer[..length], &before[place..place + length]);
        }
        prop_assert_eq!(content(&file), expected);
    }

    #[test]
    fn no_descriptor_hurts(
        descriptors in vec((any::<u64>(), any::<u32>(), 0..8u16, 0..140u16), 1..40),
        heads in vec(0..140u16, 1..40),
        header in vec(any::<u8>(), 64),
        jump in any::<u16>(),
    ) {
        let file = file();
        let mut blk = blk(&file, false);
        let mut driver = DeviceFixture::activate(&mut blk);
        // Requests in many places.
        for place in 0..64 {
            driver.memory.write_slice(&header, GuestAddress(BUFFERS + place * 64)).unwrap();
        }
        let queue = &mut driver.queues[0];
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            // Mostly addresses in memory.
            let address = if length % 4 > 0 { BUFFERS + address % 0x1000 } else { address };
            let length = if flags % 4 > 0 { length % 0x1_0000 } else { length };
            queue.write_descriptor(index as u16, Buffer { address, length, writable: false }, flags, next);
        }
        for head in heads {
            queue.publish(head);
        }
        if jump % 4 == 0 {
            queue.set_avail_index(jump);
        }
        driver.notify(0);
        blk.reset();
        // The disk is as long as ever, and the next driver finds it well.
        prop_assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
        file.write_all_at(&[7; 512], 0).unwrap();
        let mut driver = DeviceFixture::activate(&mut blk);
        let reply = driver.ask(0, &request(VIRTIO_BLK_T_IN, 0, &[]), 513).unwrap();
        prop_assert_eq!(&reply[..512], &[7; 512]);
    }
}

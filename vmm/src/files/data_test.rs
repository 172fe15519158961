use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

use vm_memory::ByteValued;

use crate::files::{
    MAX_DATA,
    abi::{
        CopyFileRangeIn, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, LseekIn, LseekOut, WRITE_CACHE,
        WRITE_KILL_SUIDGID, WriteIn, WriteOut, opcode,
    },
    fixture::{Guest, Reply, parse},
};

/// A guest with a file `f` of these contents, its node and a handle.
fn with_file(contents: &[u8]) -> (Guest, u64, u64) {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), contents).unwrap();
    let node = guest.node("f");
    let fh = guest.open(node, libc::O_RDWR).unwrap().fh;
    (guest, node, fh)
}

fn seek(guest: &mut Guest, node: u64, fh: u64, offset: u64, whence: i32) -> Result<u64, i32> {
    let wanted = LseekIn { fh, offset, whence: whence as u32, padding: 0 };
    Ok(parse::<LseekOut>(&guest.ask(opcode::LSEEK, node, &[wanted.as_slice()])?).offset)
}

fn allocate(guest: &mut Guest, node: u64, fh: u64, mode: i32, range: (u64, u64)) -> Reply {
    let wanted = FallocateIn { fh, offset: range.0, length: range.1, mode: mode as u32, padding: 0 };
    guest.ask(opcode::FALLOCATE, node, &[wanted.as_slice()])
}

#[test]
fn a_megabyte_goes_both_ways() {
    let (mut guest, node, fh) = with_file(b"");
    let data: Vec<u8> = (0..MAX_DATA).map(|at| (at / 7) as u8).collect();
    assert_eq!(guest.write(node, WriteIn { fh, ..WriteIn::default() }, &data), Ok(MAX_DATA));
    assert_eq!(fs::read(guest.host("f")).unwrap(), data);
    assert_eq!(guest.read(node, fh, 0, MAX_DATA as u32).unwrap(), data);
    // More is not read, and neither is what has no room.
    assert_eq!(guest.read(node, fh, 0, u32::MAX).unwrap().len(), MAX_DATA);
    guest.room = 16 + 10;
    assert_eq!(guest.read(node, fh, 0, 4096).unwrap(), data[..10]);
    assert_eq!(guest.read(node, fh, MAX_DATA as u64 - 3, 4096).unwrap().len(), 3);
    assert_eq!(guest.read(node, fh, MAX_DATA as u64, 4096).unwrap().len(), 0);
}

#[test]
fn places_that_no_file_has_are_refused() {
    let (mut guest, node, fh) = with_file(b"hello");
    for offset in [u64::MAX, 1 << 63, i64::MAX as u64] {
        assert_eq!(guest.read(node, fh, offset, 10), Err(libc::EINVAL));
        let errno = guest.write(node, WriteIn { fh, offset, ..WriteIn::default() }, b"x").unwrap_err();
        assert!([libc::EINVAL, libc::EFBIG].contains(&errno));
    }
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"hello");
}

#[test]
fn a_write_has_the_data_that_it_says() {
    let (mut guest, node, fh) = with_file(b"hello");
    for size in [0, 1, 3, u32::MAX] {
        let wanted = WriteIn { fh, size, ..WriteIn::default() };
        assert!(guest.send(opcode::WRITE, node, &[wanted.as_slice(), b"xx"]).is_err());
    }
    assert!(guest.send(opcode::WRITE, node, &[&[0; 39]]).is_err());
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"hello");
}

#[test]
fn appending_is_where_the_host_says_the_end_is() {
    let (mut guest, node, fh) = with_file(b"hello");
    let wanted = WriteIn { fh, offset: 2, flags: libc::O_APPEND as u32, ..WriteIn::default() };
    guest.write(node, wanted, b"!").unwrap();
    // A page of a mapping has its place.
    guest.write(node, WriteIn { write_flags: WRITE_CACHE, ..wanted }, b"L").unwrap();
    assert_eq!(fs::read(guest.host("f")).unwrap(), b"heLlo!");
}

#[test]
fn writing_takes_setuid_away_where_the_guest_says_so() {
    let (mut guest, node, fh) = with_file(b"hello");
    for (write_flags, mode) in [(0, 0o6755), (WRITE_KILL_SUIDGID, 0o755), (0, 0o6755)] {
        fs::set_permissions(guest.host("f"), Permissions::from_mode(0o6755)).unwrap();
        guest.write(node, WriteIn { fh, write_flags, ..WriteIn::default() }, b"x").unwrap();
        assert_eq!(fs::metadata(guest.host("f")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn holes_are_found_made_and_kept() {
    let (mut guest, node, fh) = with_file(b"");
    let file = File::options().write(true).open(guest.host("f")).unwrap();
    const MIB: u64 = 1 << 20;
    file.write_at(&[1; 4096], 0).unwrap();
    file.write_at(&[2; 4096], 2 * MIB).unwrap();
    assert_eq!(seek(&mut guest, node, fh, 0, libc::SEEK_HOLE), Ok(4096));
    assert_eq!(seek(&mut guest, node, fh, 4096, libc::SEEK_DATA), Ok(2 * MIB));
    assert_eq!(seek(&mut guest, node, fh, 4 * MIB, libc::SEEK_DATA), Err(libc::ENXIO));
    for whence in [libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END, 5, -1] {
        assert_eq!(seek(&mut guest, node, fh, 0, whence), Err(libc::EINVAL));
    }
    assert_eq!(seek(&mut guest, node, fh, u64::MAX, libc::SEEK_DATA), Err(libc::EINVAL));

    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    allocate(&mut guest, node, fh, punch, (0, 4096)).unwrap();
    assert_eq!(seek(&mut guest, node, fh, 0, libc::SEEK_DATA), Ok(2 * MIB));
    allocate(&mut guest, node, fh, 0, (0, 3 * MIB)).unwrap();
    assert_eq!(fs::metadata(guest.host("f")).unwrap().len(), 3 * MIB);
    allocate(&mut guest, node, fh, libc::FALLOC_FL_ZERO_RANGE, (2 * MIB, 4096)).unwrap();
    assert_eq!(guest.read(node, fh, 2 * MIB, 1).unwrap(), [0]);
    assert_eq!(allocate(&mut guest, node, fh, 1 << 20, (0, 1)), Err(libc::EOPNOTSUPP));
    assert_eq!(allocate(&mut guest, node, fh, 0, (u64::MAX, 1)), Err(libc::EINVAL));
    assert_eq!(allocate(&mut guest, node, fh, 0, (0, 0)), Err(libc::EINVAL));
}

#[test]
fn ranges_are_copied() {
    let (mut guest, node, fh) = with_file(b"hello world");
    fs::write(guest.host("g"), b"").unwrap();
    let to = guest.node("g");
    let fh_out = guest.open(to, libc::O_WRONLY).unwrap().fh;
    let wanted =
        CopyFileRangeIn { fh_in: fh, off_in: 6, nodeid_out: to, fh_out, len: u64::MAX, ..Default::default() };
    let reply = guest.ask(opcode::COPY_FILE_RANGE, node, &[wanted.as_slice()]).unwrap();
    assert_eq!(parse::<WriteOut>(&reply).size, 5);
    assert_eq!(fs::read(guest.host("g")).unwrap(), b"world");
    for (wrong, errno) in [
        (CopyFileRangeIn { flags: 1, ..wanted }, libc::EINVAL),
        (CopyFileRangeIn { nodeid_out: 1, ..wanted }, libc::EBADF),
        (CopyFileRangeIn { nodeid_out: 77 << 40, ..wanted }, libc::ESTALE),
        (CopyFileRangeIn { fh_out: 77, ..wanted }, libc::EBADF),
        (CopyFileRangeIn { fh_in: 77, ..wanted }, libc::EBADF),
        (CopyFileRangeIn { off_in: u64::MAX, ..wanted }, libc::EINVAL),
    ] {
        assert_eq!(guest.ask(opcode::COPY_FILE_RANGE, node, &[wrong.as_slice()]), Err(errno));
    }
    guest.check_descriptors();
}

#[test]
fn files_and_directories_are_synced() {
    let (mut guest, node, fh) = with_file(b"hello");
    let root = guest.node("");
    let directory = guest.open_directory(root).unwrap();
    for fsync_flags in [0, FSYNC_FDATASYNC] {
        let wanted = FsyncIn { fh, fsync_flags, padding: 0 };
        guest.ask(opcode::FSYNC, node, &[wanted.as_slice()]).unwrap();
        let wanted = FsyncIn { fh: directory, ..wanted };
        guest.ask(opcode::FSYNCDIR, root, &[wanted.as_slice()]).unwrap();
        guest.ask(opcode::FSYNCDIR, 1, &[wanted.as_slice()]).unwrap();
    }
    assert_eq!(guest.ask(opcode::SYNCFS, root, &[&[0; 8]]), Ok(vec![]));
    assert_eq!(guest.ask(opcode::SYNCFS, 1, &[&[0; 8]]), Ok(vec![]));
    assert_eq!(guest.ask(opcode::SYNCFS, node, &[&[0; 8]]), Err(libc::ENOTDIR));
    let flush = FlushIn { fh, ..FlushIn::default() };
    guest.ask(opcode::FLUSH, node, &[flush.as_slice()]).unwrap();
    assert_eq!(guest.read(node, fh, 0, 9).unwrap(), b"hello");
    guest.check_descriptors();
}

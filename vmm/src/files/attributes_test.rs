use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use vm_memory::ByteValued;

use super::{decode_device, encode_device};
use crate::files::{
    abi::{AttrOut, GetAttrIn, ROOT_NODE, SetAttrIn, StatfsOut, StatxIn, StatxOut, opcode, set},
    fixture::{Guest, parse},
};

fn change(guest: &mut Guest, node: u64, wanted: SetAttrIn) -> Result<AttrOut, i32> {
    Ok(parse(&guest.ask(opcode::SETATTR, node, &[wanted.as_slice()])?))
}

#[test]
fn attributes_are_the_hosts() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let reply = guest.ask(opcode::GETATTR, node, &[GetAttrIn::default().as_slice()]).unwrap();
    let AttrOut { attr_valid, attr, .. } = parse(&reply);
    let stat = fs::metadata(guest.host("f")).unwrap();
    assert_eq!((attr_valid, attr.ino, attr.size), (1, stat.ino(), 5));
    assert_eq!((attr.mode, attr.nlink, attr.blocks), (stat.mode(), 1, stat.blocks()));
    assert_eq!((attr.mtime as i64, i64::from(attr.mtimensec)), (stat.mtime(), stat.mtime_nsec()));
    assert_eq!((attr.uid, attr.gid, attr.flags), (0, 0, 0));
}

#[test]
fn birth_is_told() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let reply = guest.ask(opcode::STATX, node, &[StatxIn::default().as_slice()]).unwrap();
    let StatxOut { stat, .. } = parse(&reply);
    let born = fs::metadata(guest.host("f")).unwrap().created().unwrap();
    let since_1970 = born.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(
        (stat.btime.tv_sec as u64, stat.btime.tv_nsec),
        (since_1970.as_secs(), since_1970.subsec_nanos())
    );
    assert_ne!(stat.mask & libc::STATX_BTIME, 0);
    assert_eq!(stat.mask & libc::STATX_BASIC_STATS, libc::STATX_BASIC_STATS);
    assert_eq!((stat.size, u32::from(stat.mode)), (5, 0o100644));
}

#[test]
fn virtual_directories_have_attributes() {
    let mut guest = Guest::new();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    for node in [ROOT_NODE, share] {
        let reply = guest.ask(opcode::GETATTR, node, &[GetAttrIn::default().as_slice()]).unwrap();
        let AttrOut { attr, .. } = parse(&reply);
        assert_eq!((attr.ino, attr.mode), (node, 0o40555));
        let reply = guest.ask(opcode::STATX, node, &[StatxIn::default().as_slice()]).unwrap();
        let StatxOut { stat, .. } = parse(&reply);
        assert_eq!((stat.ino, stat.mode, stat.mask & libc::STATX_BTIME), (node, 0o40555, 0));
        let reply = guest.ask(opcode::STATFS, node, &[]).unwrap();
        assert_eq!(parse::<StatfsOut>(&reply).namelen, 255);
        let wanted = SetAttrIn { valid: set::MODE, mode: 0o777, ..SetAttrIn::default() };
        assert_eq!(change(&mut guest, node, wanted).err(), Some(libc::EROFS));
    }
    // Neither share 0 nor a share that is not there has others.
    for node in [0, 2, 1 << 39, 99 << 40 | 1, u64::MAX] {
        assert_eq!(guest.ask(opcode::GETATTR, node, &[GetAttrIn::default().as_slice()]), Err(libc::ESTALE));
    }
}

#[test]
fn attributes_change() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let wanted = SetAttrIn {
        valid: set::MODE | set::UID | set::GID | set::SIZE | set::ATIME | set::MTIME,
        mode: 0o104751,
        uid: 3,
        gid: 4,
        size: 2,
        atime: 11,
        atimensec: 12,
        mtime: -13_i64 as u64,
        mtimensec: 14,
        ..SetAttrIn::default()
    };
    let AttrOut { attr, .. } = change(&mut guest, node, wanted).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o104751, 3, 4, 2));
    assert_eq!((attr.atime, attr.atimensec, attr.mtime as i64, attr.mtimensec), (11, 12, -13, 14));
    let only = SetAttrIn { valid: set::MTIME | set::MTIME_NOW, ..SetAttrIn::default() };
    let AttrOut { attr, .. } = change(&mut guest, node, only).unwrap();
    assert_eq!(attr.atime, 11);
    assert!(attr.mtime > 1 << 30);
    // A new owner takes setuid away.
    let wanted = SetAttrIn { valid: set::UID | set::KILL_SUIDGID, uid: 7, ..SetAttrIn::default() };
    let AttrOut { attr, .. } = change(&mut guest, node, wanted).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (7, 4, 0o100751));
    // Values that have a meaning for the kernel only are nanoseconds that are too many.
    for special in [libc::UTIME_NOW, libc::UTIME_OMIT] {
        let wanted =
            SetAttrIn { valid: set::ATIME | set::MTIME, mtimensec: special as u32, ..SetAttrIn::default() };
        assert_eq!(change(&mut guest, node, wanted).err(), Some(libc::EINVAL));
    }
    guest.check_descriptors();
}

#[test]
fn a_links_own_attributes_change() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"hello").unwrap();
    symlink("../secret", guest.host("link")).unwrap();
    let node = guest.node("link");
    let wanted =
        SetAttrIn { valid: set::UID | set::MTIME, uid: 3, mtime: 44, mtimensec: 0, ..SetAttrIn::default() };
    let AttrOut { attr, .. } = change(&mut guest, node, wanted).unwrap();
    assert_eq!((attr.uid, attr.mtime), (3, 44));
    let wanted = SetAttrIn { valid: set::MODE, mode: 0o777, ..SetAttrIn::default() };
    assert_eq!(change(&mut guest, node, wanted).err(), Some(libc::EOPNOTSUPP));
    let wanted = SetAttrIn { valid: set::SIZE, ..SetAttrIn::default() };
    assert_eq!(change(&mut guest, node, wanted).err(), Some(libc::EINVAL));
    let stat = fs::metadata(guest.outside("secret")).unwrap();
    assert_eq!((stat.uid(), stat.len(), stat.mode()), (0, 5, 0o100644));
    assert_ne!(stat.mtime(), 44);
}

#[test]
fn a_size_changes_through_a_handle_or_without() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let writable = guest.open(node, libc::O_RDWR).unwrap().fh;
    let readable = guest.open(node, libc::O_RDONLY).unwrap().fh;
    let to = |size, fh| SetAttrIn { valid: set::SIZE | set::HANDLE, size, fh, ..SetAttrIn::default() };
    assert_eq!(change(&mut guest, node, to(3, writable)).unwrap().attr.size, 3);
    assert_eq!(change(&mut guest, node, to(2, readable)).err(), Some(libc::EINVAL));
    assert_eq!(change(&mut guest, node, to(2, 999)).err(), Some(libc::EBADF));
    assert_eq!(change(&mut guest, node, to(u64::MAX, writable)).err(), Some(libc::EFBIG));
    let directory = guest.node("");
    let wanted = SetAttrIn { valid: set::SIZE, ..SetAttrIn::default() };
    assert_eq!(change(&mut guest, directory, wanted).err(), Some(libc::EINVAL));
}

#[test]
fn a_smaller_size_takes_setuid_away_where_the_guest_says_so() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"hello").unwrap();
    let node = guest.node("f");
    let suid = SetAttrIn { valid: set::MODE, mode: 0o6755, ..SetAttrIn::default() };
    for (kill, mode) in [(0, 0o106755), (set::KILL_SUIDGID, 0o100755)] {
        change(&mut guest, node, suid).unwrap();
        let wanted = SetAttrIn { valid: set::SIZE | kill, size: 1, ..SetAttrIn::default() };
        assert_eq!(change(&mut guest, node, wanted).unwrap().attr.mode, mode);
    }
}

#[test]
fn a_file_system_has_attributes() {
    let mut guest = Guest::new();
    let root = guest.node("");
    let of: StatfsOut = parse(&guest.ask(opcode::STATFS, root, &[]).unwrap());
    let host = nix::sys::statvfs::statvfs(&guest.host("")).unwrap();
    assert_eq!((of.blocks, of.files, u64::from(of.namelen)), (host.blocks(), host.files(), host.name_max()));
}

#[test]
fn device_numbers_have_twelve_and_twenty_bits() {
    for (major, minor) in [(0, 0), (1, 3), (259, 0x1_2345), (0xfff, 0xf_ffff)] {
        assert_eq!(decode_device(encode_device(major, minor)), libc::makedev(major, minor));
    }
}

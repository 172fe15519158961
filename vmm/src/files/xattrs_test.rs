use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use vm_memory::ByteValued;

use super::translate;
use crate::files::{
    abi::{
        GetXattrIn, GetXattrOut, MkdirIn, SETXATTR_ACL_KILL_SGID, SetXattrCompatIn, SetXattrIn, feature,
        opcode,
    },
    fixture::{Guest, Reply, open_path, parse},
    sys,
};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn set(guest: &mut Guest, node: u64, name: &str, value: &[u8], setxattr_flags: u32) -> Reply {
    let wanted = SetXattrIn { size: value.len() as u32, setxattr_flags, ..SetXattrIn::default() };
    guest.ask(opcode::SETXATTR, node, &[wanted.as_slice(), name.as_bytes(), b"\0", value])
}

fn get(guest: &mut Guest, node: u64, name: &str, size: u32) -> Reply {
    let wanted = GetXattrIn { size, padding: 0 };
    guest.ask(opcode::GETXATTR, node, &[wanted.as_slice(), name.as_bytes(), b"\0"])
}

fn list(guest: &mut Guest, node: u64) -> Vec<String> {
    let size = guest.ask(opcode::LISTXATTR, node, &[GetXattrIn::default().as_slice()]).unwrap();
    let wanted = GetXattrIn { size: 4096, padding: 0 };
    let names = guest.ask(opcode::LISTXATTR, node, &[wanted.as_slice()]).unwrap();
    assert_eq!(parse::<GetXattrOut>(&size).size as usize, names.len());
    let mut names: Vec<_> =
        names.split_terminator_nul().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    names.sort();
    names
}

trait SplitNul {
    fn split_terminator_nul(&self) -> impl Iterator<Item = &[u8]>;
}

impl SplitNul for Vec<u8> {
    fn split_terminator_nul(&self) -> impl Iterator<Item = &[u8]> {
        self.split_inclusive(|byte| *byte == 0).map(|name| &name[..name.len() - 1])
    }
}

/// An attribute on the host.
fn host(guest: &mut Guest, path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    // The thread is in /proc/self/fd.
    guest.ask(opcode::STATFS, 1, &[]).unwrap();
    let file = open_path(path);
    let mut value = vec![0; 256];
    let length = sys::get_xattr(std::os::fd::AsFd::as_fd(&file), name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

/// An ACL of these entries: tag, rights, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NOBODY: u32 = u32::MAX;
const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP: u16 = 4;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[test]
fn attributes_of_users_are_kept() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    set(&mut guest, node, "user.a", b"value", 0).unwrap();
    assert_eq!(get(&mut guest, node, "user.a", 100).unwrap(), b"value");
    assert_eq!(parse::<GetXattrOut>(&get(&mut guest, node, "user.a", 0).unwrap()).size, 5);
    assert_eq!(get(&mut guest, node, "user.a", 4), Err(libc::ERANGE));
    assert_eq!(get(&mut guest, node, "user.b", 100), Err(libc::ENODATA));
    assert_eq!(get(&mut guest, node, "user.a", u32::MAX).unwrap(), b"value");
    assert_eq!(list(&mut guest, node), ["user.a"]);
    guest.ask(opcode::REMOVEXATTR, node, &[b"user.a\0"]).unwrap();
    assert!(list(&mut guest, node).is_empty());
    for name in ["nonsense", "other.x", "usera"] {
        assert_eq!(set(&mut guest, node, name, b"", 0), Err(libc::EOPNOTSUPP));
        assert_eq!(get(&mut guest, node, name, 9), Err(libc::EOPNOTSUPP));
    }
    let name = format!("user.{}", "x".repeat(251));
    assert_eq!(set(&mut guest, node, &name, b"", 0), Err(libc::ERANGE));
    guest.check_descriptors();
}

#[test]
fn sizes_are_bounded() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    assert_eq!(set(&mut guest, node, "user.a", &vec![0; (64 << 10) + 1], 0), Err(libc::E2BIG));
    let too_long = SetXattrIn { size: u32::MAX, ..SetXattrIn::default() };
    assert_eq!(guest.ask(opcode::SETXATTR, node, &[too_long.as_slice(), b"user.a\0x"]), Err(libc::E2BIG));
    let missing = SetXattrIn { size: 2, ..SetXattrIn::default() };
    assert!(guest.send(opcode::SETXATTR, node, &[missing.as_slice(), b"user.a\0x"]).is_err());
    set(&mut guest, node, "user.a", &[7; 3000], 0).unwrap();
    guest.room = 16 + 100;
    assert_eq!(get(&mut guest, node, "user.a", 4096), Err(libc::ERANGE));
    guest.room = 16 + 4;
    assert_eq!(get(&mut guest, node, "user.a", 0), Err(libc::ERANGE));
    assert_eq!(guest.ask(opcode::LISTXATTR, node, &[GetXattrIn::default().as_slice()]), Err(libc::ERANGE));
    let wanted = GetXattrIn { size: 4096, padding: 0 };
    assert_eq!(guest.ask(opcode::LISTXATTR, node, &[wanted.as_slice()]), Err(libc::ERANGE));
}

#[test]
fn a_guest_without_the_extension_sets_them_too() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    let node = guest.node("f");
    guest.init(!feature::SETXATTR_EXT);
    let wanted = SetXattrCompatIn { size: 1, flags: 0 };
    guest.ask(opcode::SETXATTR, node, &[wanted.as_slice(), b"user.a\0x"]).unwrap();
    assert_eq!(get(&mut guest, node, "user.a", 9).unwrap(), b"x");
}

#[test]
fn trusted_attributes_are_the_guests_roots() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    let node = guest.node("d");
    set(&mut guest, node, "trusted.overlay.opaque", b"y", 0).unwrap();
    set(&mut guest, node, "user.a", b"1", 0).unwrap();
    assert_eq!(get(&mut guest, node, "trusted.overlay.opaque", 9).unwrap(), b"y");
    assert_eq!(list(&mut guest, node), ["trusted.overlay.opaque", "user.a"]);
    let path = guest.host("d");
    let mapped = c"user.stockade.trusted.overlay.opaque";
    assert_eq!(host(&mut guest, &path, mapped).unwrap(), b"y");
    // The host's own are others.
    assert_eq!(host(&mut guest, &path, c"trusted.overlay.opaque"), None);

    // The mapped name does not exist for the guest.
    let mapped = mapped.to_str().unwrap();
    assert_eq!(get(&mut guest, node, mapped, 9), Err(libc::ENODATA));
    assert_eq!(set(&mut guest, node, mapped, b"n", 0), Err(libc::EPERM));
    let removed = guest.ask(opcode::REMOVEXATTR, node, &[mapped.as_bytes(), b"\0"]);
    assert_eq!(removed, Err(libc::EPERM));
    assert_eq!(get(&mut guest, node, "trusted.overlay.opaque", 9).unwrap(), b"y");

    guest.caller = (1000, 1000);
    assert_eq!(list(&mut guest, node), ["user.a"]);
    guest.caller = (0, 0);
    guest.ask(opcode::REMOVEXATTR, node, &[b"trusted.overlay.opaque\0"]).unwrap();
    assert_eq!(list(&mut guest, node), ["user.a"]);
    let name = format!("trusted.{}", "x".repeat(240));
    assert_eq!(set(&mut guest, node, &name, b"", 0), Err(libc::ERANGE));
}

#[test]
fn the_hosts_trusted_attributes_are_not_the_guests() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), b"").unwrap();
    let path = std::ffi::CString::new(guest.host("f").to_str().unwrap()).unwrap();
    // SAFETY: the three are strings, of which the value has one byte.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"trusted.a".as_ptr(), c"1".as_ptr().cast(), 1, 0) };
    assert_eq!(set, 0);
    let node = guest.node("f");
    assert!(list(&mut guest, node).is_empty());
    assert_eq!(get(&mut guest, node, "trusted.a", 9), Err(libc::ENODATA));
}

#[test]
fn a_link_has_its_own_attributes() {
    let mut guest = Guest::new();
    fs::write(guest.outside("secret"), b"").unwrap();
    symlink("../secret", guest.host("link")).unwrap();
    let node = guest.node("link");
    // As overlay expects it of links.
    assert_eq!(set(&mut guest, node, "trusted.overlay.origin", b"", 0), Err(libc::EPERM));
    assert_eq!(set(&mut guest, node, "user.a", b"x", 0), Err(libc::EPERM));
    set(&mut guest, node, "security.x", b"x", 0).unwrap();
    assert_eq!(list(&mut guest, node), ["security.x"]);
    let secret = guest.outside("secret");
    assert_eq!(host(&mut guest, &secret, c"security.x"), None);
}

#[test]
fn virtual_directories_have_none() {
    let mut guest = Guest::new();
    assert_eq!(get(&mut guest, 1, ACCESS, 99), Err(libc::ENODATA));
    assert!(list(&mut guest, 1).is_empty());
    assert_eq!(set(&mut guest, 1, "user.a", b"x", 0), Err(libc::EROFS));
    assert_eq!(guest.ask(opcode::REMOVEXATTR, 1, &[b"user.a\0"]), Err(libc::EROFS));
}

#[test]
fn a_file_system_without_acls_has_none() {
    let mut guest = Guest::new();
    guest.server.add_trees("s", vec![("proc".into(), open_path("/proc"))]).unwrap();
    let share = guest.look_up(1, "s").unwrap().nodeid;
    let proc = guest.look_up(share, "proc").unwrap().nodeid;
    // With any other error, the guest's kernel would let nobody in.
    assert_eq!(get(&mut guest, proc, ACCESS, 99), Err(libc::ENODATA));
    assert_eq!(get(&mut guest, proc, "user.a", 99), Err(libc::EOPNOTSUPP));
}

#[test]
fn a_default_acl_takes_the_umasks_place() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (5, 6);
    guest.ask(opcode::MKDIR, root, &[MkdirIn { mode: 0o755, umask: 0 }.as_slice(), b"d\0"]).unwrap();
    let directory = guest.node("d");
    let rights = acl(&[
        (OWNER, 7, NOBODY),
        (USER, 7, 1000),
        (GROUP, 5, NOBODY),
        (MASK, 7, NOBODY),
        (OTHER, 0, NOBODY),
    ]);
    set(&mut guest, directory, DEFAULT, &rights, 0).unwrap();
    assert_eq!(get(&mut guest, directory, DEFAULT, 99).unwrap(), rights);
    assert!(list(&mut guest, directory).contains(&DEFAULT.into()));
    let wanted = (libc::O_RDWR, 0o100666, 0o077);
    let (entry, _) = guest.create(opcode::CREATE, directory, "f", wanted).unwrap();
    assert_eq!(entry.attr.mode, 0o100660);
    let inherited = get(&mut guest, entry.nodeid, ACCESS, 99).unwrap();
    assert_eq!(&inherited[12..20], acl(&[(USER, 7, 1000)])[4..].to_vec());
    // Without one, the umask holds.
    let (entry, _) = guest.create(opcode::CREATE, root, "f", wanted).unwrap();
    assert_eq!(entry.attr.mode, 0o100600);
}

#[test]
fn an_acl_changes_the_mode() {
    let mut guest = Guest::new();
    let root = guest.node("");
    guest.caller = (5, 6);
    let (entry, _) = guest.create(opcode::CREATE, root, "f", (2, 0o100600, 0)).unwrap();
    let rights = acl(&[
        (OWNER, 6, NOBODY),
        (USER, 4, 1000),
        (GROUP, 0, NOBODY),
        (MASK, 4, NOBODY),
        (OTHER, 0, NOBODY),
    ]);
    for (flags, group, mode) in [(0, 6, 0o2640), (SETXATTR_ACL_KILL_SGID, 7, 0o640)] {
        std::os::unix::fs::chown(guest.host("f"), None, Some(group)).unwrap();
        fs::set_permissions(guest.host("f"), Permissions::from_mode(0o2600)).unwrap();
        set(&mut guest, entry.nodeid, ACCESS, &rights, flags).unwrap();
        assert_eq!(fs::metadata(guest.host("f")).unwrap().mode() & 0o7777, mode);
    }
    guest.ask(opcode::REMOVEXATTR, entry.nodeid, &[ACCESS.as_bytes(), b"\0"]).unwrap();
    assert_eq!(get(&mut guest, entry.nodeid, ACCESS, 99), Err(libc::ENODATA));
    assert!(set(&mut guest, entry.nodeid, ACCESS, b"nonsense", 0).is_err());
}

#[test]
fn lists_are_translated_in_place() {
    let list = b"user.a\0trusted.b\0user.stockade.trusted.c\0system.d\0user.stockade.trusted.\0";
    let mut for_root = list.to_vec();
    let length = translate(&mut for_root, true);
    assert_eq!(for_root[..length], *b"user.a\0trusted.c\0system.d\0trusted.\0");
    let mut for_others = list.to_vec();
    let length = translate(&mut for_others, false);
    assert_eq!(for_others[..length], *b"user.a\0system.d\0");
    assert_eq!(translate(&mut [], true), 0);
}

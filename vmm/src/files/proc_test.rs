use std::fs;

use vm_memory::ByteValued;

use crate::files::{
    abi::{ROOT_NODE, ReadIn, opcode},
    fixture::{Guest, open_path},
};

/// A guest that sees the host's proc, and the proc's node.
fn guest() -> (Guest, u64) {
    let mut guest = Guest::new();
    guest.server.add_trees("s", vec![("proc".into(), open_path("/proc"))]).unwrap();
    let share = guest.look_up(ROOT_NODE, "s").unwrap().nodeid;
    let proc = guest.look_up(share, "proc").unwrap().nodeid;
    (guest, proc)
}

#[test]
fn the_servers_own_directories_show_what_is_harmless() {
    let (mut guest, proc) = guest();
    let own = fs::read_link("/proc/thread-self").unwrap();
    let numbers = own.iter().filter_map(|name| name.to_str()).filter(|name| *name != "task");
    for number in numbers {
        let directory = guest.look_up(proc, number).unwrap().nodeid;
        for name in
            ["mem", "task", "fd", "root", "cwd", "exe", "environ", "maps", "map_files", "attr", "ns", "comm"]
        {
            assert_eq!(guest.look_up(directory, name).err(), Some(libc::ENOENT), "{name}");
        }
        let fh = guest.open_directory(directory).unwrap();
        let wanted = ReadIn { fh, size: 1 << 20, ..ReadIn::default() };
        guest.ask(opcode::READDIRPLUS, directory, &[wanted.as_slice()]).unwrap();
        let node = guest.look_up(directory, "mounts").unwrap().nodeid;
        let fh = guest.open(node, 0).unwrap().fh;
        assert!(!guest.read(node, fh, 0, 4096).unwrap().is_empty());
        let net = guest.look_up(directory, "net").unwrap().nodeid;
        let node = guest.look_up(net, "dev").unwrap().nodeid;
        let fh = guest.open(node, 0).unwrap().fh;
        assert!(!guest.read(node, fh, 0, 4096).unwrap().is_empty());
    }
    guest.check_descriptors();
}

#[test]
fn other_processes_are_shown() {
    let (mut guest, proc) = guest();
    let process = guest.look_up(proc, "1").unwrap().nodeid;
    for name in ["mem", "comm", "task", "fd"] {
        guest.look_up(process, name).unwrap();
    }
    // Not a number, or none of a process.
    guest.look_up(proc, "loadavg").unwrap();
    for name in ["01", "99999999999", "0"] {
        assert_eq!(guest.look_up(proc, name).err(), Some(libc::ENOENT));
    }
    for name in ["self", "thread-self"] {
        let link = guest.look_up(proc, name).unwrap();
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(guest.open_directory(link.nodeid), Err(libc::ENOTDIR));
    }
}

#[test]
fn the_links_of_processes_are_not_followed() {
    let (mut guest, proc) = guest();
    let process = guest.look_up(proc, "1").unwrap().nodeid;
    for name in ["root", "cwd", "exe"] {
        let Ok(link) = guest.look_up(process, name) else { continue };
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(guest.look_up(link.nodeid, "etc").err(), Some(libc::ENOTDIR));
        assert_eq!(guest.open(link.nodeid, 0).err(), Some(libc::ENXIO));
        assert_eq!(guest.open_directory(link.nodeid), Err(libc::ENOTDIR));
    }
}

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::*;
use crate::capabilities;

/// How many of these succeed in a process that has restricted itself.
fn succeed(allowed: &[Beneath<'_>], attempts: &[&dyn Fn() -> bool]) -> i32 {
    // SAFETY: the child makes system calls, and takes no lock but its allocator's, which survives a fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let restricted = capabilities::forbid_new_privileges().and_then(|()| restrict(allowed, &[]));
            let count = match restricted {
                Ok(()) => attempts.iter().filter(|attempt| attempt()).count() as i32,
                Err(_) => -1,
            };
            // SAFETY: it only ends the process.
            unsafe { libc::_exit(count) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, count) => count,
            status => panic!("{status:?}"),
        },
    }
}

#[test]
fn a_kernel_is_asked_for_what_it_knows() {
    let rights =
        |files, network, scoped| Ruleset { handled_access_fs: files, handled_access_net: network, scoped };
    assert_eq!(Ruleset::all(1), rights(0x1fff, 0, 0));
    assert_eq!(Ruleset::all(3), rights(0x7fff, 0, 0));
    assert_eq!(Ruleset::all(4), rights(0x7fff, 3, 0));
    assert_eq!(Ruleset::all(5), rights(0xffff, 3, 0));
    assert_eq!(Ruleset::all(99), rights(0xffff, 3, 3));
}

/// Whether the kernel has this version at least; where it does not, there is nothing to be tested.
fn has(least: u32) -> bool {
    version().is_ok_and(|version| version >= least)
}

#[test]
fn nothing_is_allowed_but_what_is_listed() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let [listed, other] = [inside.join("file"), directory.path().join("other")];
    for path in [&listed, &other] {
        fs::write(path, "text").unwrap();
    }
    let read = |path: &Path| fs::read(path).is_ok();
    let write = |path: &Path| fs::write(path, "new").is_ok();
    let attempts: [&dyn Fn() -> bool; 6] = [
        &|| read(&listed),
        &|| read(&other),
        &|| write(&listed),
        &|| write(&inside.join("more")),
        &|| fs::read_dir(directory.path()).is_ok(),
        &|| fs::remove_file(&listed).is_ok(),
    ];
    if has(1) {
        assert_eq!(succeed(&[], &attempts), 0);
        let opened = File::open(&inside).unwrap();
        let beneath = Beneath { file: opened.as_fd(), rights: access::READ_FILE | access::READ_DIR };
        assert_eq!(succeed(&[beneath], &attempts), 1);
    } else {
        assert!(succeed(&[], &attempts) > 1);
    }
}

#[test]
fn tcp_and_abstract_sockets_are_out_of_reach() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let name = SocketAddr::from_abstract_name(format!("stockade-{}", std::process::id())).unwrap();
    let _abstract = UnixListener::bind_addr(&name).unwrap();
    if has(4) {
        let attempts: [&dyn Fn() -> bool; 2] = [&|| TcpStream::connect(address).is_ok(), &|| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok()
        }];
        assert_eq!(succeed(&[], &attempts), 0);
    }
    if has(6) {
        let parent = std::process::id() as i32;
        let signal = || {
            // SAFETY: kill takes two integers; signal 0 only asks.
            (unsafe { libc::kill(parent, 0) }) == 0
        };
        assert_eq!(succeed(&[], &[&|| UnixStream::connect_addr(&name).is_ok(), &signal]), 0);
    }
}

use std::os::fd::AsFd;

use super::*;

use nix::mount::{MsFlags, mount as mount_fs};
use nix::unistd::{chdir, pivot_root};

use crate::sys::process::Child;

/// A process in a mount namespace with nothing but an empty /shares, as the VMM of 0.1.
fn vmm() -> Child {
    let (mut ready, mut is_ready) = io::pipe().unwrap();
    let body = || {
        let enter = || -> nix::Result<()> {
            let none: Option<&str> = None;
            mount_fs(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount_fs(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none)?;
            chdir("/tmp")?;
            fs::create_dir("shares").map_err(|_| nix::errno::Errno::EIO)?;
            pivot_root(".", ".")?;
            umount2(".", MntFlags::MNT_DETACH)
        };
        if enter().is_err() || is_ready.write_all(b"r").is_err() {
            return 1;
        }
        loop {
            nix::unistd::pause();
        }
    };
    // SAFETY: the child makes system calls, and takes no lock but its allocator's, which survives a fork.
    let child = unsafe { process::clone(libc::CLONE_NEWNS, None, body) }.unwrap();
    drop(is_ready);
    ready.read_exact(&mut [0]).expect("needs to be root");
    child
}

fn tree(directory: &Path, content: &str) -> (String, OwnedFd) {
    let source = directory.join(content);
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), content).unwrap();
    (content.to_owned(), mount_api::clone_tree_at(&source, false, false).unwrap())
}

#[test]
fn trees_come_to_a_vmm_of_0_1_and_go() {
    let vmm = vmm();
    let at = |path: &str| format!("/proc/{}/root/shares/{path}", vmm.pid);
    let read = |path: &str| fs::read_to_string(at(path)).unwrap();
    let sources = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = |content| tree(sources.path(), content);
    attach(vmm.pidfd.as_fd(), "pod", &[]).unwrap();
    attach(vmm.pidfd.as_fd(), "c", &[tree("rootfs"), tree("m0")]).unwrap();
    assert_eq!((read("c/rootfs/file"), read("c/m0/file")), ("rootfs".to_owned(), "m0".to_owned()));
    assert!(attach(vmm.pidfd.as_fd(), "c", &[]).is_err(), "there is one");
    // A volume of the pod comes with each container that has it, and stays the first's.
    for content in ["first", "second"] {
        let (_, volume) = tree(content);
        attach_more(vmm.pidfd.as_fd(), "pod", &[("volume".to_owned(), volume)]).unwrap();
    }
    assert_eq!(read("pod/volume/file"), "first");
    let missing = attach_more(vmm.pidfd.as_fd(), "gone", &[]).unwrap_err();
    assert!(missing.to_string().contains("No such file"), "{missing}");
    assert!(fs::metadata("/shares").is_err(), "the host's namespace is another");
    for _ in 0..2 {
        detach(vmm.pidfd.as_fd(), "c").unwrap();
    }
    assert!(fs::metadata(at("c")).is_err());
    vmm.kill();
}

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::*;

/// In a process of its own: the signal is for whichever thread does not block it.
#[test]
fn a_swap_in_the_directory_is_told_by_a_signal_of_the_kernels() {
    let directory = tempfile::tempdir().unwrap();
    symlink("..1", directory.path().join("..data")).unwrap();
    let body = || {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGIO);
        mask.thread_block().unwrap();
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK).unwrap();
        // Where there is no root, the directory itself does as well.
        let tree = stockade_sys::mount_api::clone_tree_at(directory.path(), false, false)
            .unwrap_or_else(|_| fs::File::open(directory.path()).unwrap().into());
        let _watch = watch(tree.as_fd()).unwrap();
        let told = || signals.read_signal().unwrap().map(|info| (info.ssi_signo, info.ssi_code));
        let mut outcomes = vec![told()];
        for version in ["..2", "..3"] {
            symlink(version, directory.path().join("..data_tmp")).unwrap();
            fs::rename(directory.path().join("..data_tmp"), directory.path().join("..data")).unwrap();
            outcomes.push(told());
        }
        let expected = Some((libc::SIGIO as u32, libc::SI_KERNEL));
        i32::from(outcomes != [None, expected, expected])
    };
    // SAFETY: the child makes system calls, and takes no lock but its allocator's, which survives a fork.
    let child = unsafe { crate::sys::process::clone(0, None, body) }.unwrap();
    let ended = child.reap().unwrap();
    assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)), "{ended:?}");
}

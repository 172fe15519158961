//! A file system that hangs, as one does whose server is gone: it has a root directory, and looking anything up in it never
//! ends while it is there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const FUSE_LOOKUP: u32 = 1;
const FUSE_FORGET: u32 = 2;
const FUSE_GETATTR: u32 = 3;
const FUSE_STATFS: u32 = 17;
const FUSE_INIT: u32 = 26;
const FUSE_BATCH_FORGET: u32 = 42;

/// Is mounted as long as this is there.
pub struct Hanging {
    path: PathBuf,
    _device: Arc<File>,
}

impl Hanging {
    /// Mounts it on a directory.
    pub fn mount(path: &Path) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("hanging"), path, Some("fuse"), flags, Some(options.as_str())).expect("mount");
        let device = Arc::new(device);
        let served = Arc::clone(&device);
        thread::spawn(move || serve(&served));
        Self { path: path.to_owned(), _device: device }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Its requests end with an error.
        let _ = umount2(&self.path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

fn serve(mut device: &File) {
    let mut request = vec![0; 128 << 10];
    // It fails when the file system is no longer mounted.
    while let Ok(length) = device.read(&mut request) {
        if length < 40 {
            return;
        }
        let opcode = u32::from_le_bytes(request[4..8].try_into().expect("four bytes"));
        let (error, body) = match opcode {
            FUSE_LOOKUP | FUSE_FORGET | FUSE_BATCH_FORGET => continue,
            FUSE_INIT => (0, init()),
            FUSE_GETATTR => (0, root()),
            FUSE_STATFS => (0, vec![0; 80]),
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let mut reply = Vec::new();
        reply.extend((16 + body.len() as u32).to_le_bytes());
        reply.extend(i32::to_le_bytes(error));
        reply.extend(&request[8..16]);
        reply.extend(body);
        // Who has asked may have gone.
        let _ = device.write(&reply);
    }
}

/// `struct fuse_init_out` of version 7.31 without any feature.
fn init() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend([7u32, 31, 4096, 0].iter().flat_map(|word| word.to_le_bytes()));
    body.extend([12u16, 9].iter().flat_map(|word| word.to_le_bytes()));
    body.extend(4096u32.to_le_bytes());
    body.extend(1u32.to_le_bytes());
    body.resize(64, 0);
    body
}

/// `struct fuse_attr_out` of a directory, valid for long.
fn root() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_000_000u64.to_le_bytes());
    body.extend([0; 8]);
    body.extend(1u64.to_le_bytes());
    // Size, blocks, times.
    body.extend([0; 40 + 12]);
    body.extend([0o040_755u32, 2, 0, 0, 0, 4096, 0].iter().flat_map(|word| word.to_le_bytes()));
    body
}

//! `linux.maskedPaths` and `linux.readonlyPaths`, inside the container's root.
//!
//! Paths that do not exist need neither: the lists name files of kernels with other configurations.

use std::ffi::CString;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use crate::{
    error::{Context, ErrorKind, Result, error},
    mount_api::{self, MountAttributes},
};

const NOTHING: Option<&str> = None;

/// Hides the one and protects the other.
pub fn apply(masked: &[String], readonly: &[String]) -> Result<()> {
    for path in readonly {
        match protect(&path_for_kernel(path)?) {
            Err(Errno::ENOENT) => {}
            done => done.or_spec(|| format!("make {path} read-only"))?,
        }
    }
    let mut empty_folder = None;
    for path in masked {
        match mask(&path_for_kernel(path)?, &mut empty_folder) {
            Err(Errno::ENOENT) => {}
            done => done.or_spec(|| format!("mask {path}"))?,
        }
    }
    Ok(())
}

fn path_for_kernel(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| error(ErrorKind::Spec, format!("path {path:?} contains a NUL byte")))
}

fn protect(path: &CString) -> Result<(), Errno> {
    mount(Some(path.as_c_str()), path.as_c_str(), NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    mount_api::set_attributes_at(path, MountAttributes::READONLY, true)
}

/// A file is covered with /dev/null, a folder with an empty one; all share the first, because a file system
/// of their own would cost each of them more than the mount.
fn mask(path: &CString, empty_folder: &mut Option<CString>) -> Result<(), Errno> {
    match mount(Some(c"/dev/null"), path.as_c_str(), NOTHING, MsFlags::MS_BIND, NOTHING) {
        Err(Errno::ENOTDIR) => {}
        done => return done,
    }
    if let Some(empty) = empty_folder {
        return mount(Some(empty.as_c_str()), path.as_c_str(), NOTHING, MsFlags::MS_BIND, NOTHING);
    }
    let options = Some("size=0k,nr_inodes=1");
    mount(Some("tmpfs"), path.as_c_str(), Some("tmpfs"), MsFlags::MS_RDONLY, options)?;
    *empty_folder = Some(path.clone());
    Ok(())
}

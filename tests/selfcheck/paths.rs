//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::Result;
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::Value;

use crate::config::strings;
use crate::findings::Findings;

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    for (index, path) in strings(config, "linux.maskedPaths").iter().enumerate() {
        // The lists name files of other kernels too.
        let Ok(node) = fs::metadata(path) else { continue };
        let is_null = node.file_type().is_char_device() && (major(node.rdev()), minor(node.rdev())) == (1, 3);
        let is_empty = || {
            let none = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            none && statvfs(path.as_str()).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY))
        };
        let masked = is_null || (node.is_dir() && is_empty());
        findings.holds(&format!("linux.maskedPaths[{index}]"), masked, || format!("{path} is not masked"));
    }
    for (index, path) in strings(config, "linux.readonlyPaths").iter().enumerate() {
        let Ok(file_system) = statvfs(path.as_str()) else { continue };
        let readonly = file_system.flags().contains(FsFlags::ST_RDONLY);
        findings
            .holds(&format!("linux.readonlyPaths[{index}]"), readonly, || format!("{path} is not read-only"));
    }
    Ok(())
}

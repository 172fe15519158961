//! The lab under systemd: this program becomes systemd, which runs it again as a service that reports and ends the machine.
//!
//! Nothing else is started but the system bus: no journal, no udev, no login. Under emulation every unit counts.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

const PROGRAM: &str = "/lib/systemd/systemd";
const GENERATORS: [&str; 2] = ["system-generators", "system-environment-generators"];

/// Files below /run/systemd.
const FILES: [(&str, &str); 5] = [
    (
        "system.conf.d/lab.conf",
        "[Manager]\nDefaultStandardOutput=null\nDefaultStandardError=null\nDefaultTimeoutStartSec=60s\n",
    ),
    ("system/lab.target", "[Unit]\nDefaultDependencies=no\nRequires=lab.service\n"),
    (
        "system/lab.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n\
         [Service]\nExecStart=/run/stockade-lab/init service\nStandardError=tty\nTTYPath=/dev/console\n\
         LimitNOFILE=1024:1048576\nTasksMax=infinity\nOOMPolicy=continue\n",
    ),
    ("system/dbus.socket.d/lab.conf", "[Unit]\nDefaultDependencies=no\n"),
    ("system/dbus.service.d/lab.conf", "[Unit]\nDefaultDependencies=no\n"),
];

/// Makes systemd of this process; `job` is the directory in /run where the service finds what it is to run.
///
/// # Errors
/// Returns only if it fails.
pub fn become_systemd(job: &Path) -> Result<()> {
    fs::copy("/proc/self/exe", job.join("init")).context("copy lab-init")?;
    let run = Path::new("/run/systemd");
    for (name, text) in FILES {
        let path = run.join(name);
        fs::create_dir_all(path.parent().unwrap_or(run))?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    for generators in GENERATORS {
        let Ok(entries) = fs::read_dir(Path::new("/lib/systemd").join(generators)) else { continue };
        fs::create_dir_all(run.join(generators))?;
        for entry in entries {
            symlink("/dev/null", run.join(generators).join(entry?.file_name()))?;
        }
    }
    Err(Command::new(PROGRAM).arg("--unit=lab.target").env_clear().exec()).context(PROGRAM)
}

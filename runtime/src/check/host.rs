//! Checks of the host: kernel, privileges, cgroups, memory, confinement.

use std::fs::{self, OpenOptions};
use std::path::Path;

use nix::sys::utsname::uname;
use stockade_sys::landlock;

use super::Row;
use crate::cgroup::{self, ROOT};
use crate::vm::sizing;

/// The first kernel with everything that stockade uses: mount_setattr(2) is the newest.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// Controllers without which limits cannot be kept.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Descriptors that a VM with a large file tree may need.
const DESCRIPTORS: u64 = 65_536;

/// The host's kernel.
pub fn kernel() -> Row {
    const NAME: &str = "host kernel";
    let Ok(uname) = uname() else { return Row::failed(NAME, "uname(2) fails", "use Linux") };
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            Row::ok(NAME, format!("Linux {release}"))
        }
        _ => Row::failed(
            NAME,
            format!("Linux {release}"),
            format!("use Linux {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1),
        ),
    }
}

/// The user that runs the command.
pub fn privileges() -> Row {
    const NAME: &str = "privileges";
    if nix::unistd::geteuid().is_root() {
        Row::ok(NAME, "root")
    } else {
        Row::failed(NAME, "not root", "run stockade as root; running it as another user is not supported yet")
    }
}

/// cgroup v2 and its controllers.
pub fn cgroups() -> Row {
    const NAME: &str = "cgroup v2";
    let Ok(available) = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")) else {
        return Row::failed(
            NAME,
            format!("{ROOT} is not a cgroup v2 file system"),
            "boot the host with systemd.unified_cgroup_hierarchy=1, or pass --cgroup-manager disabled to run without \
             cgroups",
        );
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|controller| !available.split_ascii_whitespace().any(|name| name == *controller))
        .collect();
    if missing.is_empty() {
        Row::ok(NAME, available.trim().to_owned())
    } else {
        Row::failed(
            NAME,
            format!("without {}", missing.join(", ")),
            "enable these controllers in the kernel, and take them away from cgroup v1",
        )
    }
}

/// The device that makes taps, which connect the interfaces of a network namespace to the VM.
pub fn taps() -> Row {
    const NAME: &str = "network";
    const DEVICE: &str = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Row::ok(NAME, format!("{DEVICE} can be opened")),
        Err(cause) => Row::warning(
            NAME,
            format!("{DEVICE}: {cause}"),
            "containers have a loopback interface only; load the module tun and make the device accessible",
        ),
    }
}

/// User namespaces, which rootless engines need.
pub fn user_namespaces() -> Row {
    const NAME: &str = "user namespaces";
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    match most.map(|text| text.trim().parse::<u64>()) {
        Ok(Ok(most)) if most > 0 => Row::ok(NAME, format!("up to {most}")),
        Ok(_) => Row::warning(
            NAME,
            "switched off",
            "for rootless engines, raise the sysctl user.max_user_namespaces",
        ),
        Err(_) => {
            Row::warning(NAME, "not in this kernel", "for rootless engines, use a kernel with CONFIG_USER_NS")
        }
    }
}

/// The memory for a VM of the default size.
pub fn memory(default_mib: u32) -> Row {
    const NAME: &str = "memory";
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limits = [cgroup::nearest_memory_limit(&Path::new(ROOT).join(own)), sizing::host_ram()];
    match sizing::within(default_mib, limits.into_iter().flatten().min()) {
        Ok(mib) if mib >= default_mib => {
            Row::ok(NAME, format!("a VM gets {mib} MiB unless a limit says otherwise"))
        }
        Ok(mib) => Row::warning(
            NAME,
            format!("a VM gets {mib} MiB instead of the configured {default_mib}"),
            "set memory_mib in /etc/stockade/config.toml to less, or raise memory.max of this cgroup",
        ),
        Err(error) => Row::failed(NAME, error.to_string(), "use a host with more memory"),
    }
}

/// The limit of open descriptors for the file server.
pub fn descriptors() -> Row {
    const NAME: &str = "descriptors";
    let most =
        fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match most {
        Some(most) if most < DESCRIPTORS => {
            Row::warning(NAME, format!("at most {most} a process"), "raise the sysctl fs.nr_open")
        }
        Some(most) => Row::ok(NAME, format!("up to {most} a process")),
        None => Row::warning(NAME, "fs.nr_open is not readable", "mount /proc"),
    }
}

/// Landlock, which confines the processes that talk to guests.
pub fn landlock() -> Row {
    const NAME: &str = "Landlock";
    /// The first version with all features that stockade uses.
    const COMPLETE: u32 = 6;
    match landlock::version() {
        Ok(version) if version >= COMPLETE => Row::ok(NAME, format!("version {version}")),
        Ok(version) => Row::warning(
            NAME,
            format!("version {version}"),
            format!("abstract UNIX sockets and signals are denied from version {COMPLETE} (Linux 6.12) on"),
        ),
        Err(cause) => Row::warning(
            NAME,
            format!("not available: {cause}"),
            "use a kernel with CONFIG_SECURITY_LANDLOCK and have landlock in its parameter lsm=; without it, seccomp \
             filters alone keep relays and VMMs from files",
        ),
    }
}

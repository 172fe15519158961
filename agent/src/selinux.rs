//! SELinux in the guest's kernel: the policy, and the labels of files.

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    os::fd::RawFd,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use stockade_protocol::{
    agent::SHARES,
    container::{Mount, MountSource},
    settings::SelinuxPolicy,
};

use crate::{
    boot,
    error::{Context, ErrorKind, Result, error},
};

/// Where the agent has selinuxfs. No container sees it.
const SELINUXFS: &str = "/run/selinux";

/// File systems that take no label: their files have those of the policy, and one instance serves all containers.
const WITHOUT_LABEL: [&str; 4] = ["proc", "sysfs", "cgroup", "cgroup2"];

/// The file system whose root gets the label after it is mounted: there is one for each IPC namespace.
pub const MQUEUE: &str = "mqueue";

/// What a program needs of the agent: classes and permissions of the policy.
const NEEDED: [(&str, &str); 2] = [("fd", "use"), ("fifo_file", "write")];

/// The mount option that gives a file system's files their label.
const OPTION: &str = "context=";

/// Loads the policy and makes the agent and the shared files what it says. The kernel enforces it last.
pub fn load(policy: &SelinuxPolicy) -> Result<()> {
    let file = |name: &str| format!("{SELINUXFS}/{name}");
    fs::create_dir_all(SELINUXFS).or_internal(|| format!("create {SELINUXFS}"))?;
    match mount(Some("selinuxfs"), SELINUXFS, Some("selinuxfs"), MsFlags::empty(), None::<&str>) {
        Err(Errno::ENODEV) => {
            let why =
                "the guest's kernel has not started SELinux; does `lsm=` in kernel_parameters leave it out?";
            return Err(error(ErrorKind::Spec, why));
        }
        mounted => mounted.or_internal(|| "mount selinuxfs".to_owned())?,
    }
    // The kernel takes a policy in one write.
    fs::write(file("load"), &policy.policy).or_spec(|| {
        let most = fs::read_to_string(file("policyvers")).unwrap_or_default();
        format!("load the SELinux policy: the guest's kernel, which knows versions up to {most}, refuses it")
    })?;
    if let Some(label) = &policy.agent {
        let step = || format!("take the label {label:?} that [selinux] in config.toml gives to the agent");
        fs::write("/proc/self/attr/current", label).or_spec(step)?;
    }
    if let Some(label) = &policy.shares {
        let step = || format!("linux.mountLabel: give shared files the label {label:?}");
        umount2(SHARES, MntFlags::empty()).or_internal(|| format!("unmount {SHARES}"))?;
        boot::mount_shares_with(&option(label)).or_spec(step)?;
    }
    if policy.is_enforcing {
        fs::write(file("enforce"), "1").or_internal(|| "enforce the SELinux policy".to_owned())?;
    }
    Ok(())
}

/// Checks that programs with this label may use the streams that the agent opens for them: otherwise the kernel gives
/// them its null device instead. A label that the policy does not have is refused later.
pub fn check(label: &str) -> Result<()> {
    let read = |name: &str| fs::read_to_string(format!("{SELINUXFS}/{name}"));
    if read("enforce").map_or(true, |value| value == "0") {
        return Ok(());
    }
    let own =
        fs::read_to_string("/proc/self/attr/current").or_internal(|| "read the agent's label".to_owned())?;
    let own = own.trim_end_matches(['\0', '\n']);
    for (class, permission) in NEEDED {
        let step = || format!("ask the policy for {class} {permission}");
        let number = |name: &str| read(&format!("class/{class}/{name}")).or_internal(step);
        let index = number("index")?;
        let bit = number(&format!("perms/{permission}"))?.trim().parse::<u32>().unwrap_or_default();
        let allowed = ask(&format!("{label} {own} {}", index.trim()));
        if allowed.is_ok_and(|allowed| bit.checked_sub(1).is_some_and(|bit| allowed & (1 << bit) == 0)) {
            let why = format!(
                "the policy does not let it use the streams that the agent opens ({class} {permission} of {own}); set agent in \
                 [selinux] to the label of a container engine"
            );
            return Err(error(ErrorKind::Spec, why));
        }
    }
    Ok(())
}

/// Asks for what the policy allows: a bit for each permission of the class.
fn ask(question: &str) -> io::Result<u32> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(format!("{SELINUXFS}/access"))?;
    file.write_all(question.as_bytes())?;
    let mut answer = String::new();
    file.read_to_string(&mut answer)?;
    let allowed = answer.split(' ').next().and_then(|word| u32::from_str_radix(word, 16).ok());
    allowed.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Gives the files of the file systems that are made for a container this label, unless an option says another.
pub fn label_mounts(mounts: &mut [Mount], label: &str) {
    for entry in mounts {
        let takes_label = match &entry.source {
            MountSource::FileSystem { fstype, .. } => !WITHOUT_LABEL.contains(&fstype.as_str()),
            MountSource::Scratch { .. } => true,
            _ => false,
        };
        let has_own = entry.data.split(',').any(|option| option.starts_with(OPTION));
        if takes_label && !has_own {
            let comma = if entry.data.is_empty() { "" } else { "," };
            entry.data.push_str(&format!("{comma}{}", option(label)));
        }
    }
}

/// The mount option for this label, whose categories may be separated by commas.
pub fn option(label: &str) -> String {
    format!("{OPTION}\"{label}\"")
}

/// Takes the label out of mount options.
pub fn take_option(data: &str) -> (String, Option<&str>) {
    let Some((before, rest)) = data.split_once("context=\"") else { return (data.to_owned(), None) };
    let Some((label, after)) = rest.split_once('"') else { return (data.to_owned(), None) };
    let others =
        [before, after].map(|part| part.trim_matches(',')).into_iter().filter(|part| !part.is_empty());
    (others.collect::<Vec<_>>().join(","), Some(label))
}

/// Labels an open file.
pub fn label(file: RawFd, label: &str) -> Result<(), Errno> {
    let value = CString::new(label).map_err(|_| Errno::EINVAL)?;
    let bytes = value.as_bytes_with_nul();
    // SAFETY: the name is NUL-terminated, the value is as long as is said, and both outlive the call.
    let set =
        unsafe { libc::fsetxattr(file, c"security.selinux".as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
#[path = "selinux_test.rs"]
mod tests;

//! Starting `stockade-vmm`: namespaces of its own, the fixed descriptors, nothing else inherited.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use stockade_protocol::frame;
use stockade_protocol::vmm::{Config, Hello, Stage, Status, Template, VERSION, fd};
use stockade_sys::descriptors::{duplicate_above, duplicate_to};
use stockade_sys::fd_passing;

use super::sizing::{self, VmSize};
use super::vmm_user::{self, VmmUser};
use super::{AGENT_SOCKET, CONTROL_SOCKET, FILES_SOCKET, Machine, Placement, core_scheduling, template};
use crate::config::{self, Templates, VmmUsers};
use crate::oci::container_id::ContainerId;
use crate::sys::process::{self, Child};
use crate::sys::{descriptors, selinux, signals};

/// The VM's namespaces: a VMM that its guest has taken over sees no process, file or network of the host.
const NAMESPACES: i32 =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;

/// The VM's context ID; every VM has a vsock device of its own, so one number serves all.
const CID: u32 = 3;

/// `_IO(KVMIO, 0x00)` of linux/kvm.h.
const KVM_GET_API_VERSION: libc::Ioctl = 0xae00;

/// Above every descriptor that the VMM inherits.
const SCRATCH: RawFd = 64;

/// Why the VMM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// /dev/kvm is not usable.
    #[error("cannot use /dev/kvm: {cause}; {remedy} (`stockade check` tells more)")]
    Kvm {
        /// Why.
        cause: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A file of the installation is not usable.
    #[error(
        "cannot open the {what} {path}: {cause}; set `{key}` in /etc/stockade/config.toml or install it there"
    )]
    File {
        /// What it is.
        what: &'static str,
        /// The configuration's key for it.
        key: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A system call failed.
    #[error("cannot start the VMM: {what}: {cause}")]
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |cause| LaunchError::System { what, cause }
}

/// The files that a VM is made of, open.
#[derive(Debug)]
pub struct Launch {
    vmm: PathBuf,
    kernel_path: PathBuf,
    kernel: File,
    initramfs: File,
    kvm: File,
    core_scheduling: bool,
    config: Config,
    users: VmmUsers,
    /// What a template of it depends on, of its files.
    identity: String,
    template: Option<template::Files>,
    templates: Templates,
    template_classes_mib: Vec<u32>,
    /// The label of the VMM on a host with SELinux.
    label: Option<String>,
}

impl Launch {
    /// Opens everything, so that what is missing is known before anything is made.
    ///
    /// # Errors
    /// [`LaunchError::Kvm`] or [`LaunchError::File`].
    pub fn prepare(installation: &config::Config) -> Result<Self, LaunchError> {
        let open = |path: &Path, what, key| {
            File::open(path).map_err(|cause| LaunchError::File { what, key, path: path.to_owned(), cause })
        };
        // Opened only to see that it is there: execve failing in the child would be harder to explain.
        let vmm = open(&installation.vmm, "VMM", "vmm")?;
        let kernel = open(&installation.kernel, "guest kernel", "kernel")?;
        let initramfs = open(&installation.initramfs, "initramfs", "initramfs")?;
        let identity = template::identity([&vmm, &kernel, &initramfs]).map_err(system("fstat"))?;
        Ok(Self {
            kernel,
            initramfs,
            identity,
            template: None,
            templates: installation.templates,
            template_classes_mib: installation.template_classes_mib.clone(),
            label: None,
            kvm: open_kvm()?,
            vmm: installation.vmm.clone(),
            kernel_path: installation.kernel.clone(),
            core_scheduling: installation.core_scheduling,
            config: Config {
                memory_mib: installation.memory_mib,
                vcpus: 1,
                cid: CID,
                kernel_parameters: installation.kernel_parameters.clone(),
                most_memory_mib: 0,
                user: None,
                template: Template::None,
                hot: Vec::new(),
            },
            users: installation.vmm_users,
        })
    }

    /// Sets the guest's RAM, and how much it can be given later, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32, most: u32) -> Self {
        self.config.memory_mib = memory_mib;
        self.config.most_memory_mib = most;
        self
    }

    /// Sets how many CPUs the guest can have: one of them boots.
    #[must_use]
    pub fn vcpus(mut self, most: u8) -> Self {
        self.config.vcpus = most;
        self
    }

    /// Sets the SELinux label of the container, if it has one, for the VMM; on a host without SELinux it has no effect.
    #[must_use]
    pub fn labelled(self, label: Option<&str>) -> Self {
        let label = label.filter(|_| selinux::is_enabled()).map(selinux::of_vm);
        Self { label, ..self }
    }

    /// What a template must be of to be of use.
    pub fn template_key(&self) -> template::Key {
        template::Key::new(&self.config, &self.identity)
    }

    /// The same for another size, in MiB.
    pub fn key_of_class(&self, mib: u32) -> template::Key {
        template::Key::new(&Config { memory_mib: mib, ..self.config.clone() }, &self.identity)
    }

    /// Sets the guest's RAM alone, in MiB.
    #[must_use]
    pub fn of_class(mut self, mib: u32) -> Self {
        self.config.memory_mib = mib;
        self
    }

    /// Whether the administrator wants VMs to begin as templates.
    pub fn uses_templates(&self) -> bool {
        self.templates != Templates::Off
    }

    /// Whether a start may have a template made for a guest with this much RAM, in MiB.
    pub fn makes_templates(&self, mib: u32) -> bool {
        let classes = &self.template_classes_mib;
        self.templates == Templates::On && (classes.is_empty() || classes.contains(&mib))
    }

    /// Has the guest begin as this template's.
    #[must_use]
    pub fn beginning_as(mut self, files: template::Files) -> Self {
        self.config.template = Template::Use;
        self.config.hot.clone_from(&files.hot);
        self.template = Some(files);
        self
    }

    /// Has the guest be saved to these files when its agent is ready.
    #[must_use]
    pub fn becoming(mut self, files: template::Files) -> Self {
        self.config.template = Template::Save;
        self.template = Some(files);
        self
    }

    /// Sets both as a VM of this size has them.
    #[must_use]
    pub fn sized(self, size: &VmSize) -> Self {
        self.memory_mib(size.mib, sizing::most_mib()).vcpus(size.most_vcpus)
    }

    /// Starts the VMM of a container, with its sockets in `directory`, in the cgroup that `placement` says.
    /// It does nothing before `remember` has returned: whoever finds what the runtime has left must know of it.
    ///
    /// # Errors
    /// [`LaunchError`], or the one of `remember`.
    pub fn start(
        mut self,
        id: &ContainerId,
        directory: BorrowedFd<'_>,
        placement: Placement,
        remember: impl FnOnce(&Child) -> anyhow::Result<()>,
    ) -> anyhow::Result<Machine> {
        let (config_reader, config_writer) = io::pipe().map_err(system("pipe"))?;
        let (status, status_end) = descriptors::packet_pair().map_err(system("status socket"))?;
        let (ready, ready_end) = UnixStream::pair().map_err(system("ready socket"))?;
        let agent = descriptors::listen(directory, AGENT_SOCKET).map_err(system(AGENT_SOCKET))?;
        let control = descriptors::listen(directory, CONTROL_SOCKET).map_err(system(CONTROL_SOCKET))?;
        let files = descriptors::listen(directory, FILES_SOCKET).map_err(system(FILES_SOCKET))?;
        let user = vmm_user::reserve(self.users)?;
        self.config.user = user.as_ref().map(|user| user.id);
        let null =
            OpenOptions::new().read(true).write(true).open("/dev/null").map_err(system("/dev/null"))?;
        let c_string = |text: &[u8]| {
            CString::new(text).map_err(|_| system("path of the VMM")(io::ErrorKind::InvalidInput.into()))
        };
        let path = c_string(self.vmm.as_os_str().as_bytes())?;
        // The VMM reads no arguments; `ps` shows whose it is.
        let arguments = [c_string(b"stockade-vmm")?, c_string(id.as_str().as_bytes())?];

        let inherited = Inherited {
            config: config_reader.into(),
            status: status_end,
            ready: ready_end.into(),
            agent,
            control,
            cgroup_procs: match placement.procs {
                Some(procs) => procs.into(),
                None => null.try_clone().map_err(system("/dev/null"))?.into(),
            },
            files,
            user_lock: match user {
                Some(VmmUser { lock, .. }) => lock,
                None => null.try_clone().map_err(system("/dev/null"))?.into(),
            },
            null: null.into(),
        };
        tracing::debug!(vmm_start_tsc = crate::sys::tsc::now(), "starting {}", self.vmm.display());
        let body = || {
            let isolated = if self.core_scheduling { core_scheduling::isolate() } else { Ok(()) };
            // The status socket is the VMM's own way to say this, so the waiting side needs no second one.
            let reason = match isolated {
                Ok(()) => {
                    let cause = self.execute(&path, &arguments, &inherited);
                    format!("cannot execute {}: {cause}", self.vmm.display())
                }
                Err(cause) => cause.to_string(),
            };
            let status = Status::Failed { after: Stage::Started, reason, console: String::new() };
            let packet = postcard::to_stdvec(&status).unwrap_or_default();
            // Nobody is left to tell if even this fails.
            let _ = fd_passing::send(inherited.status.as_fd(), &packet, &[]);
            1
        };
        let cgroup = placement.directory.as_ref().map(AsFd::as_fd);
        // SAFETY: commands have one thread. The body changes nothing of this process but descriptors and signals, which are its own.
        let child = unsafe { process::execute(NAMESPACES, cgroup, body) };
        let child: Child = child.map_err(|errno| system("clone3")(errno.into()))?;

        // The VMM waits for its configuration. One that is gone already has said why on the status socket.
        let configured = remember(&child).and_then(|()| {
            let config = [frame::encode(&Hello::new(VERSION))?, frame::encode(&self.config)?].concat();
            match (&config_writer).write_all(&config) {
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => Ok(result?),
            }
        });
        if let Err(error) = configured {
            child.kill();
            return Err(error);
        }
        let template = self.template.and_then(|files| files.directory);
        Ok(Machine::new(child, status, ready, self.kernel_path, template))
    }

    /// In the child: puts every descriptor in its place and becomes the VMM. Returns only what went wrong.
    fn execute(&self, path: &CString, arguments: &[CString], inherited: &Inherited) -> io::Error {
        let labelled = self.label.as_deref().map_or(Ok(()), selinux::set_for_exec);
        if let Err(cause) = labelled {
            return io::Error::new(cause.kind(), format!("process.selinuxLabel on the host: {cause}"));
        }
        let null = inherited.null.as_fd();
        let (state, ram) =
            self.template.as_ref().map_or((null, null), |files| (files.state.as_fd(), files.ram.as_fd()));
        let places: [(BorrowedFd<'_>, RawFd); 16] = [
            (inherited.null.as_fd(), 0),
            (inherited.null.as_fd(), 1),
            (inherited.null.as_fd(), 2),
            (inherited.config.as_fd(), fd::CONFIG),
            (self.kernel.as_fd(), fd::KERNEL),
            (self.initramfs.as_fd(), fd::INITRAMFS),
            (inherited.status.as_fd(), fd::STATUS),
            (inherited.ready.as_fd(), fd::READY),
            (inherited.agent.as_fd(), fd::AGENT_LISTENER),
            (inherited.control.as_fd(), fd::CONTROL_LISTENER),
            (inherited.cgroup_procs.as_fd(), fd::CGROUP_PROCS),
            (self.kvm.as_fd(), fd::KVM),
            (inherited.files.as_fd(), fd::FILES_LISTENER),
            (inherited.user_lock.as_fd(), fd::USER_LOCK),
            (state, fd::TEMPLATE_STATE),
            (ram, fd::TEMPLATE_RAM),
        ];
        match become_program(path, arguments, &places) {
            Ok(never) => match never {},
            Err(cause) => cause,
        }
    }
}

/// What the VMM inherits besides the files of [`Launch`].
struct Inherited {
    config: OwnedFd,
    status: OwnedFd,
    ready: OwnedFd,
    agent: UnixListener,
    control: UnixListener,
    cgroup_procs: OwnedFd,
    files: UnixListener,
    user_lock: OwnedFd,
    null: OwnedFd,
}

/// Replaces this process by `path` with exactly these descriptors.
fn become_program(
    path: &CString,
    arguments: &[CString],
    places: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<std::convert::Infallible> {
    // First away from the numbers that are about to be overwritten, then into place.
    let moved = places
        .iter()
        .map(|(from, to)| Ok((duplicate_above(*from, SCRATCH)?, *to)))
        .collect::<io::Result<Vec<_>>>()?;
    for (from, to) in &moved {
        // SAFETY: whatever owned the number is the creator's, and this process becomes another program.
        unsafe { duplicate_to(from, *to) }?;
    }
    // Everything else closes on exec: Rust opens nothing without that flag. What the caller has passed to the runtime
    // without it (containerd's sockets) is marked now.
    let last = places.iter().map(|(_, to)| *to).max().unwrap_or(2);
    // SAFETY: only sets a flag on descriptors.
    let marked = unsafe {
        libc::close_range(
            (last + 1) as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
    if marked != 0 {
        return Err(io::Error::last_os_error());
    }
    signals::unblock_all()?;
    nix::unistd::setsid()?;
    Ok(nix::unistd::execve(path, arguments, &[] as &[&std::ffi::CStr])?)
}

fn open_kvm() -> Result<File, LaunchError> {
    /// What `KVM_GET_API_VERSION` has answered since Linux 2.6.22.
    const API_VERSION: i32 = 12;
    let failed = |cause: io::Error| {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => {
                "enable virtualisation in the firmware (or nested virtualisation in the cloud) and load kvm_intel or \
                 kvm_amd"
            }
            io::ErrorKind::PermissionDenied => "give this user access to it, usually by the group kvm",
            _ => "see that nothing else stands at that path",
        };
        LaunchError::Kvm { cause, remedy }
    };
    let file = OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(failed)?;
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), KVM_GET_API_VERSION, 0) } {
        API_VERSION => Ok(file),
        -1 => Err(failed(io::Error::last_os_error())),
        other => Err(failed(io::Error::other(format!("its interface has version {other}")))),
    }
}

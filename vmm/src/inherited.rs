//! The descriptors and the configuration that the runtime hands over (`protocol/src/vmm.rs`).

use std::{
    fs::File,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use stockade_protocol::{
    frame::{self, FrameError},
    vmm::{Config, Hello, HelloReply, MAX_VCPUS, Template, VERSION, fd},
};

use crate::{status::StatusSocket, template};

/// What is wrong with the descriptors or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor of the fixed set is not open.
    #[error("descriptor {number} ({name}) was not passed: stockade-vmm is started by stockade, not by hand")]
    Missing {
        /// The descriptor.
        number: RawFd,
        /// What it should be.
        name: &'static str,
    },
    /// The configuration could not be read.
    #[error("configuration: {0}")]
    Config(#[from] FrameError),
    /// The runtime does not say hello in this version.
    #[error(
        "the runtime does not speak version {VERSION} of stockade's VMM protocol; install stockade and stockade-vmm of one \
         release"
    )]
    OtherRelease,
    /// The configuration ended before it began.
    #[error("configuration: descriptor {} is empty", fd::CONFIG)]
    NoConfig,
    /// The configuration asks for something that is not possible.
    #[error("configuration: {0}")]
    Invalid(&'static str),
}

/// The descriptors, owned, and the configuration.
#[derive(Debug)]
pub struct Inherited {
    /// How to make the microVM.
    pub config: Config,
    /// The guest kernel.
    pub kernel: File,
    /// The initramfs.
    pub initramfs: File,
    /// The socket for the guest's ready connection.
    pub ready: UnixStream,
    /// The listener whose connections go to the agent.
    pub agent_listener: UnixListener,
    /// The listener whose connections carry requests to the VMM.
    pub control_listener: UnixListener,
    /// `cgroup.procs` of the cgroup to join.
    pub cgroup_procs: File,
    /// /dev/kvm.
    pub kvm: OwnedFd,
    /// The listener whose connections carry trees to the file server.
    pub files_listener: UnixListener,
    /// The lock that reserves the VMM's user, if it has one of its own.
    pub user_lock: Option<OwnedFd>,
    /// The files of a template, if there is one.
    pub template: Option<template::Files>,
}

/// Takes the status socket; everything that fails afterwards is reported on it.
///
/// # Errors
/// [`Error::Missing`].
///
/// # Safety
/// As [`take`].
pub unsafe fn take_status() -> Result<StatusSocket, Error> {
    // SAFETY: the caller vouches for it.
    Ok(StatusSocket::new(unsafe { claim(fd::STATUS, "status") }?))
}

/// Takes the other descriptors and reads the configuration.
///
/// # Errors
/// Any [`Error`].
///
/// # Safety
/// Called once, before anything else opens or closes descriptors: those of [`fd`] must belong to nobody yet.
pub unsafe fn take() -> Result<Inherited, Error> {
    // SAFETY: the caller vouches for all of these; each number is claimed once.
    unsafe {
        let mut config = File::from(claim(fd::CONFIG, "configuration")?);
        match frame::read::<Hello>(&mut config, frame::HOST_LIMIT) {
            Ok(Some(hello)) if hello.reply() == Some(HelloReply::Welcome) => {}
            Ok(None) => return Err(Error::NoConfig),
            Err(error @ FrameError::Io(_)) => return Err(error.into()),
            // The configuration after another hello could be read with a weaker meaning.
            Ok(Some(_)) | Err(_) => return Err(Error::OtherRelease),
        }
        let config = checked(frame::read(&mut config, frame::HOST_LIMIT)?.ok_or(Error::NoConfig)?)?;
        let user_lock = config.user.map(|_| claim(fd::USER_LOCK, "user lock")).transpose()?;
        let template = match config.template {
            Template::None => None,
            Template::Save | Template::Use => Some(template::Files {
                state: claim(fd::TEMPLATE_STATE, "state of a template")?.into(),
                ram: claim(fd::TEMPLATE_RAM, "RAM of a template")?.into(),
            }),
        };
        Ok(Inherited {
            config,
            kernel: claim(fd::KERNEL, "kernel")?.into(),
            initramfs: claim(fd::INITRAMFS, "initramfs")?.into(),
            ready: claim(fd::READY, "ready")?.into(),
            agent_listener: claim(fd::AGENT_LISTENER, "agent listener")?.into(),
            control_listener: claim(fd::CONTROL_LISTENER, "control listener")?.into(),
            cgroup_procs: claim(fd::CGROUP_PROCS, "cgroup.procs")?.into(),
            kvm: claim(fd::KVM, "KVM")?,
            files_listener: claim(fd::FILES_LISTENER, "files listener")?.into(),
            user_lock,
            template,
        })
    }
}

fn checked(config: Config) -> Result<Config, Error> {
    if !(1..=MAX_VCPUS).contains(&config.vcpus) {
        return Err(Error::Invalid("the number of vCPUs must be between 1 and 64"));
    }
    if config.cid < 3 {
        return Err(Error::Invalid("the guest's context ID must be at least 3"));
    }
    if config.user == Some(0) {
        return Err(Error::Invalid("the VMM's user must not be root"));
    }
    Ok(config)
}

/// Takes ownership of an inherited descriptor.
///
/// # Safety
/// Nobody else owns `number`.
unsafe fn claim(number: RawFd, name: &'static str) -> Result<OwnedFd, Error> {
    // SAFETY: F_GETFD touches no memory, and fails on a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Error::Missing { number, name });
    }
    // SAFETY: it is open, and the caller vouches that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

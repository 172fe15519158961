//! `linux.seccomp` to a BPF program, by libseccomp.
//!
//! The profile is checked with the rest of config.json, and compiled later, while the VM boots: engines' default
//! profiles take libseccomp some milliseconds. Its binary tree of system calls would double that, and the guest's kernel
//! remembers anyway which numbers are always allowed.

use std::fs::File;
use std::io::{self, Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, Linux, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use stockade_protocol::container::SeccompFilter;

use super::seccomp_program::{self, Section};
use crate::oci::bundle::SpecError;

/// The kernel's highest error number.
const MAX_ERRNO: u32 = 4095;

/// The newest interface of libseccomp that is used, whatever the host's kernel supports.
const API_LEVEL: u32 = 4;

/// Longest program, in bytes: BPF_MAXINSNS instructions.
const LIMIT: usize = 4096 * 8;

/// Actions that a profile may ask for: all but SCMP_ACT_NOTIFY.
pub const ACTIONS: [LinuxSeccompAction; 8] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

/// Comparisons of a system call's argument.
pub const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

/// Architectures of the guest's processes.
pub const ARCHITECTURES: [Arch; 3] = [Arch::ScmpArchX32, Arch::ScmpArchX86, Arch::ScmpArchX86_64];

/// Flags that have an effect. TSYNC and WAIT_KILLABLE_RECV concern threads and listeners, which do not exist here.
pub const FLAGS: [(LinuxSeccompFilterFlag, u32); 2] = [
    (LinuxSeccompFilterFlag::SeccompFilterFlagLog, libc::SECCOMP_FILTER_FLAG_LOG as u32),
    (LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32),
];

/// A profile without mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile(LinuxSeccomp);

impl Profile {
    /// Checks `linux.seccomp`; `None` where there is none.
    ///
    /// # Errors
    /// What is not valid, or cannot work across the border of a VM.
    pub fn check(linux: Option<&Linux>) -> Result<Option<Self>, SpecError> {
        let Some(spec) = linux.and_then(|linux| linux.seccomp().as_ref()) else { return Ok(None) };
        if spec.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
            let problem = "a listener of the host cannot serve system calls of the VM's kernel; use a profile \
                           without SCMP_ACT_NOTIFY";
            return Err(SpecError::new(path("listenerPath"), problem));
        }
        check_action(spec.default_action(), &path("defaultAction"))?;
        check_errno(spec.default_action(), spec.default_errno_ret(), &path("defaultErrnoRet"))?;
        for (index, rule) in spec.syscalls().iter().flatten().enumerate() {
            let rule_path = format!("syscalls[{index}]");
            check_action(rule.action(), &path(&format!("{rule_path}.action")))?;
            check_errno(rule.action(), rule.errno_ret(), &path(&format!("{rule_path}.errnoRet")))?;
            if let Some(name) = rule.names().iter().position(String::is_empty) {
                return Err(SpecError::new(path(&format!("{rule_path}.names[{name}]")), "is empty"));
            }
            for (position, arg) in rule.args().iter().flatten().enumerate() {
                if arg.index() > 5 {
                    let property = path(&format!("{rule_path}.args[{position}].index"));
                    let problem = format!("{} is not between 0 and 5", arg.index());
                    return Err(SpecError::new(property, problem));
                }
            }
        }
        Ok(Some(Self(spec.clone())))
    }

    /// The program for the guest's kernel.
    ///
    /// # Errors
    /// What libseccomp refuses.
    pub fn compile(&self) -> Result<SeccompFilter, SpecError> {
        let spec = &self.0;
        // Otherwise libseccomp asks the host's kernel, and offers no more than that supports.
        libseccomp::set_api(API_LEVEL).map_err(refused)?;
        let (mut i386, mut x32) = (false, false);
        for arch in spec.architectures().iter().flatten() {
            match arch {
                Arch::ScmpArchX86 => i386 = true,
                Arch::ScmpArchX32 => x32 = true,
                Arch::ScmpArchX86_64 | Arch::ScmpArchNative => {}
                other => {
                    tracing::debug!("linux.seccomp.architectures: ignored {other}, which is not the guest's")
                }
            }
        }
        let program = seccomp_program::join(
            &self.section(ScmpArch::X8664)?,
            i386.then(|| self.section(ScmpArch::X86)).transpose()?.as_ref(),
            x32,
        );
        if program.len() > LIMIT {
            let problem = format!(
                "has {} instructions, but the kernel accepts at most {}",
                program.len() / 8,
                LIMIT / 8
            );
            return Err(SpecError::new("linux.seccomp", problem));
        }
        Ok(SeccompFilter { flags: flags(spec.flags().as_deref()), program })
    }

    /// The program for one architecture. libseccomp could make one for all, but takes more than twice as long for it.
    fn section(&self, arch: ScmpArch) -> Result<Section, SpecError> {
        let spec = &self.0;
        let default = action(spec.default_action(), spec.default_errno_ret());
        let mut context = ScmpFilterContext::new(default).map_err(refused)?;
        if arch != ScmpArch::X8664 {
            context.add_arch(arch).map_err(refused)?;
            context.remove_arch(ScmpArch::X8664).map_err(refused)?;
        }
        let mut newest = None;
        for (index, rule) in spec.syscalls().iter().flatten().enumerate() {
            let newest_of_rule = add(&mut context, rule, default, arch)
                .map_err(|error| SpecError::new(path(&format!("syscalls[{index}]")), error.to_string()))?;
            newest = newest.max(newest_of_rule);
        }
        let program = export(&context).map_err(|cause| SpecError::new("linux.seccomp", cause.to_string()))?;
        Ok(Section { newest: newest.filter(|_| !is_permissive(default)), program })
    }
}

fn refused(error: SeccompError) -> SpecError {
    SpecError::new("linux.seccomp", error.to_string())
}

fn path(property: &str) -> String {
    format!("linux.seccomp.{property}")
}

fn check_action(action: LinuxSeccompAction, property: &str) -> Result<(), SpecError> {
    if !ACTIONS.contains(&action) {
        let problem =
            "SCMP_ACT_NOTIFY needs a listener, but a listener on the host cannot serve the VM's kernel";
        return Err(SpecError::new(property, problem));
    }
    Ok(())
}

fn check_errno(action: LinuxSeccompAction, errno: Option<u32>, property: &str) -> Result<(), SpecError> {
    let most = match action {
        LinuxSeccompAction::ScmpActErrno => MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => u16::MAX.into(),
        // The other actions have no value.
        _ => return Ok(()),
    };
    match errno {
        Some(errno) if errno > most => {
            Err(SpecError::new(property, format!("{errno} is not between 0 and {most}")))
        }
        _ => Ok(()),
    }
}

/// EPERM where no error number is given.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let value = errno.unwrap_or(libc::EPERM as u32) as u16;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(value.into()),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(value),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    }
}

/// Whether the default action allows system calls that the profile does not name.
fn is_permissive(default: ScmpAction) -> bool {
    // A tracer answers for new system calls itself.
    matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_))
}

/// Adds one entry of `syscalls`, and returns the highest number that it names. Names that libseccomp does not know are
/// left out, as runc does: profiles are written for kernels of every age.
fn add(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
    arch: ScmpArch,
) -> Result<Option<u32>, SeccompError> {
    let action = action(rule.action(), rule.errno_ret());
    let args: &[LinuxSeccompArg] = rule.args().as_deref().unwrap_or_default();
    let conditions: Vec<ScmpArgCompare> = args.iter().map(condition).collect();
    // Conditions on one argument are alternatives; conditions on different arguments must all hold.
    let are_alternatives =
        args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|before| before.index() == arg.index()));
    let pieces = if are_alternatives { 1 } else { conditions.len().max(1) };
    let mut newest = None;
    for name in rule.names() {
        let Ok(syscall) = ScmpSyscall::from_name(name) else {
            tracing::debug!("linux.seccomp: ignored the unknown system call {name:?}");
            continue;
        };
        let number: i32 = ScmpSyscall::from_name_by_arch(name, arch)?.into();
        // Negative where the architecture does not have it.
        newest = newest.max(u32::try_from(number).ok());
        if action == default {
            continue;
        }
        if conditions.is_empty() {
            context.add_rule(action, syscall)?;
        }
        for together in conditions.chunks(pieces) {
            context.add_rule_conditional(action, syscall, together)?;
        }
    }
    Ok(newest)
}

fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, datum) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    // Checked to be at most 5.
    ScmpArgCompare::new(arg.index() as u32, operator, datum)
}

/// `SECCOMP_FILTER_FLAG_*`. An absent list stands for SPEC_ALLOW, as with runc: the filter is no reason for a slower
/// program.
fn flags(flags: Option<&[LinuxSeccompFilterFlag]>) -> u32 {
    let Some(flags) = flags else { return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32 };
    flags.iter().fold(0, |all, flag| match FLAGS.iter().find(|(effective, _)| effective == flag) {
        Some((_, bit)) => all | bit,
        None => {
            tracing::debug!("linux.seccomp.flags: {flag} has no effect");
            all
        }
    })
}

fn export(context: &ScmpFilterContext) -> io::Result<Vec<u8>> {
    let mut file = File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)?);
    context.export_bpf(&file).map_err(io::Error::other)?;
    let mut program = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut program)?;
    Ok(program)
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;

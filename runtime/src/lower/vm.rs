//! `vm`: another kernel, initramfs, kernel parameters or size for the container's VM, as far as the administrator allows.
//!
//! The administrator decides what a VM consists of: a bundle may choose among what the table `[vm]` of the
//! configuration lists. What the installation uses anyway needs no permission.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{VM, VMHypervisor, VMKernel};

use crate::config::{Config, MIN_MIB};
use crate::oci::HwConfig;
use crate::oci::bundle::{Bundle, SpecError};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// The size of the VM by config.json.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Its memory, in MiB.
    pub mib: Option<u32>,
    /// Its CPUs.
    pub vcpus: Option<u8>,
}

/// The configuration of the bundle's VM, and what config.json says of its size. `limit` is the container's own, in bytes.
///
/// # Errors
/// What is not allowed, or what stockade's VMs do not have.
pub fn apply(bundle: &Bundle, mut config: Config, limit: Option<u64>) -> Result<(Config, Fixed), SpecError> {
    let Some(vm) = bundle.spec.vm() else { return Ok((config, Fixed::default())) };
    refuse_what_cannot_be(vm, &config)?;
    kernel(vm.kernel(), &mut config)?;
    let Some(hw_config) = &bundle.hw_config else { return Ok((config, Fixed::default())) };
    let fixed = Fixed { mib: memory(hw_config, &config, limit)?, vcpus: vcpus(hw_config, &config)? };
    Ok((config, fixed))
}

/// The VM's CPUs. One CPU needs no permission.
fn vcpus(given: &HwConfig, config: &Config) -> Result<Option<u8>, SpecError> {
    let Some(vcpus) = given.vcpus.filter(|vcpus| *vcpus != 0) else { return Ok(None) };
    let error = |problem: String| SpecError::new("vm.hwConfig.vcpus", format!("{vcpus} {problem}"));
    match (u8::try_from(vcpus), config.vm.max_vcpus) {
        (Ok(vcpus), most) if vcpus <= most.unwrap_or(1) => Ok(Some(vcpus)),
        (_, Some(most)) => Err(error(format!("are more than the {most} that the configuration allows"))),
        (_, None) => Err(error(
            "are not allowed; set `max_vcpus` in the table [vm] of /etc/stockade/config.toml".to_owned(),
        )),
    }
}

/// Refuses `vm` for a container that joins another's VM.
///
/// # Errors
/// If config.json has it.
pub fn refuse(bundle: &Bundle) -> Result<(), SpecError> {
    match bundle.spec.vm() {
        None => Ok(()),
        Some(_) => Err(SpecError::new(
            "vm",
            "the container joins a VM that exists already; only the sandbox's config.json can describe that VM",
        )),
    }
}

fn refuse_what_cannot_be(vm: &VM, config: &Config) -> Result<(), SpecError> {
    if let Some(hypervisor) = vm.hypervisor() {
        check_hypervisor(hypervisor, config)?;
    }
    if let Some(image) = vm.image() {
        let problem = format!(
            "{} is not used: the guest's root is its initramfs, and the container's is root.path; leave it out",
            image.path().display()
        );
        return Err(SpecError::new("vm.image", problem));
    }
    Ok(())
}

fn check_hypervisor(hypervisor: &VMHypervisor, config: &Config) -> Result<(), SpecError> {
    let path = hypervisor.path();
    if !path.as_os_str().is_empty() && !is_same(path, &config.vmm) {
        let problem =
            format!("{} is not {}, the only hypervisor; leave it out", path.display(), config.vmm.display());
        return Err(SpecError::new("vm.hypervisor.path", problem));
    }
    match hypervisor.parameters().iter().flatten().next() {
        None => Ok(()),
        Some(parameter) => Err(SpecError::new(
            "vm.hypervisor.parameters[0]",
            format!("{parameter:?}: stockade-vmm takes no parameters; leave it out"),
        )),
    }
}

fn kernel(given: &VMKernel, config: &mut Config) -> Result<(), SpecError> {
    let allowed = &config.vm;
    let path = choose("vm.kernel.path", given.path(), &config.kernel, &allowed.kernels, "kernels")?;
    let initrd = given.initrd().as_deref().unwrap_or_default();
    let initramfs =
        choose("vm.kernel.initrd", Path::new(initrd), &config.initramfs, &allowed.initrds, "initrds")?;
    let mut parameters = config.kernel_parameters.clone();
    for (index, parameter) in given.parameters().iter().flatten().enumerate() {
        check_parameter(parameter, &allowed.kernel_parameters)
            .map_err(|problem| SpecError::new(format!("vm.kernel.parameters[{index}]"), problem))?;
        if !parameters.is_empty() {
            parameters.push(' ');
        }
        parameters.push_str(parameter);
    }
    (config.kernel, config.initramfs, config.kernel_parameters) = (path, initramfs, parameters);
    Ok(())
}

/// The file to use: the installation's, or one that is allowed.
fn choose(
    property: &str,
    given: &Path,
    installed: &Path,
    allowed: &[PathBuf],
    key: &str,
) -> Result<PathBuf, SpecError> {
    if given.as_os_str().is_empty() || is_same(given, installed) {
        return Ok(installed.to_owned());
    }
    let error = |problem: String| SpecError::new(property, format!("{}: {problem}", given.display()));
    if !given.is_absolute() {
        return Err(error("is not an absolute path".to_owned()));
    }
    let refused = || {
        error(format!(
            "is not allowed; list it, or a directory that it is in, under `{key}` in the table [vm] of \
             /etc/stockade/config.toml"
        ))
    };
    // A file that may not be used is not looked for either.
    let Ok(real) = fs::canonicalize(given) else {
        let is_listed = allowed.iter().any(|entry| given.starts_with(entry));
        return Err(if is_listed { error("no such file".to_owned()) } else { refused() });
    };
    let is_allowed = |entry: &PathBuf| fs::canonicalize(entry).is_ok_and(|entry| real.starts_with(entry));
    if allowed.iter().any(is_allowed) { Ok(real) } else { Err(refused()) }
}

fn is_same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

/// Checks that a parameter is one word: a space or a quote in it could split it, or join it with others.
fn check_parameter(parameter: &str, allowed: &[String]) -> Result<(), String> {
    if parameter.is_empty() || !parameter.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
        return Err(format!("{parameter:?} is not one word of visible characters without quotes"));
    }
    let name = parameter.split('=').next().unwrap_or(parameter);
    // The kernel does not distinguish dashes from underscores.
    let same = |known: &String| known.replace('-', "_") == name.replace('-', "_");
    if allowed.iter().any(same) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not allowed; list it under `kernel_parameters` in the table [vm] of /etc/stockade/config.toml"
    ))
}

/// The VM's memory, in MiB.
fn memory(given: &HwConfig, config: &Config, limit: Option<u64>) -> Result<Option<u32>, SpecError> {
    let error = |name: &str, problem: String| SpecError::new(format!("vm.hwConfig.{name}"), problem);
    let host_parts = [
        ("deviceTree", given.device_tree.as_ref().is_some_and(|path| !path.is_empty())),
        ("dtdevs", !given.dtdevs.is_empty()),
        ("iomems", !given.iomems.is_empty()),
        ("irqs", !given.irqs.is_empty()),
    ];
    if let Some((name, _)) = host_parts.iter().find(|(_, given)| *given) {
        return Err(error(
            name,
            "a VM has no device tree and no part of the host's hardware; leave it out".to_owned(),
        ));
    }
    let Some(bytes) = given.memory.filter(|bytes| *bytes != 0) else { return Ok(None) };
    let Some(most) = config.vm.max_memory_mib else {
        let problem = "is not allowed; set `max_memory_mib` in the table [vm] of /etc/stockade/config.toml";
        return Err(error("memory", problem.to_owned()));
    };
    let mib = bytes.div_ceil(MIB);
    match u32::try_from(mib) {
        Ok(mib) if (MIN_MIB..=most.into()).contains(&mib.into()) => {
            match limit.filter(|limit| *limit > u64::from(mib) * MIB) {
                None => Ok(Some(mib)),
                Some(limit) => Err(error(
                    "memory",
                    format!("{bytes} bytes are less than linux.resources.memory.limit, {limit}"),
                )),
            }
        }
        _ => Err(error(
            "memory",
            format!("{bytes} bytes are not between {MIN_MIB} MiB and the configuration's {most} MiB"),
        )),
    }
}

#[cfg(test)]
#[path = "vm_test.rs"]
mod tests;

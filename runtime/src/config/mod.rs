//! The configuration: where the VMM, the guest's kernel and its initramfs are, and what an administrator has decided
//! about VMs.
//!
//! A checkout has them below `target/`, an installation below its prefix; `/etc/stockade/config.toml` overrides both.

pub mod annotations;
mod pattern;
pub mod scratch;
pub mod selinux;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stockade_protocol::vmm::MAX_VCPUS;

use annotations::TO_BE_ALLOWED;
use scratch::Scratch;
use selinux::Selinux;

use crate::sys::process;

pub use pattern::Pattern;

/// The configuration file, unless `STOCKADE_CONFIG` names another.
const DEFAULT_PATH: &str = "/etc/stockade/config.toml";

/// Environment variable that names another configuration file.
pub const PATH_VARIABLE: &str = "STOCKADE_CONFIG";

/// Guest RAM of a container without a memory limit, in MiB.
pub const DEFAULT_MEMORY_MIB: u32 = 2048;

/// Smallest RAM with which a guest boots, in MiB.
pub const MIN_MIB: u64 = 128;

/// Least memory for templates, in MiB: one of the smallest fits.
const LEAST_TEMPLATE_MEMORY_MIB: u32 = 32;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The file is not valid.
    #[error("configuration {path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        problem: String,
    },
    /// The path of this program is unknown.
    #[error("cannot find out where stockade itself is installed: {0}")]
    Self_(io::Error),
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `stockade-vmm`.
    pub vmm: PathBuf,
    /// The guest's kernel, an uncompressed ELF.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// Parameters that are appended to the guest kernel's command line.
    pub kernel_parameters: String,
    /// Guest RAM of a container without a memory limit, in MiB.
    pub memory_mib: u32,
    /// Largest number of CPUs of a VM; `None` for as many as the host has.
    pub max_vcpus: Option<u8>,
    /// What `stockade shell` runs in guests, a static executable of the host; without it, `stockade shell` is refused.
    pub debug_shell: Option<PathBuf>,
    /// The host's sockets that containers may be connected to.
    pub host_sockets: Vec<Pattern>,
    /// Whether two VMs are kept from running on the threads of one core at the same time.
    pub core_scheduling: bool,
    /// The annotations of stockade's own that count although they ask for more than a container has by default.
    pub allowed_annotations: Vec<String>,
    /// Compiled policies of AppArmor: files, or directories with such files.
    pub apparmor_policies: Vec<PathBuf>,
    /// The SELinux policy of guests; without it, guests run without SELinux.
    pub selinux: Option<Selinux>,
    /// The disks of containers that last as long as they do.
    pub scratch: Scratch,
    /// The users that VMMs run as.
    pub vmm_users: VmmUsers,
    /// Whether VMs begin as clones of templates, and who makes those.
    pub templates: Templates,
    /// The sizes for which there are templates, in MiB. Where it is empty, `stockade template build` makes one for a container
    /// without a limit, and starts have those made that they could have used.
    pub template_classes_mib: Vec<u32>,
    /// Most of the host's memory that templates take, in MiB; `None` for a part of what the host has.
    pub template_memory_mib: Option<u32>,
    /// What a bundle may ask of its VM.
    pub vm: AllowedVm,
}

/// Whether VMs begin as clones of templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Templates {
    /// A VM begins as a clone if there is a template for it; if there is none, a start has it made for the next VM.
    #[default]
    On,
    /// A VM begins as a clone if `stockade template build` has made a template for it.
    Prebuilt,
    /// Every VM boots.
    Off,
}

/// A range of user and group IDs that nobody else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VmmUsers {
    /// The first ID.
    pub first: u32,
    /// The number of IDs, at least one.
    pub count: u32,
}

impl Default for VmmUsers {
    fn default() -> Self {
        Self { first: 2_000_000_000, count: 65_536 }
    }
}

impl VmmUsers {
    /// The last ID.
    pub fn last(self) -> u32 {
        self.first + (self.count - 1)
    }

    fn check(self) -> Result<(), String> {
        // 2^32 - 1 stands for no ID.
        let end = u64::from(self.first) + u64::from(self.count);
        if self.first == 0 || self.count == 0 || end > u64::from(u32::MAX) {
            return Err(format!(
                "vmm_users: {} IDs from {} on are not a range of valid IDs other than root's",
                self.count, self.first
            ));
        }
        Ok(())
    }
}

/// The table `[vm]`: what a bundle's `vm` section may ask for. Without the table, it may ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedVm {
    /// Kernels, or directories with kernels.
    pub kernels: Vec<PathBuf>,
    /// Initramfs files, or directories with such files.
    pub initrds: Vec<PathBuf>,
    /// Names of kernel parameters.
    pub kernel_parameters: Vec<String>,
    /// Largest memory of a VM, in MiB.
    pub max_memory_mib: Option<u32>,
    /// Largest number of CPUs of a VM.
    pub max_vcpus: Option<u8>,
}

/// The file's content. Every key may be absent.
#[derive(Debug, Default, Deserialize)]
struct File {
    vmm: Option<PathBuf>,
    kernel: Option<PathBuf>,
    initramfs: Option<PathBuf>,
    kernel_parameters: Option<String>,
    memory_mib: Option<u32>,
    max_vcpus: Option<u8>,
    debug_shell: Option<PathBuf>,
    #[serde(default)]
    host_sockets: Vec<Pattern>,
    #[serde(default)]
    core_scheduling: bool,
    #[serde(default)]
    allowed_annotations: Vec<String>,
    #[serde(default)]
    apparmor_policies: Vec<PathBuf>,
    selinux: Option<Selinux>,
    #[serde(default)]
    scratch: Scratch,
    #[serde(default)]
    vmm_users: VmmUsers,
    #[serde(default)]
    templates: Templates,
    #[serde(default)]
    template_classes_mib: Vec<u32>,
    template_memory_mib: Option<u32>,
    vm: Option<AllowedVm>,
}

/// The keys of [`File`].
const KEYS: [&str; 18] = [
    "vmm",
    "kernel",
    "initramfs",
    "kernel_parameters",
    "memory_mib",
    "max_vcpus",
    "debug_shell",
    "host_sockets",
    "core_scheduling",
    "allowed_annotations",
    "apparmor_policies",
    "selinux",
    "scratch",
    "vmm_users",
    "templates",
    "template_classes_mib",
    "template_memory_mib",
    "vm",
];

/// The keys of [`VmmUsers`].
const USER_KEYS: [&str; 2] = ["first", "count"];

/// The keys of [`AllowedVm`].
const VM_KEYS: [&str; 5] = ["kernels", "initrds", "kernel_parameters", "max_memory_mib", "max_vcpus"];

/// The path of the configuration file, whether or not the file exists.
pub fn path() -> PathBuf {
    env::var_os(PATH_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from)
}

impl Config {
    /// The configuration of this installation.
    ///
    /// # Errors
    /// When the file is not readable or says something that is not understood.
    pub fn load() -> Result<Self, ConfigError> {
        let named = env::var_os(PATH_VARIABLE);
        let path = path();
        let file = match fs::read_to_string(&path) {
            Ok(text) => {
                parse(&text).map_err(|problem| ConfigError::Invalid { path: path.clone(), problem })?
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && named.is_none() => File::default(),
            Err(cause) => return Err(ConfigError::Read { path, cause }),
        };
        let program = process::program().map_err(ConfigError::Self_)?;
        Ok(Self::resolve(file, &program, Path::exists))
    }

    fn resolve(file: File, program: &Path, exists: impl Fn(&Path) -> bool) -> Self {
        let directory = program.parent().unwrap_or(Path::new("/"));
        let prefix = directory.parent().unwrap_or(Path::new("/"));
        let beside = directory.join("stockade-vmm");
        let installed = prefix.join("libexec/stockade/stockade-vmm");
        // In a checkout the program is target/PROFILE/stockade or target/TRIPLE/PROFILE/stockade.
        let guest = if exists(&beside) && !exists(&installed) {
            directory
                .ancestors()
                .skip(1)
                .take(2)
                .map(|target| target.join("guest"))
                .find(|guest| exists(guest))
                .unwrap_or_else(|| prefix.join("guest"))
        } else {
            prefix.join("share/stockade")
        };
        let vmm = if exists(&beside) && !exists(&installed) { beside } else { installed };
        let mut kernel_parameters = file.kernel_parameters.unwrap_or_default();
        if file.selinux.is_some() {
            kernel_parameters = selinux::with_selinux(&kernel_parameters);
        }
        Self {
            vmm: file.vmm.unwrap_or(vmm),
            kernel: file.kernel.unwrap_or_else(|| guest.join("vmlinux")),
            initramfs: file.initramfs.unwrap_or_else(|| guest.join("initramfs")),
            kernel_parameters,
            memory_mib: file.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            max_vcpus: file.max_vcpus,
            debug_shell: file.debug_shell,
            host_sockets: file.host_sockets,
            core_scheduling: file.core_scheduling,
            allowed_annotations: file.allowed_annotations,
            apparmor_policies: file.apparmor_policies,
            selinux: file.selinux,
            scratch: file.scratch,
            vmm_users: file.vmm_users,
            templates: file.templates,
            template_classes_mib: file.template_classes_mib,
            template_memory_mib: file.template_memory_mib,
            vm: file.vm.unwrap_or_default(),
        }
    }
}

fn parse(text: &str) -> Result<File, String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| on_one_line(&e))?;
    check_keys(&table, "", &KEYS)?;
    if let Some(users) = table.get("vmm_users").and_then(toml::Value::as_table) {
        check_keys(users, "vmm_users.", &USER_KEYS)?;
    }
    if let Some(selinux) = table.get("selinux").and_then(toml::Value::as_table) {
        check_keys(selinux, "selinux.", &selinux::KEYS)?;
    }
    if let Some(scratch) = table.get("scratch").and_then(toml::Value::as_table) {
        check_keys(scratch, "scratch.", &scratch::KEYS)?;
    }
    if let Some(vm) = table.get("vm").and_then(toml::Value::as_table) {
        check_keys(vm, "vm.", &VM_KEYS)?;
    }
    let file: File = table.try_into().map_err(|e: toml::de::Error| on_one_line(&e))?;
    if file.memory_mib.is_some_and(|mib| u64::from(mib) < MIN_MIB) {
        return Err(format!("memory_mib must be at least {MIN_MIB}"));
    }
    if file.template_classes_mib.iter().any(|mib| u64::from(*mib) < MIN_MIB) {
        return Err(format!("template_classes_mib must be at least {MIN_MIB} each"));
    }
    if file.template_memory_mib.is_some_and(|mib| mib < LEAST_TEMPLATE_MEMORY_MIB) {
        return Err(format!("template_memory_mib must be at least {LEAST_TEMPLATE_MEMORY_MIB}"));
    }
    check_vcpus("max_vcpus", file.max_vcpus)?;
    file.vmm_users.check()?;
    if file.debug_shell.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err("debug_shell must be an absolute path".to_owned());
    }
    if let Some(unknown) = file.allowed_annotations.iter().find(|name| !TO_BE_ALLOWED.contains(&&***name)) {
        let near = nearest(unknown, &TO_BE_ALLOWED).unwrap_or_default();
        return Err(format!("allowed_annotations: unknown annotation `{unknown}`; did you mean `{near}`?"));
    }
    if let Some(path) = file.apparmor_policies.iter().find(|path| !path.is_absolute()) {
        return Err(format!("apparmor_policies: {} must be an absolute path", path.display()));
    }
    file.selinux.as_ref().map_or(Ok(()), Selinux::check)?;
    file.scratch.check()?;
    if let Some(vm) = &file.vm {
        let relative = vm.kernels.iter().chain(&vm.initrds).find(|path| !path.is_absolute());
        if let Some(path) = relative {
            return Err(format!("vm: {} must be an absolute path", path.display()));
        }
        if vm.max_memory_mib.is_some_and(|mib| u64::from(mib) < MIN_MIB) {
            return Err(format!("vm.max_memory_mib must be at least {MIN_MIB}"));
        }
        check_vcpus("vm.max_vcpus", vm.max_vcpus)?;
    }
    Ok(file)
}

fn check_vcpus(key: &str, value: Option<u8>) -> Result<(), String> {
    match value {
        Some(count) if !(1..=MAX_VCPUS).contains(&count) => {
            Err(format!("{key} must be between 1 and {MAX_VCPUS}"))
        }
        _ => Ok(()),
    }
}

fn check_keys(table: &toml::Table, prefix: &str, known: &[&'static str]) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(match nearest(key, known) {
            Some(near) => format!("unknown key `{prefix}{key}`; did you mean `{prefix}{near}`?"),
            None => format!("unknown key `{prefix}{key}`"),
        }),
    }
}

fn on_one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

/// The known key that is most similar to `key`, by number of edits.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    known.iter().copied().min_by_key(|known| edits(key, known))
}

/// Levenshtein's distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;

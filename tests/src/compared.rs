//! What the self-check (`tests/selfcheck`) compares: the properties of config.json that a process in the container sees.

/// Patterns of JSON paths: any index is `[]`, and an entry stands for all that is below it too.
pub const COMPARED: &[&str] = &[
    "domainname",
    "hostname",
    "linux.devices",
    "linux.gidMappings",
    "linux.maskedPaths",
    "linux.memoryPolicy.flags",
    "linux.memoryPolicy.mode",
    "linux.memoryPolicy.nodes",
    "linux.namespaces",
    "linux.personality.domain",
    "linux.readonlyPaths",
    "linux.resources.blockIO.weight",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.period",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.shares",
    "linux.resources.devices",
    "linux.resources.hugepageLimits",
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swap",
    "linux.resources.pids.limit",
    "linux.resources.unified",
    "linux.rootfsPropagation",
    "linux.seccomp.architectures",
    "linux.seccomp.defaultAction",
    "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.syscalls",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.uidMappings",
    "mounts[].destination",
    "mounts[].options",
    "mounts[].source",
    "mounts[].type",
    "process.args",
    "process.capabilities.ambient",
    "process.capabilities.bounding",
    "process.capabilities.effective",
    "process.capabilities.inheritable",
    "process.capabilities.permitted",
    "process.consoleSize",
    "process.cwd",
    "process.env",
    "process.execCPUAffinity.final",
    "process.ioPriority",
    "process.noNewPrivileges",
    "process.oomScoreAdj",
    "process.rlimits",
    "process.scheduler",
    "process.terminal",
    "process.user.additionalGids",
    "process.user.gid",
    "process.user.uid",
    "process.user.umask",
    "root.readonly",
];

/// The entry of [`COMPARED`] that a path or a pattern falls under.
pub fn entry(path: &str) -> Option<&'static str> {
    let pattern = pattern(path);
    COMPARED.iter().copied().find(|entry| {
        pattern
            .strip_prefix(entry)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    })
}

/// A path with every index or key in brackets left out: `mounts[3].type` is `mounts[].type`.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut inside = false;
    for character in path.chars() {
        inside = inside && character != ']';
        if !inside {
            pattern.push(character);
        }
        inside = inside || character == '[';
    }
    pattern
}

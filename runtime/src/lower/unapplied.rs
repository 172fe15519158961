//! What config.json may ask for and no part of stockade applies yet. Each is named in a warning: a property is applied,
//! refused, or warned about, never passed over in silence.

use oci_spec::runtime::{Linux, Process, Spec};

/// One sentence that names all of them, if there are any.
pub fn warnings(spec: &Spec) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    if let Some(process) = spec.process() {
        names.extend(of_process(process));
    }
    if let Some(linux) = spec.linux() {
        names.extend(of_linux(linux));
    }
    let top = [
        ("vm", spec.vm().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    names.extend(top.into_iter().filter_map(|(name, asked)| asked.then_some(name)));
    sentence(&names)
}

/// The same of a process alone.
pub fn process_warnings(process: &Process) -> Vec<String> {
    sentence(&of_process(process).collect::<Vec<_>>())
}

fn sentence(names: &[&str]) -> Vec<String> {
    if names.is_empty() { Vec::new() } else { vec![format!("not applied yet: {}", names.join(", "))] }
}

fn of_process(process: &Process) -> impl Iterator<Item = &'static str> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    [
        ("process.apparmorProfile", given(process.apparmor_profile())),
        ("process.selinuxLabel", given(process.selinux_label())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ]
    .into_iter()
    .filter_map(|(name, asked)| asked.then_some(name))
}

fn of_linux(linux: &Linux) -> impl Iterator<Item = &'static str> {
    [
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
    ]
    .into_iter()
    .filter_map(|(name, asked)| asked.then_some(name))
}

//! `process.capabilities`: names to bits.

use oci_spec::runtime::{Capabilities as Names, Capability, LinuxCapabilities};
use stockade_protocol::container::Capabilities;

/// All capabilities, in the kernel's order: bit n is the n-th (linux/capability.h).
pub const NAMES: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The five sets as bits. A capability can be ambient only if it is inheritable and permitted too: the others are left
/// out, with a warning, as runc does.
pub fn lower(sets: &LinuxCapabilities, warnings: &mut Vec<String>) -> Capabilities {
    let (inheritable, permitted) = (bits(sets.inheritable()), bits(sets.permitted()));
    let ambient = bits(sets.ambient());
    let possible = ambient & inheritable & permitted;
    if possible != ambient {
        let names: Vec<String> = names(ambient & !possible).collect();
        warnings.push(format!(
            "process.capabilities.ambient: ignored capabilities that are not both inheritable and permitted: {}",
            names.join(", ")
        ));
    }
    Capabilities {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        inheritable,
        permitted,
        ambient: possible,
    }
}

fn names(bits: u64) -> impl Iterator<Item = String> {
    NAMES.iter().enumerate().filter(move |(n, _)| bits & 1 << n != 0).map(|(_, name)| format!("CAP_{name}"))
}

fn bits(names: &Option<Names>) -> u64 {
    let Some(names) = names else { return 0 };
    NAMES.iter().enumerate().filter(|(_, name)| names.contains(name)).fold(0, |bits, (n, _)| bits | 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_ambient_is_left_out_and_named() {
        let both = Some(Names::from([Capability::Chown, Capability::Kill]));
        let mut sets = LinuxCapabilities::default();
        sets.set_permitted(both.clone()).set_ambient(both);
        sets.set_inheritable(Some(Names::from([Capability::Kill])));
        let mut warnings = Vec::new();
        assert_eq!(lower(&sets, &mut warnings).ambient, 1 << 5);
        assert!(warnings[0].ends_with(": CAP_CHOWN"), "{warnings:?}");
    }

    #[test]
    fn bits_are_the_kernels() {
        let one = |capability| bits(&Some(Names::from([capability])));
        assert_eq!(one(Capability::Chown), 1);
        assert_eq!(one(Capability::SysAdmin), 1 << 21);
        assert_eq!(one(Capability::CheckpointRestore), 1 << 40);
        assert_eq!(bits(&None), 0);
    }
}

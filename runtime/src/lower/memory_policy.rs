//! `linux.memoryPolicy`: names to the numbers of linux/mempolicy.h.

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};
use stockade_protocol::container::MemoryPolicy;

use super::number_list;
use crate::oci::bundle::SpecError;

/// Every mode with its number.
pub const MODES: [(Mode, u32); 7] = [
    (Mode::MpolDefault, 0),
    (Mode::MpolPreferred, 1),
    (Mode::MpolBind, 2),
    (Mode::MpolInterleave, 3),
    (Mode::MpolLocal, 4),
    (Mode::MpolPreferredMany, 5),
    (Mode::MpolWeightedInterleave, 6),
];

/// Every flag with its bit.
pub const FLAGS: [(Flag, u32); 3] = [
    (Flag::MpolFNumaBalancing, 1 << 13),
    (Flag::MpolFRelativeNodes, 1 << 14),
    (Flag::MpolFStaticNodes, 1 << 15),
];

/// The policy as set_mempolicy(2) takes it.
///
/// # Errors
/// Nodes or flags that the mode does not allow.
pub fn lower(linux: Option<&Linux>) -> Result<Option<MemoryPolicy>, SpecError> {
    linux.and_then(|linux| linux.memory_policy().as_ref()).map(policy).transpose()
}

fn policy(given: &LinuxMemoryPolicy) -> Result<MemoryPolicy, SpecError> {
    let error = |name: &str, problem: String| SpecError::new(format!("linux.memoryPolicy.{name}"), problem);
    let mode = given.mode();
    let list = given.nodes().as_deref().unwrap_or_default();
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if !list.is_empty() => {
            return Err(error("nodes", format!("{mode} takes no nodes, but {list:?} is given")));
        }
        // Without a node, MPOL_PREFERRED prefers the CPU's own.
        Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => {}
        _ if list.is_empty() => return Err(error("nodes", format!("{mode} needs nodes, such as \"0\""))),
        _ => {}
    }
    let nodes = match list {
        "" => Vec::new(),
        list => number_list::parse(list).map_err(|problem| error("nodes", problem))?,
    };
    let flags: &[Flag] = given.flags().as_deref().unwrap_or_default();
    let has = |flag| flags.contains(&flag);
    if let Some(flag) = flags.first().filter(|_| nodes.is_empty()) {
        return Err(error("flags", format!("{flag} needs nodes")));
    }
    if has(Flag::MpolFRelativeNodes) && has(Flag::MpolFStaticNodes) {
        let problem = "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES cannot be combined".to_owned();
        return Err(error("flags", problem));
    }
    if has(Flag::MpolFNumaBalancing) && !matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany) {
        let problem = format!("MPOL_F_NUMA_BALANCING cannot be combined with {mode}; use MPOL_BIND");
        return Err(error("flags", problem));
    }
    let number = MODES.iter().find(|(known, _)| *known == mode).map_or(0, |(_, number)| *number);
    let bits = FLAGS.iter().filter(|(flag, _)| has(*flag)).fold(0, |bits, (_, bit)| bits | bit);
    Ok(MemoryPolicy { mode: number | bits, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(json: &str) -> Result<MemoryPolicy, SpecError> {
        policy(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn numbers_are_the_kernels() {
        let bind = lowered(r#"{"mode":"MPOL_BIND","nodes":"0,2","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!(bind, MemoryPolicy { mode: 0x8002, nodes: vec![5] });
        let local = lowered(r#"{"mode":"MPOL_LOCAL"}"#).unwrap();
        assert_eq!(local, MemoryPolicy { mode: 4, nodes: vec![] });
    }

    #[test]
    fn mistakes_are_named() {
        for (json, name) in [
            (r#"{"mode":"MPOL_BIND"}"#, "nodes"),
            (r#"{"mode":"MPOL_DEFAULT","nodes":"0"}"#, "nodes"),
            (r#"{"mode":"MPOL_INTERLEAVE","nodes":"x"}"#, "nodes"),
            (r#"{"mode":"MPOL_PREFERRED","flags":["MPOL_F_STATIC_NODES"]}"#, "flags"),
            (r#"{"mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#, "flags"),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "flags",
            ),
        ] {
            assert_eq!(lowered(json).unwrap_err().path, format!("linux.memoryPolicy.{name}"), "{json}");
        }
    }
}

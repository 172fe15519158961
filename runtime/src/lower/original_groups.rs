//! `run.oci.keep_original_groups`, podman's `--group-add keep-groups`: the process has its caller's supplementary groups.
//!
//! The annotation comes from crun. In a pod it has no effect, because the pod's author could write it and get the
//! engine's groups.

use nix::unistd::getgroups;
use stockade_protocol::container::Process;

use crate::state::role::{Annotations, Engine};

const ANNOTATION: &str = "run.oci.keep_original_groups";

/// Adds the caller's groups, if that is asked for.
pub fn keep(
    annotations: Option<&Annotations>,
    has_user_namespace: bool,
    process: &mut Process,
    warnings: &mut Vec<String>,
) {
    if !annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "1" || value == "true") {
        return;
    }
    // Not by the role: CRI-O lets the author write one there that is none.
    if Engine::of(annotations).is_some() {
        warnings
            .push(format!("annotations[{ANNOTATION:?}] has no effect in a pod, whose author could write it"));
        return;
    }
    if has_user_namespace {
        warnings.push(format!(
            "annotations[{ANNOTATION:?}] has no effect where the container has its own user namespace"
        ));
        return;
    }
    let own: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
    add(&own, process, warnings);
}

/// The ID that the kernel shows for a group that is not mapped in this user namespace.
const OVERFLOW: u32 = 65_534;

fn add(own: &[u32], process: &mut Process, warnings: &mut Vec<String>) {
    let (mapped, other): (Vec<_>, Vec<_>) = own.iter().copied().partition(|gid| *gid != OVERFLOW);
    if !other.is_empty() {
        warnings.push(format!(
            "annotations[{ANNOTATION:?}]: {} of the caller's groups have no number in the container, and its \
             file server is in none of them: they give the container no access",
            other.len()
        ));
    }
    let groups = &mut process.user.additional_gids;
    for gid in mapped {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::process;

    #[test]
    fn those_that_have_a_number_are_added_and_the_others_named() {
        let spec = serde_json::from_value(serde_json::json!({
            "args": ["a"], "cwd": "/", "user": { "uid": 1, "gid": 1, "additionalGids": [5] },
        }));
        let spec: oci_spec::runtime::Process = spec.unwrap();
        let mut lowered = process::lower(Some(&spec), &mut Vec::new()).unwrap();
        let mut warnings = Vec::new();
        add(&[5, 10, OVERFLOW, OVERFLOW], &mut lowered, &mut warnings);
        assert_eq!(lowered.user.additional_gids, [5, 10]);
        assert!(warnings[0].contains("2 of the caller's groups"), "{warnings:?}");

        // A pod's author gets none, whatever he says that the container is.
        for role in ["sandbox", "container", "neither"] {
            let pod: Annotations = [(ANNOTATION, "1"), ("io.kubernetes.cri-o.ContainerType", role)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
            warnings.clear();
            keep(Some(&pod), false, &mut lowered, &mut warnings);
            assert!(warnings.concat().contains("no effect in a pod"), "{role}: {warnings:?}");
        }
        assert_eq!(lowered.user.additional_gids, [5, 10]);
    }
}

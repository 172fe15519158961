//! `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`.
//!
//! The guest applies an AppArmor profile whose compiled policy is at hand ([`super::apparmor`]). Engines ask for a
//! profile wherever the *host* has AppArmor. So a profile that cannot be applied is refused only if the annotation
//! [`ANNOTATION`] requires that: the profile is meant to protect the host's kernel, which the container does not use.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use stockade_protocol::settings::Confinement;

use super::apparmor;
use crate::config::selinux::is_label;
use crate::oci::bundle::SpecError;

/// The annotation that decides about labels that cannot be applied: `require` makes them an error; `warn`, the default,
/// a warning.
pub const ANNOTATION: &str = "io.stockade.security-labels";

/// JSON path of the AppArmor profile.
const APPARMOR: &str = "process.apparmorProfile";

/// Why a label is not applied.
const NO_POLICY: &str = "its compiled policy is neither in a file of apparmor_policies in /etc/stockade/config.toml nor exported by the \
                         host's kernel";
const NO_SELINUX: &str =
    "the guest's kernel has no SELinux policy ([selinux] in /etc/stockade/config.toml names one)";

/// JSON path of the labels of SELinux.
const PROCESS_LABEL: &str = "process.selinuxLabel";
const MOUNT_LABEL: &str = "linux.mountLabel";

/// The policies that are at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policies<'a> {
    /// The files and directories with compiled policies of AppArmor.
    pub apparmor: &'a [PathBuf],
    /// What the VM has of SELinux.
    pub selinux: Selinux<'a>,
}

/// What a container's VM has of SELinux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selinux<'a> {
    /// Nothing.
    #[default]
    Absent,
    /// It will have a policy, and its shared files this container's label.
    Own,
    /// It has a policy, and its shared files this label; it is empty if they have what the policy says.
    Pod(&'a str),
}

impl<'a> Selinux<'a> {
    /// What the VM of a record has.
    pub fn of_record(label: Option<&'a str>) -> Self {
        label.map_or(Self::Absent, Self::Pod)
    }
}

/// What the guest's security modules apply to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// What the guest is told.
    pub confinement: Confinement,
    /// Whether it is an error if the guest cannot apply it.
    pub required: bool,
}

impl Labels {
    fn new(required: bool) -> Self {
        let confinement = Confinement {
            apparmor_profile: None,
            apparmor_policy: None,
            selinux_label: None,
            mount_label: None,
        };
        Self { confinement, required }
    }

    /// The warning for what the guest cannot apply, for this reason.
    ///
    /// # Errors
    /// If the annotation requires it.
    pub fn refused(&self, why: &str) -> Result<String, SpecError> {
        let Confinement { apparmor_profile, selinux_label, mount_label, .. } = &self.confinement;
        let asked =
            [(APPARMOR, apparmor_profile), (PROCESS_LABEL, selinux_label), (MOUNT_LABEL, mount_label)];
        let (property, value) = asked
            .iter()
            .find_map(|(property, value)| Some((*property, value.as_deref()?)))
            .unwrap_or_default();
        let problem = format!("{value:?} cannot be applied: {why}");
        match self.required {
            true => Err(SpecError::new(
                property,
                format!("{problem}, and the annotation {ANNOTATION} requires it"),
            )),
            false => Ok(format!("{property}: {problem}; the VM confines the container")),
        }
    }
}

/// The labels of a container's init. Warns about those that cannot be applied, or refuses them.
///
/// # Errors
/// A label, where the annotation requires it; an annotation that is not understood.
pub fn lower(
    spec: &Spec,
    policies: Policies<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Labels>, SpecError> {
    let annotations = spec.annotations().as_ref();
    let labels = match spec.process() {
        Some(process) => lower_process(process, annotations, policies, warnings)?,
        None => None,
    };
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let required = required(annotations)?;
    let Some(label) = selinux(MOUNT_LABEL, label, policies, required, warnings)? else { return Ok(labels) };
    match policies.selinux {
        Selinux::Pod(shares) if shares != label => {
            let why = match shares {
                "" => {
                    "the pod's sandbox has none, and all files that its VM shares with the host have one label"
                }
                _ => "all files that its VM shares with the host have the label of the pod's sandbox",
            };
            settle(MOUNT_LABEL, Some(label), why, required, warnings)?;
        }
        _ => {}
    }
    let mut labels = labels.unwrap_or_else(|| Labels::new(required));
    labels.confinement.mount_label = Some(label.to_owned());
    Ok(Some(labels))
}

/// As [`lower`], for a single process in a container with these annotations.
///
/// # Errors
/// As [`lower`].
pub fn lower_process(
    process: &Process,
    annotations: Option<&HashMap<String, String>>,
    policies: Policies<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Labels>, SpecError> {
    let required = required(annotations)?;
    let is_profile = |profile: &&str| !profile.is_empty() && *profile != "unconfined";
    let profile = process.apparmor_profile().as_deref().filter(is_profile);
    let policy = profile.and_then(|profile| apparmor::policy(profile, policies.apparmor));
    if policy.is_none() {
        settle(APPARMOR, profile, NO_POLICY, required, warnings)?;
    }
    let label = process.selinux_label().as_deref();
    let label = selinux(PROCESS_LABEL, label, policies, required, warnings)?;
    if policy.is_none() && label.is_none() {
        return Ok(None);
    }
    let mut labels = Labels::new(required);
    labels.confinement.apparmor_profile = profile.filter(|_| policy.is_some()).map(str::to_owned);
    labels.confinement.apparmor_policy = policy;
    labels.confinement.selinux_label = label.map(str::to_owned);
    Ok(Some(labels))
}

/// The label of the processes that stand for a container on a host with SELinux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLabel {
    /// The label.
    pub label: String,
    required: bool,
}

impl HostLabel {
    /// The warning for a relay that keeps its creator's label.
    ///
    /// # Errors
    /// If the annotation requires the label.
    pub fn refused(&self) -> Result<String, SpecError> {
        let why = "the host's policy does not let the container's process on the host, which executes no program, change \
                   to it";
        let mut warnings = Vec::new();
        settle(PROCESS_LABEL, Some(&self.label), why, self.required, &mut warnings)?;
        Ok(warnings.concat())
    }
}

/// The label on the host, which has SELinux or not.
///
/// # Errors
/// An annotation that is not understood.
pub fn of_host(
    process: Option<&Process>,
    annotations: Option<&HashMap<String, String>>,
) -> Result<Option<HostLabel>, SpecError> {
    let required = required(annotations)?;
    let label = process.and_then(|process| process.selinux_label().clone());
    Ok(label.filter(|label| is_label(label)).map(|label| HostLabel { label, required }))
}

/// A label, if the guest can apply it.
fn selinux<'a>(
    property: &str,
    label: Option<&'a str>,
    policies: Policies<'_>,
    required: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<&'a str>, SpecError> {
    let label = label.filter(|label| !label.is_empty());
    if policies.selinux == Selinux::Absent {
        settle(property, label, NO_SELINUX, required, warnings)?;
        return Ok(None);
    }
    match label.filter(|label| !is_label(label)) {
        Some(label) => {
            Err(SpecError::new(property, format!("{label:?} is not a label (USER:ROLE:TYPE[:LEVEL])")))
        }
        None => Ok(label),
    }
}

/// Whether what cannot be applied is an error.
fn required(annotations: Option<&HashMap<String, String>>) -> Result<bool, SpecError> {
    match annotations.and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str) {
        None | Some("warn") => Ok(false),
        Some("require") => Ok(true),
        Some(other) => {
            let problem = format!("{other:?} is neither \"warn\" nor \"require\"");
            Err(SpecError::new(format!("annotations[{ANNOTATION:?}]"), problem))
        }
    }
}

fn settle(
    property: &str,
    label: Option<&str>,
    why: &str,
    required: bool,
    warnings: &mut Vec<String>,
) -> Result<(), SpecError> {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(()) };
    let problem = format!("{label:?} cannot be applied: {why}");
    if required {
        let problem = format!("{problem}, and the annotation {ANNOTATION} requires it");
        return Err(SpecError::new(property, problem));
    }
    warnings.push(format!("{property}: {problem}; the VM confines the container"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(annotation: Option<&str>, profile: &str) -> Result<Vec<String>, SpecError> {
        let mut process = Process::default();
        process.set_apparmor_profile(Some(profile.to_owned()));
        let annotations = annotation.map(|value| HashMap::from([(ANNOTATION.to_owned(), value.to_owned())]));
        let mut warnings = Vec::new();
        assert_eq!(lower_process(&process, annotations.as_ref(), Policies::default(), &mut warnings)?, None);
        Ok(warnings)
    }

    #[test]
    fn a_profile_is_warned_about_unless_it_is_required() {
        for annotation in [None, Some("warn")] {
            let warnings = checked(annotation, "docker-default").unwrap();
            assert!(warnings[0].starts_with("process.apparmorProfile: \"docker-default\""), "{warnings:?}");
        }
        assert_eq!(checked(Some("require"), "docker-default").unwrap_err().path, "process.apparmorProfile");
        assert_eq!(checked(Some("x"), "").unwrap_err().path, format!("annotations[{ANNOTATION:?}]"));
    }

    #[test]
    fn nothing_is_asked_by_an_unconfined_profile() {
        for profile in ["", "unconfined"] {
            assert_eq!(checked(Some("require"), profile), Ok(Vec::new()));
        }
    }

    #[test]
    fn labels_of_selinux_are_applied_where_the_vm_has_a_policy() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let lowered = |selinux: Selinux<'_>, label: &str, annotation: &str| {
            let spec = serde_json::from_value(serde_json::json!({
                "ociVersion": "1.0.0", "annotations": { ANNOTATION: annotation },
                "process": { "args": ["a"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "selinuxLabel": label },
                "linux": { "mountLabel": label },
            }));
            let mut warnings = Vec::new();
            let policies = Policies { selinux, ..Policies::default() };
            let labels = lower(&spec.unwrap(), policies, &mut warnings)?;
            Ok((labels.map(|labels| labels.confinement), warnings.len()))
        };
        let applied = Labels::new(false);
        let applied = Confinement {
            selinux_label: Some(label.to_owned()),
            mount_label: Some(label.to_owned()),
            ..applied.confinement
        };
        assert_eq!(lowered(Selinux::Own, label, "require"), Ok((Some(applied.clone()), 0)));
        assert_eq!(lowered(Selinux::Pod(label), label, "require"), Ok((Some(applied.clone()), 0)));
        // All shared files of a VM have one label, whatever a member asks for.
        for shares in ["", "system_u:object_r:container_file_t:s0:c3,c4"] {
            assert_eq!(lowered(Selinux::Pod(shares), label, "warn"), Ok((Some(applied.clone()), 1)));
            let refused: SpecError = lowered(Selinux::Pod(shares), label, "require").unwrap_err();
            assert_eq!(refused.path, MOUNT_LABEL);
        }
        assert_eq!(lowered(Selinux::Absent, label, "warn"), Ok((None, 2)));
        // What would end the quotes of a mount option is not a label.
        assert_eq!(lowered(Selinux::Own, "a:b:c\",size=9g,x=\"", "warn").unwrap_err().path, PROCESS_LABEL);
    }
}

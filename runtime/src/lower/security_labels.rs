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
use crate::oci::bundle::SpecError;

/// The annotation that decides about labels that cannot be applied: `require` makes them an error; `warn`, the default,
/// a warning.
pub const ANNOTATION: &str = "io.stockade.security-labels";

/// JSON path of the AppArmor profile.
const APPARMOR: &str = "process.apparmorProfile";

/// Why a label is not applied.
const NO_POLICY: &str = "its compiled policy is neither in a file of apparmor_policies in /etc/stockade/config.toml nor exported by the \
                         host's kernel";
const NO_SELINUX: &str = "the guest's kernel has no SELinux policy";

/// What the guest's security modules apply to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// What the guest is told.
    pub confinement: Confinement,
    /// Whether it is an error if the guest cannot apply it.
    pub required: bool,
}

impl Labels {
    /// The warning for a profile that the guest cannot apply, for this reason.
    ///
    /// # Errors
    /// If the annotation requires the profile.
    pub fn refused(&self, why: &str) -> Result<String, SpecError> {
        let profile = self.confinement.apparmor_profile.as_deref().unwrap_or_default();
        let problem = format!("{profile:?} cannot be applied: {why}");
        match self.required {
            true => Err(SpecError::new(
                APPARMOR,
                format!("{problem}, and the annotation {ANNOTATION} requires it"),
            )),
            false => Ok(format!("{APPARMOR}: {problem}; the VM confines the container")),
        }
    }
}

/// The labels of a container's init. Warns about those that cannot be applied, or refuses them.
///
/// # Errors
/// A label, where the annotation requires it; an annotation that is not understood.
pub fn lower(
    spec: &Spec,
    policies: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<Option<Labels>, SpecError> {
    let annotations = spec.annotations().as_ref();
    let labels = match spec.process() {
        Some(process) => lower_process(process, annotations, policies, warnings)?,
        None => None,
    };
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    settle("linux.mountLabel", label, NO_SELINUX, required(annotations)?, warnings)?;
    Ok(labels)
}

/// As [`lower`], for a single process in a container with these annotations.
///
/// # Errors
/// As [`lower`].
pub fn lower_process(
    process: &Process,
    annotations: Option<&HashMap<String, String>>,
    policies: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<Option<Labels>, SpecError> {
    let required = required(annotations)?;
    let is_profile = |profile: &&str| !profile.is_empty() && *profile != "unconfined";
    let profile = process.apparmor_profile().as_deref().filter(is_profile);
    let policy = profile.and_then(|profile| apparmor::policy(profile, policies));
    if policy.is_none() {
        settle(APPARMOR, profile, NO_POLICY, required, warnings)?;
    }
    settle("process.selinuxLabel", process.selinux_label().as_deref(), NO_SELINUX, required, warnings)?;
    let confinement = policy.map(|policy| Confinement {
        apparmor_profile: profile.map(str::to_owned),
        apparmor_policy: Some(policy),
    });
    Ok(confinement.map(|confinement| Labels { confinement, required }))
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
        assert_eq!(lower_process(&process, annotations.as_ref(), &[], &mut warnings)?, None);
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
}

//! `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`: the guest's kernel has neither AppArmor nor
//! SELinux.
//!
//! Engines ask for a profile wherever the *host* has AppArmor, so it is not refused unless the caller insists, by the
//! annotation [`ANNOTATION`]: what the profile is to protect is another kernel here.

use std::collections::HashMap;

use oci_spec::runtime::{Process, Spec};

use crate::oci::bundle::SpecError;

/// `require` makes an error of what is otherwise a warning; `warn` is the default.
pub const ANNOTATION: &str = "io.stockade.security-labels";

/// Warns about the labels of a container, or refuses them.
///
/// # Errors
/// A label, where the annotation requires it; an annotation that is not understood.
pub fn check(spec: &Spec, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    let annotations = spec.annotations().as_ref();
    if let Some(process) = spec.process() {
        check_process(process, annotations, warnings)?;
    }
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    settle("linux.mountLabel", label, "SELinux", annotations, warnings)
}

/// The same of a process alone, in a container with these annotations.
///
/// # Errors
/// As [`check`].
pub fn check_process(
    process: &Process,
    annotations: Option<&HashMap<String, String>>,
    warnings: &mut Vec<String>,
) -> Result<(), SpecError> {
    let profile = process.apparmor_profile().as_deref().filter(|profile| *profile != "unconfined");
    settle("process.apparmorProfile", profile, "AppArmor", annotations, warnings)?;
    let label = process.selinux_label().as_deref();
    settle("process.selinuxLabel", label, "SELinux", annotations, warnings)
}

fn settle(
    property: &str,
    label: Option<&str>,
    module: &str,
    annotations: Option<&HashMap<String, String>>,
    warnings: &mut Vec<String>,
) -> Result<(), SpecError> {
    let required = match annotations.and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str) {
        None | Some("warn") => false,
        Some("require") => true,
        Some(other) => {
            let problem = format!("{other:?} is neither \"warn\" nor \"require\"");
            return Err(SpecError::new(format!("annotations[{ANNOTATION:?}]"), problem));
        }
    };
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(()) };
    let problem = format!("{label:?} cannot be applied: the guest's kernel has no {module}");
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
        check_process(&process, annotations.as_ref(), &mut warnings)?;
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

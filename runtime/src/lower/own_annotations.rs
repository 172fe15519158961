//! stockade's own annotations, `io.stockade.*`, which the author of a pod may write.
//!
//! An annotation that asks for more than a container has without it counts only if the administrator lists it
//! (`allowed_annotations` in /etc/stockade/config.toml); otherwise the log names it, and nothing else happens. An
//! annotation that can only make the runtime stricter always counts.

use super::security_labels;
use crate::config::annotations::TO_BE_ALLOWED;
use crate::state::role::Annotations;

/// The annotations that always count.
const STRICT: [&str; 1] = [security_labels::ANNOTATION];

/// The prefix of all these annotations.
const PREFIX: &str = "io.stockade.";

/// stockade's own annotations that count. For each that does not, a warning is added to `warnings`.
pub fn counting(
    annotations: Option<&Annotations>,
    allowed: &[String],
    warnings: &mut Vec<String>,
) -> Annotations {
    let own = annotations.into_iter().flatten().filter(|(name, _)| name.starts_with(PREFIX));
    let (counting, other): (Vec<_>, Vec<_>) =
        own.partition(|(name, _)| STRICT.contains(&&***name) || allowed.contains(name));
    let mut other: Vec<_> = other.into_iter().map(|(name, _)| name).collect();
    other.sort();
    warnings.extend(other.into_iter().map(|name| match TO_BE_ALLOWED.contains(&&**name) {
        true => format!(
            "annotations[{name:?}] has no effect: /etc/stockade/config.toml does not list it in allowed_annotations"
        ),
        false => format!("annotations[{name:?}] has no effect: there is no such annotation"),
    }));
    counting.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::annotations::{NETWORK, PUBLISH};

    #[test]
    fn what_is_not_listed_is_named_and_does_not_count() {
        let given: Annotations = [
            (NETWORK, "user"),
            (PUBLISH, "80"),
            (security_labels::ANNOTATION, "require"),
            ("io.stockade.privileged", "true"),
            ("io.kubernetes.cri.container-type", "sandbox"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut warnings = Vec::new();
        let counted = counting(Some(&given), &[NETWORK.to_owned()], &mut warnings);
        let mut names: Vec<_> = counted.keys().map(String::as_str).collect();
        names.sort();
        assert_eq!(names, [NETWORK, security_labels::ANNOTATION]);
        assert!(warnings[0].contains(PUBLISH) && warnings[0].contains("allowed_annotations"));
        assert!(warnings[1].contains("io.stockade.privileged") && warnings[1].contains("no such annotation"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(counting(None, &[], &mut warnings).is_empty());
    }
}

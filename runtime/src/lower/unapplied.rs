//! What config.json may ask for and no part of stockade applies. Each is named in a warning: a property is applied,
//! refused, or warned about, never passed over in silence.

use oci_spec::runtime::Spec;

/// One sentence that names all of them, if there are any.
pub fn warnings(spec: &Spec) -> Vec<String> {
    let parts = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    let names: Vec<&str> = parts.into_iter().filter_map(|(name, asked)| asked.then_some(name)).collect();
    if names.is_empty() { Vec::new() } else { vec![format!("not applied: {}", names.join(", "))] }
}

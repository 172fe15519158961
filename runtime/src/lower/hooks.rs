//! `hooks`: checks them and sorts them by the step at which they run.

use oci_spec::runtime::{Hook as SpecHook, Spec};

use super::absolute;
use crate::oci::bundle::SpecError;
use crate::oci::hooks::{Hook, Hooks};

/// The steps that have hooks, as config.json calls them, in their order.
pub const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The hooks of a container.
///
/// # Errors
/// A [`SpecError`] that names the hook.
pub fn lower(spec: &Spec) -> Result<Hooks, SpecError> {
    let Some(hooks) = spec.hooks() else { return Ok(Hooks::default()) };
    let [prestart, create_runtime, create_container, start_container, poststart, poststop] = STAGES;
    // Deprecated, but engines still use it.
    let mut on_host = list(hooks.prestart().as_deref(), prestart)?;
    on_host.extend(list(hooks.create_runtime().as_deref(), create_runtime)?);
    Ok(Hooks {
        create_runtime: on_host,
        create_container: list(hooks.create_container().as_deref(), create_container)?,
        start_container: list(hooks.start_container().as_deref(), start_container)?,
        poststart: list(hooks.poststart().as_deref(), poststart)?,
        poststop: list(hooks.poststop().as_deref(), poststop)?,
    })
}

fn list(hooks: Option<&[SpecHook]>, stage: &str) -> Result<Vec<Hook>, SpecError> {
    let hooks = hooks.unwrap_or_default().iter().enumerate();
    hooks.map(|(index, hook)| one(hook, format!("hooks.{stage}[{index}]"))).collect()
}

fn one(hook: &SpecHook, property: String) -> Result<Hook, SpecError> {
    let path = absolute(hook.path(), &format!("{property}.path"))?;
    let timeout_s = match hook.timeout().map(u32::try_from) {
        None => None,
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => {
            return Err(SpecError::new(
                format!("{property}.timeout"),
                "is not a number of seconds greater than 0",
            ));
        }
    };
    let strings = |strings: &Option<Vec<String>>, name: &str| {
        let strings = strings.clone().unwrap_or_default();
        match strings.iter().position(|string| string.contains('\0')) {
            Some(index) => Err(SpecError::new(format!("{property}.{name}[{index}]"), "contains a NUL byte")),
            None => Ok(strings),
        }
    };
    let env = strings(hook.env(), "env")?;
    if let Some(index) = env.iter().position(|entry| !entry.contains('=')) {
        return Err(SpecError::new(format!("{property}.env[{index}]"), "is not of the form NAME=value"));
    }
    Ok(Hook { path, args: strings(hook.args(), "args")?, env, timeout_s, property })
}

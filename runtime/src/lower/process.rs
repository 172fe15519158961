//! `process`: program, environment, working directory, credentials.

use std::collections::HashSet;

use oci_spec::runtime::Process as Spec;
use stockade_protocol::container::WindowSize;
use stockade_protocol::container::{Process, User};

use super::{absolute, capabilities, rlimits, scheduling};
use crate::oci::bundle::SpecError;

/// The container's init.
///
/// # Errors
/// A [`SpecError`] that names the property.
pub fn lower(process: Option<&Spec>, warnings: &mut Vec<String>) -> Result<Process, SpecError> {
    let process = process.ok_or_else(|| SpecError::new("process", "is missing"))?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(SpecError::new("process.args", "must name a program"));
    }
    strings(&args, "process.args")?;
    if process.cwd().as_os_str().is_empty() {
        return Err(SpecError::new("process.cwd", "is missing or empty"));
    }
    let oom_score_adj = process.oom_score_adj();
    if oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(SpecError::new("process.oomScoreAdj", "must be between -1000 and 1000"));
    }
    Ok(Process {
        args,
        env: environment(process)?,
        cwd: absolute(process.cwd(), "process.cwd")?,
        user: user(process)?,
        // Without a list there are no capabilities, as with other runtimes.
        capabilities: Some(
            process
                .capabilities()
                .as_ref()
                .map(|sets| capabilities::lower(sets, warnings))
                .unwrap_or_default(),
        ),
        rlimits: rlimits::lower(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj,
        terminal: process.terminal().unwrap_or(false).then(|| window(process)),
        streams: Vec::new(),
        scheduling: scheduling::lower(process)?,
    })
}

/// The environment with each variable once, as it was set last: programs differ in which of two they use.
fn environment(process: &Spec) -> Result<Vec<String>, SpecError> {
    let given = process.env().as_deref().unwrap_or_default();
    strings(given, "process.env")?;
    let mut env: Vec<String> = Vec::with_capacity(given.len());
    let mut names = HashSet::new();
    for (index, entry) in given.iter().enumerate().rev() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(SpecError::new(
                format!("process.env[{index}]"),
                format!("{entry:?} is not NAME=value"),
            ));
        };
        if names.insert(name) {
            env.push(entry.clone());
        }
    }
    env.reverse();
    Ok(env)
}

fn strings(strings: &[String], property: &str) -> Result<(), SpecError> {
    match strings.iter().position(|text| text.contains('\0')) {
        None => Ok(()),
        Some(index) => Err(SpecError::new(format!("{property}[{index}]"), "contains a NUL character")),
    }
}

fn user(process: &Spec) -> Result<User, SpecError> {
    let user = process.user();
    let additional_gids = user.additional_gids().clone().unwrap_or_default();
    // -1 means "leave unchanged" to setresuid(2) and can be nobody's ID.
    let nobody = |(id, _): &(u32, &str)| *id == u32::MAX;
    let ids = [(user.uid(), "process.user.uid"), (user.gid(), "process.user.gid")].into_iter();
    let more = additional_gids.iter().map(|gid| (*gid, "process.user.additionalGids"));
    if let Some((id, property)) = ids.chain(more).find(nobody) {
        return Err(SpecError::new(property, format!("{id} is not a valid ID")));
    }
    if user.umask().is_some_and(|umask| umask > 0o777) {
        return Err(SpecError::new("process.user.umask", "must be at most 0777 (octal)"));
    }
    Ok(User { uid: user.uid(), gid: user.gid(), umask: user.umask(), additional_gids })
}

fn window(process: &Spec) -> WindowSize {
    let Some(size) = process.console_size() else { return WindowSize::default() };
    // TIOCSWINSZ takes 16 bits.
    let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    WindowSize { rows: cells(size.height()), columns: cells(size.width()) }
}

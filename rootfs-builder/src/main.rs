//! Builds the initramfs of stockade's guest: the agent and the directories that it mounts on.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

mod initramfs;

const USAGE: &str = "usage: stockade-rootfs-builder --agent PATH --output PATH";

fn main() -> ExitCode {
    match run(env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stockade-rootfs-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = OsString>) -> Result<()> {
    let (agent, output) = parse(args)?;
    let agent = fs::read(&agent).with_context(|| format!("cannot read the agent {}", agent.display()))?;
    let archive = initramfs::build(&agent)?;
    replace(&output, &archive).with_context(|| format!("cannot write {}", output.display()))
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<(PathBuf, PathBuf)> {
    let (mut agent, mut output) = (None, None);
    while let Some(flag) = args.next() {
        let target = match flag.to_str() {
            Some("--agent") => &mut agent,
            Some("--output") => &mut output,
            _ => bail!("unknown argument {flag:?}\n{USAGE}"),
        };
        let value = args.next().with_context(|| format!("{} needs a path\n{USAGE}", flag.display()))?;
        *target = Some(PathBuf::from(value));
    }
    match (agent, output) {
        (Some(agent), Some(output)) => Ok((agent, output)),
        _ => bail!("{USAGE}"),
    }
}

/// Puts `bytes` at `path` by rename: running VMs map the old file, so it must keep its content.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.to_path_buf().into_os_string();
    partial.push(format!(".{}", std::process::id()));
    let written = fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The first error is the one to report; what is left of the file is of no use.
        let _ = fs::remove_file(&partial);
    }
    Ok(written?)
}

#[cfg(test)]
#[path = "main_test.rs"]
mod tests;

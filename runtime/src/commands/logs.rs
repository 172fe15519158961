//! `stockade logs`: what the guest's kernel and its agent have written to their console.

use std::io::{self, Write};
use std::os::fd::AsFd;

use clap::Args;

use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::{ContainerError, Root};
use crate::text::table;
use crate::vm::{Control, call};

/// Print the console of a container's guest.
#[derive(Debug, Args)]
#[command(after_help = "By default the guest's kernel prints little; kernel_parameters = \"loglevel=7\" in \
/etc/stockade/config.toml makes it print more.
The container's output is not here, but where its stdout and stderr lead.

Examples:
  stockade logs mine")]
pub struct Logs {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Logs {
    /// Prints the console of the running VM, or what a failed VM wrote last.
    ///
    /// # Errors
    /// [`ContainerError::DoesNotExist`], or that there is no console.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let id: ContainerId = self.id.parse()?;
        let directory = Root::new(globals.root.as_deref()).peek(&id)?;
        let record = directory.read()?.ok_or_else(|| ContainerError::DoesNotExist(id.to_string()))?;
        let console = match directory.console_log()? {
            last if !last.is_empty() => last,
            // For a member of a pod, this is the VM of its sandbox.
            _ => match Control::connect(directory.as_fd()) {
                Ok(mut vmm) => vmm.call(call::Console())?,
                Err(_) => return Err(no_console(&id, record.sandbox.as_deref())),
            },
        };
        Ok(io::stdout().write_all(printable(&console).as_bytes())?)
    }
}

fn no_console(id: &ContainerId, sandbox: Option<&str>) -> anyhow::Error {
    match sandbox {
        Some(sandbox) => anyhow::anyhow!(
            "the VM of container {id} has ended; `stockade logs {sandbox}` shows what its sandbox keeps"
        ),
        None => anyhow::anyhow!("the VM of container {id} has ended and has left no console log"),
    }
}

/// Makes the guest's bytes harmless for the terminal on which they are shown.
fn printable(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let lines =
        text.lines().map(|line| line.split('\t').map(table::printable).collect::<Vec<_>>().join("\t"));
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_guest_steers_the_terminal() {
        assert_eq!(printable(b"one\r\n\tt\x1b[2Jwo\xff\xc2\x9b\n"), "one\n\tt\\u{1b}[2Jwo\u{fffd}\\u{9b}\n");
    }
}

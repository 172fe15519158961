//! `stockade completion`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};

/// Print a shell's completion script.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade completion bash > /usr/share/bash-completion/completions/stockade
  stockade completion zsh > /usr/share/zsh/vendor-completions/_stockade
  stockade completion fish > /usr/share/fish/vendor_completions.d/stockade.fish")]
pub struct Completion {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells that there are scripts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    /// Prints the completion script of this command line.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn run(self, mut definition: clap::Command) -> anyhow::Result<()> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut definition, "stockade", &mut script);
        Ok(io::stdout().write_all(&script)?)
    }
}

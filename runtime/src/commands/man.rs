//! `stockade man`: manual pages from what `--help` shows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_mangen::roff::{Roff, roman};

/// Heading of the examples in help texts; in a manual page they are a section of their own.
const EXAMPLES: &str = "Examples:";

/// Write the manual pages.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade man --output /usr/local/share/man/man1")]
pub struct Man {
    /// Directory to write stockade.1 and stockade-COMMAND.1 to; it is made if it does not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Man {
    /// Writes the manual pages of this command line.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn run(self, mut root: Command) -> anyhow::Result<()> {
        fs::create_dir_all(&self.output).with_context(|| format!("cannot make {}", self.output.display()))?;
        root.build();
        let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
        [&root].into_iter().chain(commands).try_for_each(|command| write_page(command.clone(), &self.output))
    }
}

fn write_page(command: Command, directory: &Path) -> anyhow::Result<()> {
    let has_commands = command.has_subcommands();
    let rest = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let page = clap_mangen::Man::new(command).manual("stockade").source(crate::check::version::line());
    let mut text = Vec::new();
    page.render_title(&mut text)
        .and_then(|()| page.render_name_section(&mut text))
        .and_then(|()| page.render_synopsis_section(&mut text))
        .and_then(|()| page.render_description_section(&mut text))
        .and_then(|()| page.render_options_section(&mut text))
        .and_then(|()| if has_commands { page.render_subcommands_section(&mut text) } else { Ok(()) })
        .and_then(|()| render_rest(&rest, &mut text))?;
    let path = directory.join(page.get_filename());
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Renders the help text after the options: lines that begin with two spaces are examples, all others are notes.
fn render_rest(text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let (examples, notes): (Vec<&str>, Vec<&str>) =
        text.lines().filter(|line| *line != EXAMPLES).partition(|line| line.starts_with("  "));
    let mut roff = Roff::default();
    if notes.iter().any(|line| !line.is_empty()) {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(notes.join(" "))]);
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("EX", []);
        for line in examples {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("EE", []);
    }
    roff.to_writer(page)
}

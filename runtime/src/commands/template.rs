//! `stockade template`: the saved VMs from which other VMs start.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::config::Config;
use crate::text::{bytes, table};
use crate::vm::Launch;
use crate::vm::sizing;
use crate::vm::template::{self, Built, Entry, Store};

/// Make, list and remove the templates of booted VMs.
#[derive(Debug, Args)]
#[command(
    after_help = "A VM begins as a clone of a template that was made by the same stockade, with the same kernel and parameters, for
its size or, where its containers have limits, for the next power of two. Where there is no such template, the VM
boots. Templates are in the host's memory, below /run/stockade-templates, until the host boots again; only root can make them.

Examples:
  stockade template build
  stockade template build --class 512 --class 1024
  stockade template list"
)]
pub struct Template {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boot a VM of each class and save it
    Build(Build),
    /// List the templates
    List(List),
    /// Remove templates; VMs that were started from them go on
    Remove(Remove),
    /// Print what a template was made of
    Show(Show),
}

#[derive(Debug, Args)]
struct Build {
    /// Size of the VMs, in MiB; may be given several times. Without it, `template_classes_mib` of the configuration
    /// counts
    #[arg(long = "class", value_name = "MIB")]
    classes: Vec<u32>,
    /// Replace templates that exist already
    #[arg(long)]
    anew: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
struct Remove {
    /// Names of the templates
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// Remove all templates
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

#[derive(Debug, Args)]
struct Show {
    /// Name of the template
    #[arg(value_name = "NAME")]
    name: String,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Template {
    /// Executes the subcommand.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self) -> anyhow::Result<()> {
        let store = Store::of_host()?;
        let text = match self.action {
            Action::Build(build) => return build.run(&store),
            Action::List(list) => list.run(&store)?,
            Action::Remove(remove) => return remove.run(&store),
            Action::Show(show) => find(&store, &show.name)?.about,
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

impl Build {
    fn run(self, store: &Store) -> anyhow::Result<()> {
        let config = Config::load()?;
        for mib in classes(&config, self.classes) {
            let vcpus = config.max_vcpus.unwrap_or_else(sizing::host_cpus);
            let launch = Launch::prepare(&config)?.memory_mib(mib, sizing::most_mib()).vcpus(vcpus);
            let built = template::build(store, launch, self.anew)
                .with_context(|| format!("cannot make a template of {mib} MiB"))?;
            let line = match built {
                Built::Made(entry) => format!("{}: made, {}\n", entry.name, bytes::short(entry.bytes)),
                Built::Found(name) => format!("{name}: there already\n"),
            };
            io::stdout().write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

/// The sizes to make templates for.
fn classes(config: &Config, asked: Vec<u32>) -> Vec<u32> {
    let configured = [asked, config.template_classes_mib.clone(), vec![config.memory_mib]];
    configured.into_iter().find(|classes| !classes.is_empty()).unwrap_or_default()
}

impl List {
    fn run(&self, store: &Store) -> anyhow::Result<String> {
        let all = store.list()?;
        if self.format == Format::Json {
            let entry = |Entry { name, bytes, made, .. }: &Entry| serde_json::json!({ "name": name, "bytes": bytes, "made": made });
            return Ok(format!("{}\n", serde_json::Value::from(all.iter().map(entry).collect::<Vec<_>>())));
        }
        let heading = ["NAME", "MEMORY"].map(str::to_owned);
        let rows = all.iter().map(|entry| [entry.name.clone(), bytes::short(entry.bytes)]);
        Ok(table::align(&[heading].into_iter().chain(rows).collect::<Vec<_>>()))
    }
}

impl Remove {
    fn run(self, store: &Store) -> anyhow::Result<()> {
        let _lock = store.lock()?;
        let names = match self.all {
            true => store.list()?.into_iter().map(|entry| entry.name).collect(),
            false => self.names,
        };
        for name in names {
            let entry = find(store, &name)?;
            store.remove(&entry.name).with_context(|| format!("cannot remove the template {name}"))?;
        }
        Ok(())
    }
}

fn find(store: &Store, name: &str) -> anyhow::Result<Entry> {
    let found = store.list()?.into_iter().find(|entry| entry.name == name);
    found.with_context(|| {
        format!("there is no template {name:?}; `stockade template list` shows those that there are")
    })
}

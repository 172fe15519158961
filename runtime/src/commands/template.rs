//! `stockade template`: the saved VMs from which other VMs start.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::spec;
use crate::config::{Config, MIN_MIB};
use crate::life_cycle;
use crate::text::{bytes, table};
use crate::vm::Launch;
use crate::vm::sizing;
use crate::vm::template::{self, Built, Entry, Failure, Store, Wanted};

/// Make, list and remove templates: saved VMs from which other VMs start.
#[derive(Debug, Args)]
#[command(
    after_help = "A VM begins as a clone of a template that was made by the same stockade, with the same kernel and parameters, for
its size or, where its containers have limits, for the next power of two. Where there is no such template, the VM
boots, and the template is made in the background, unless the configuration says otherwise by its key `templates`.
Templates are in the host's memory, below /run/stockade-templates, until the host boots again; only root can make them.

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
    /// How many CPUs its VMs can have; without it as many as VMs without a quota
    #[arg(long, hide = true)]
    vcpus: Option<u8>,
    /// After a start: the name of the one template that is meant
    #[arg(long, hide = true, value_name = "NAME", conflicts_with = "anew", requires_all = ["vcpus", "classes"])]
    background: Option<String>,
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
        if let (Some(name), Some(vcpus), &[mib]) = (self.background, self.vcpus, &self.classes[..]) {
            if template::builder(store, &config, &Wanted { mib, vcpus, name })? {
                rehearse(store, &config, mib, vcpus)?;
            }
            return Ok(());
        }
        let most = sizing::most_mib();
        if let Some(mib) = self.classes.iter().find(|mib| u64::from(**mib) < MIN_MIB || **mib > most) {
            bail!("--class {mib}: a VM of this host has {MIN_MIB} to {most} MiB");
        }
        for mib in classes(&config, self.classes) {
            let vcpus = self.vcpus.or(config.max_vcpus).unwrap_or_else(sizing::host_cpus);
            let launch = Launch::prepare(&config)?.memory_mib(mib, sizing::most_mib()).vcpus(vcpus);
            let built = template::build(store, launch, self.anew, template::most_bytes(&config))
                .with_context(|| format!("cannot make a template of {mib} MiB"))?;
            if let Built::Made(entry) = &built
                && let Err(error) = rehearse(store, &config, mib, vcpus)
            {
                tracing::warn!("starts from {} take longer than they could: {error:#}", entry.name);
            }
            let line = match built {
                Built::Made(entry) => format!("{}: made, {}\n", entry.name, bytes::short(entry.bytes)),
                Built::Found(name) => format!("{name}: there already\n"),
            };
            io::stdout().write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

/// Learns to which pages of a template every start writes.
fn rehearse(store: &Store, config: &Config, mib: u32, vcpus: u8) -> anyhow::Result<()> {
    let launch = Launch::prepare(config)?.memory_mib(mib, sizing::most_mib()).vcpus(vcpus);
    life_cycle::rehearse(store, launch, mib, template::most_bytes(config), spec::DEFAULT)
        .context("no container could be started to learn to which pages every start writes")
}

/// The sizes to make templates for.
fn classes(config: &Config, asked: Vec<u32>) -> Vec<u32> {
    let configured = [asked, config.template_classes_mib.clone(), vec![config.memory_mib]];
    configured.into_iter().find(|classes| !classes.is_empty()).unwrap_or_default()
}

impl List {
    fn run(&self, store: &Store) -> anyhow::Result<String> {
        let (all, failures) = (store.list()?, store.failures()?);
        if self.format == Format::Json {
            let seconds =
                |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let made = all.iter().map(|Entry { name, bytes, made, used, .. }| {
                json!({
                    "name": name, "bytes": bytes, "made": seconds(*made), "used": seconds(*used),
                    "inUse": store.is_in_use(name),
                })
            });
            let failed = failures.iter().map(|Failure { name, reason, at }| {
                json!({ "name": name, "bytes": 0, "failed": reason, "at": seconds(*at) })
            });
            return Ok(format!("{}\n", Value::from_iter(made.chain(failed))));
        }
        let heading = ["NAME", "MEMORY", "LAST USE", ""].map(str::to_owned);
        let made = all.iter().map(|entry| {
            let used = if store.is_in_use(&entry.name) { "now".to_owned() } else { ago(entry.used) };
            [entry.name.clone(), bytes::short(entry.bytes), used, String::new()]
        });
        let failed = failures.iter().map(|Failure { name, reason, at }| {
            [name.clone(), "none".to_owned(), String::new(), format!("failed {}: {reason}", ago(*at))]
        });
        Ok(table::align(&[heading].into_iter().chain(made).chain(failed).collect::<Vec<_>>()))
    }
}

/// How long ago, in whole minutes.
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |age| age.as_secs());
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds / 60 * 60)))
        .replace("0s ago", "just now")
}

impl Remove {
    fn run(self, store: &Store) -> anyhow::Result<()> {
        let mut lock = store.lock()?;
        store.tidy(&mut lock)?;
        let names = match self.all {
            true => {
                for failure in store.failures()? {
                    store.forget_failure(&failure.name)?;
                }
                store.list()?.into_iter().map(|entry| entry.name).collect()
            }
            false => self.names,
        };
        for name in names {
            let entry = find(store, &name)?;
            store.remove(&entry.name).with_context(|| format!("cannot remove the template {name}"))?;
        }
        if store.list()?.is_empty() {
            template::Group::remove();
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

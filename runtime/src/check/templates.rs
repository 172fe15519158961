//! Whether VMs begin as clones of templates.

use super::Row;
use crate::config::{Config, Templates};
use crate::text::bytes;
use crate::vm::Launch;
use crate::vm::sizing;
use crate::vm::template::{Store, StoreError};

/// The check of the templates.
pub fn row(config: &Config) -> Row {
    const NAME: &str = "templates";
    const BUILD: &str = "make one with `stockade template build`: until then VMs boot";
    const SOON: &str = "the next start of a VM of that size has it made in the background";
    if config.templates == Templates::Off {
        return Row::ok(NAME, "off: every VM boots");
    }
    let store = match Store::of_host() {
        Ok(store) => store,
        Err(error @ StoreError::NotRoot) => return Row::ok(NAME, format!("{error}: every VM boots")),
        Err(error) => return Row::warning(NAME, error.to_string(), "until then every VM boots"),
    };
    let all = match store.list() {
        Ok(all) => all,
        Err(error) => return Row::warning(NAME, error.to_string(), "until then every VM boots"),
    };
    // Another row names the missing file.
    let Ok(launch) = Launch::prepare(config) else { return Row::ok(NAME, "not checked") };
    let vcpus = config.max_vcpus.unwrap_or_else(sizing::host_cpus);
    let launch = launch.memory_mib(config.memory_mib, sizing::most_mib()).vcpus(vcpus);
    let total = bytes::short(all.iter().map(|entry| entry.bytes).sum());
    match store.find(&launch.template_key()) {
        Some(_) => Row::ok(NAME, format!("{} in {total}, one of the default size", all.len())),
        None => {
            let found = match all.len() {
                0 => "none".to_owned(),
                number => format!("{number} in {total}, none of the default size and this build"),
            };
            match store.failure(&launch.template_key().name()) {
                Some(failure) => Row::warning(NAME, format!("{found}: {}", failure.reason), BUILD),
                None if launch.makes_templates(config.memory_mib) => {
                    Row::ok(NAME, format!("{found}: {SOON}"))
                }
                None => Row::warning(NAME, found, BUILD),
            }
        }
    }
}

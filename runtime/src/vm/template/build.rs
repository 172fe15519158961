//! Making a template: a VM boots, is saved, and its files are moved into place as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use anyhow::Context;

use super::{ABOUT, Entry, Files, NEW, RAM, STATE, Store, huge};
use crate::oci::container_id::ContainerId;
use crate::sys::signals;
use crate::vm::{Launch, Machine, Placement, SOCKETS};

/// Most that templates take of the host's memory, in bytes: the oldest go when there are more.
const MOST_BYTES: u64 = 1 << 30;

/// By what `ps` knows the VMM that makes a template.
const ID: &str = "template";

/// What has become of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// There is one now.
    Made(Entry),
    /// There was one.
    Found(String),
}

/// Makes the template of this VM, unless there is one and `anew` is not asked for. Only one is made at a time.
///
/// # Errors
/// What failed; there is none then, or the former one.
pub fn build(store: &Store, launch: Launch, anew: bool) -> anyhow::Result<Built> {
    let key = launch.template_key();
    let _lock = store.lock()?;
    if !anew && store.find(&key).is_some() {
        return Ok(Built::Found(key.name()));
    }
    let new = store.0.join(NEW);
    // What a builder has left that was killed.
    match fs::remove_dir_all(&new) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            return Err(cause).with_context(|| format!("cannot remove {}", new.display()));
        }
        _ => {}
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .with_context(|| format!("cannot make {}", new.display()))?;
    let finished = fill(store, launch, &key.about).and_then(|()| {
        let place = store.0.join(key.name());
        if let Err(cause) = fs::remove_dir_all(&place)
            && cause.kind() != io::ErrorKind::NotFound
        {
            return Err(cause).with_context(|| format!("cannot replace {}", place.display()));
        }
        fs::rename(&new, &place).with_context(|| format!("cannot move the template to {}", place.display()))
    });
    if let Err(error) = finished {
        // What is left is of no use to anybody, and the next builder removes it.
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    evict(store, &key.name())?;
    let made = store.list()?.into_iter().find(|entry| entry.name == key.name());
    Ok(Built::Made(made.context("the template that was made is gone")?))
}

/// Runs the VM and has it saved.
fn fill(store: &Store, launch: Launch, about: &str) -> anyhow::Result<()> {
    let new = store.0.join(NEW);
    let create = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(new.join(name)).with_context(|| format!("cannot make {}", new.join(name).display()))
    };
    let directory = File::open(&new)?;
    let files = Files { state: create(STATE)?, ram: create(RAM)?, directory: None };
    let interrupts = signals::block_all().context("cannot block signals")?;
    let id: ContainerId = ID.parse()?;
    let mut machine =
        launch.becoming(files).start(&id, directory.as_fd(), Placement::default(), |_| Ok(()))?;
    let saved = machine
        .watch_with(directory.as_fd(), interrupts)
        .context("cannot watch the VM")
        .and_then(|()| Ok(machine.saved()?));
    end(machine);
    saved.context("the VM that was to become a template")?;
    huge::gather(&File::open(new.join(RAM)).context("cannot open the template's RAM")?);
    for name in SOCKETS {
        let _ = fs::remove_file(new.join(name));
    }
    create(ABOUT)?.write_all(about.as_bytes()).context("cannot write what the template is of")
}

/// It ends by itself where it was saved.
fn end(machine: Machine) {
    machine.release().kill();
}

/// Removes the oldest while there are too many, but not this one.
fn evict(store: &Store, kept: &str) -> io::Result<()> {
    let all = store.list()?;
    let mut bytes: u64 = all.iter().map(|entry| entry.bytes).sum();
    for entry in all.iter().filter(|entry| entry.name != kept) {
        if bytes <= MOST_BYTES {
            break;
        }
        store.remove(&entry.name)?;
        bytes = bytes.saturating_sub(entry.bytes);
        tracing::debug!(
            "the template {} has been removed: there were more than {MOST_BYTES} bytes",
            entry.name
        );
    }
    Ok(())
}

//! Making a template: a VM boots, is saved, and its files are moved into place as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};

use anyhow::Context;
use stockade_sys::mount_api::{attr, new_file_system};

use super::group::Group;
use super::store::{ABOUT, Lock, NEW, RAM, STATE, link};
use super::{Entry, Files, Key, Store, huge};
use crate::oci::container_id::ContainerId;
use crate::sys::signals;
use crate::text::bytes;
use crate::vm::{Launch, Machine};

/// By what `ps` knows the VMM that makes a template.
const ID: &str = "template";

const MIB: u64 = 1 << 20;

/// What has become of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// There is one now.
    Made(Entry),
    /// There was one.
    Found(String),
}

/// Makes the template of this VM, unless there is one and `anew` is not asked for. Only one is made at a time. All together take
/// at most `most` bytes.
///
/// # Errors
/// What failed; there is none then, or the former one.
pub fn build(store: &Store, launch: Launch, anew: bool, most: u64) -> anyhow::Result<Built> {
    let mut lock = store.lock()?;
    build_locked(store, &mut lock, launch, anew, most)
}

/// The same for who has the lock. A failure is kept.
///
/// # Errors
/// As for [`build`](fn@build).
pub(super) fn build_locked(
    store: &Store,
    lock: &mut Lock,
    launch: Launch,
    anew: bool,
    most: u64,
) -> anyhow::Result<Built> {
    store.tidy(lock).context("cannot remove what an earlier builder has left")?;
    let key = launch.template_key();
    let name = key.name();
    if !anew && store.find(&key).is_some() {
        return Ok(Built::Found(name));
    }
    lock.is_building(&name)?;
    let made = make(store, launch, &key, most);
    match &made {
        Ok(()) => store.forget_failure(&name)?,
        Err(error) => store.note_failure(&name, &format!("{error:#}")),
    }
    lock.is_building("")?;
    made?;
    let made = store.list()?.into_iter().find(|entry| entry.name == name);
    Ok(Built::Made(made.context("the template that was made is gone")?))
}

/// About what a template of a guest with this much RAM takes, in bytes: its kernel, its agent, and a page descriptor for each page.
fn estimate(mib: u32) -> u64 {
    (24 + u64::from(mib) / 64) * MIB
}

fn make(store: &Store, launch: Launch, key: &Key, most: u64) -> anyhow::Result<()> {
    let room = |needed: u64| {
        let all = bytes::short(most);
        let left = most.checked_sub(needed).with_context(|| {
            format!("it takes {}, and template_memory_mib leaves all {all}", bytes::short(needed))
        })?;
        let full =
            || format!("there is no room for {} of {all}; raise template_memory_mib", bytes::short(needed));
        store.shrink_to(left).with_context(full)
    };
    room(estimate(key.mib))?;
    let files = run(store, launch, key.mib, most)?;
    let is = |file: &File| file.metadata().map(|meta| meta.blocks() * 512);
    room(is(&files.state)? + is(&files.ram)?)?;
    put(store, &files, key)
}

/// Runs the VM and has it saved. Its files have no name, and its sockets are in a file system of their own: whatever kills this
/// process, nothing is left of them.
fn run(store: &Store, launch: Launch, mib: u32, most: u64) -> anyhow::Result<Files> {
    let unnamed = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        options.open(&store.0).with_context(|| format!("cannot make a file in {}", store.0.display()))
    };
    let (state, ram) = (unnamed()?, unnamed()?);
    let files = Files { state: state.try_clone()?, ram: ram.try_clone()?, directory: None, hot: Vec::new() };
    let placement = Group::place(mib, most);
    let sockets: OwnedFd =
        new_file_system("tmpfs", "stockade", "mode=0700,size=1m", attr::NOSUID | attr::NODEV | attr::NOEXEC)
            .map_err(io::Error::from)
            .context("cannot make a file system for its sockets")?;
    let interrupts = signals::block_all().context("cannot block signals")?;
    let id: ContainerId = ID.parse()?;
    let mut machine = launch.becoming(files).start(&id, sockets.as_fd(), placement, |_| Ok(()))?;
    let saved = machine
        .watch_with(sockets.as_fd(), interrupts)
        .context("cannot watch the VM")
        .and_then(|()| Ok(machine.saved()?));
    end(machine);
    saved.context("the VM that was to become a template")?;
    huge::gather(&ram);
    Ok(Files { state, ram, directory: None, hot: Vec::new() })
}

/// It ends by itself where it was saved.
fn end(machine: Machine) {
    machine.release().kill();
}

/// Gives the files their names, all at once for who looks for them.
fn put(store: &Store, files: &Files, key: &Key) -> anyhow::Result<()> {
    let new = store.0.join(NEW);
    let place = store.0.join(key.name());
    let named = || -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&new)
            .with_context(|| format!("cannot make {}", new.display()))?;
        for (file, name) in [(&files.state, STATE), (&files.ram, RAM)] {
            link(file, &new.join(name))
                .with_context(|| format!("cannot make {}", new.join(name).display()))?;
        }
        let mut options = OpenOptions::new();
        let about = options.write(true).create_new(true).mode(0o600).open(new.join(ABOUT));
        about
            .and_then(|mut about| about.write_all(key.about.as_bytes()))
            .context("cannot write what the template is of")?;
        store.remove(&key.name()).with_context(|| format!("cannot replace {}", place.display()))?;
        fs::rename(&new, &place).with_context(|| format!("cannot move the template to {}", place.display()))
    };
    // What is left is of no use to anybody, and the next builder removes it.
    named().inspect_err(|_| drop(store.remove(NEW)))
}

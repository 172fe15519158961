//! binfmt_misc: how the host executes programs that its kernel cannot execute itself, for example those of another
//! architecture.
//!
//! A handler with the flag F has its interpreter open since it was registered, so that it works in every container. The guest gets
//! such an interpreter by its content, read-only; what it executes with it has the rights of the container.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use stockade_protocol::settings::Handler;
use stockade_sys::mount_api::{self, attr};

use super::Node;

/// The directory of the host's handlers.
const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// Largest number of handlers that are taken over: QEMU has about thirty.
const MAX_HANDLERS: usize = 64;

/// A handler as the host shows it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    name: String,
    interpreter: String,
    flags: String,
    /// How it recognises its files.
    by: By,
}

#[derive(Debug, PartialEq, Eq)]
enum By {
    Extension(String),
    Magic { offset: String, magic: String, mask: String },
}

impl Default for By {
    fn default() -> Self {
        Self::Extension(String::new())
    }
}

/// Adds the host's handlers to the node's settings.
pub fn read(share: &str, node: &mut Node) {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    let is_on = |file: &str, word: &str| {
        fs::read_to_string(Path::new(DIRECTORY).join(file)).is_ok_and(|text| text.starts_with(word))
    };
    if !is_on("status", "enabled") {
        return;
    }
    let mut names: Vec<_> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !["status", "register"].contains(&name.as_str()));
    // The kernel asks the one that was registered last, and lists that first; nothing else tells their order.
    if names.len() > MAX_HANDLERS {
        node.warnings.push(format!(
            "the guest gets only {MAX_HANDLERS} of the node's {} binfmt_misc handlers",
            names.len()
        ));
        names.truncate(MAX_HANDLERS);
    }
    for name in names.into_iter().rev() {
        let text = fs::read_to_string(Path::new(DIRECTORY).join(&name)).unwrap_or_default();
        let Some(handler) = parse(&name, &text) else { continue };
        let opened = handler.flags.contains('F').then(|| open(&handler.interpreter)).transpose();
        let tree = match opened {
            Ok(tree) => tree,
            Err(why) => {
                node.warnings.push(format!(
                    "the guest does not get the node's binfmt_misc handler {:?}: its interpreter {} {why}",
                    handler.name, handler.interpreter
                ));
                continue;
            }
        };
        let tree = tree.map(|tree| (format!("interpreter{}", node.trees.len()), tree));
        node.settings.handlers.push(Handler {
            line: handler.line(),
            name: handler.name,
            interpreter: handler.interpreter,
            share: tree.as_ref().map(|(name, _)| format!("{share}/{name}")),
        });
        node.trees.extend(tree);
    }
}

/// Opens an interpreter as a tree of the host. Whoever registered it may have meant another file at that path, in a
/// container for example; then there is usually no file at that path.
fn open(interpreter: &str) -> Result<OwnedFd, String> {
    let path = Path::new(interpreter);
    let is_program = fs::metadata(path)
        .map_err(|_| "is not at its path on the host".to_owned())
        .map(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)?;
    if !is_program || !path.is_absolute() {
        return Err("is not a program".to_owned());
    }
    mount_api::clone_tree_at(path, false, false)
        .and_then(|tree| {
            mount_api::restrict(&tree, attr::RDONLY | attr::NOSUID | attr::NODEV)?;
            Ok(tree)
        })
        .map_err(|errno| format!("cannot be shared: {errno}"))
}

/// Parses a handler; `None` if it is not enabled.
fn parse(name: &str, text: &str) -> Option<Found> {
    let mut lines = text.lines();
    lines.next().filter(|state| *state == "enabled")?;
    let mut handler = Found { name: name.to_owned(), ..Found::default() };
    let (mut offset, mut magic, mut mask) = (String::new(), None, String::new());
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "interpreter" => handler.interpreter = value.to_owned(),
            "flags:" => handler.flags = value.trim().to_owned(),
            "extension" => handler.by = By::Extension(value.trim_start_matches('.').to_owned()),
            "offset" => value.clone_into(&mut offset),
            "magic" => magic = Some(escaped(value)?),
            "mask" => mask = escaped(value)?,
            _ => {}
        }
    }
    if let Some(magic) = magic {
        handler.by = By::Magic { offset, magic, mask };
    }
    (!handler.interpreter.is_empty()).then_some(handler)
}

/// Bytes that the kernel shows as hexadecimal digits, in the form that `register` takes.
fn escaped(digits: &str) -> Option<String> {
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit()) && digits.len().is_multiple_of(2);
    let pairs = digits.as_bytes().chunks(2);
    is_hex.then(|| pairs.map(|pair| format!("\\x{}{}", char::from(pair[0]), char::from(pair[1]))).collect())
}

impl Found {
    /// The line for `register`; its separator is a byte that no path has.
    fn line(&self) -> String {
        const SEPARATOR: char = '\x01';
        let [kind, offset, magic, mask] = match &self.by {
            By::Extension(extension) => ["E", "", extension, ""],
            By::Magic { offset, magic, mask } => ["M", offset, magic, mask],
        };
        let fields = [&self.name, kind, offset, magic, mask, &self.interpreter, &self.flags];
        fields.iter().flat_map(|field| [SEPARATOR.to_string(), (*field).to_owned()]).collect()
    }
}

#[cfg(test)]
#[path = "handlers_test.rs"]
mod tests;

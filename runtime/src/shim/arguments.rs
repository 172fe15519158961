//! The shim's command line: the flags that containerd gives, in the form of Go's programs (`-id ID`, `--id ID`, `-id=ID`), and one
//! action.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the shim is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a shim for the bundle in the current directory, or find the one of its pod.
    Start,
    /// Remove what a shim that died has left of a container.
    Delete,
    /// Say which version this is.
    Version,
    /// Tell containerd what the runtime can do.
    Info,
}

/// The command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub action: Action,
    /// The container's ID.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's socket.
    pub address: String,
    /// The bundle; `start` is told it by the current directory.
    pub bundle: Option<PathBuf>,
    pub debug: bool,
}

impl Arguments {
    /// Parses what follows the program's name.
    ///
    /// # Errors
    /// One line that names the flag.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut parsed = Self {
            action: Action::Version,
            id: String::new(),
            namespace: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut action = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let word = word.into_string().map_err(|word| anyhow::anyhow!("{word:?} is not UTF-8"))?;
            let Some(flag) = word.strip_prefix('-').map(|flag| flag.strip_prefix('-').unwrap_or(flag)) else {
                action = Some(match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => {
                        anyhow::bail!("{word:?} is not an action of a shim; containerd gives start or delete")
                    }
                });
                continue;
            };
            let (flag, given) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (flag, None),
            };
            match flag {
                "v" | "version" => return Ok(parsed),
                "info" => return Ok(Self { action: Action::Info, ..parsed }),
                "debug" => {
                    parsed.debug = given.is_none_or(|value| value == "true");
                    continue;
                }
                _ => {}
            }
            let mut value = || -> anyhow::Result<String> {
                match given.clone() {
                    Some(value) => Ok(value),
                    None => match words.next().map(OsString::into_string) {
                        Some(Ok(value)) => Ok(value),
                        Some(Err(value)) => anyhow::bail!("-{flag}: {value:?} is not UTF-8"),
                        None => anyhow::bail!("-{flag} needs a value"),
                    },
                }
            };
            match flag {
                "id" => parsed.id = value()?,
                "namespace" => parsed.namespace = value()?,
                "address" => parsed.address = value()?,
                // The program by which shims publish that speak no ttrpc.
                "publish-binary" => drop(value()?),
                "bundle" => parsed.bundle = Some(value()?.into()),
                _ => anyhow::bail!("-{flag} is not a flag of this shim; it is for containerd to start"),
            }
        }
        parsed.action =
            action.ok_or_else(|| anyhow::anyhow!("no action; containerd gives start or delete"))?;
        for (flag, value) in [("id", &parsed.id), ("namespace", &parsed.namespace)] {
            if value.is_empty() {
                anyhow::bail!("-{flag} is missing");
            }
            // Both become parts of paths.
            if value.contains('/') || value == "." || value == ".." {
                anyhow::bail!("-{flag}: {value:?} cannot be a name of a file");
            }
        }
        Ok(parsed)
    }

    /// The command line of the shim that `start` leaves behind, as `ps` shows it.
    pub fn of_server(&self) -> Vec<String> {
        let flags = [("-namespace", &self.namespace), ("-id", &self.id), ("-address", &self.address)];
        let words = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.clone()]);
        [super::NAME.to_owned()].into_iter().chain(words).collect()
    }
}

#[cfg(test)]
#[path = "arguments_test.rs"]
mod tests;

//! What must hold after every attack: the host's commands end in time, nothing has changed that the guest may not write to, and
//! nothing is left of a container that is deleted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bundle;
use crate::cli::{Outcome, Stockade};
use crate::host::Snapshot;

/// Longest that a command on the host may take, whatever the guest does.
pub const LIMIT: Duration = Duration::from_secs(15);

/// What no guest may read: the guest looks for these words in every reply.
pub const SECRET: &str = "SECRET-OF-THE-HOST, which no guest may read\n";

/// The host before the attacks.
pub struct Oracle {
    snapshot: Snapshot,
    canary: TempDir,
    core_pattern: String,
    guarded: Vec<(PathBuf, Picture)>,
}

impl Oracle {
    /// As it is now, with files outside of everything that is shared.
    pub fn new() -> Self {
        let canary = bundle::directory();
        fs::write(canary.path().join("secret"), SECRET).expect("secret");
        fs::set_permissions(canary.path().join("secret"), fs::Permissions::from_mode(0o666)).expect("mode");
        fs::create_dir(canary.path().join("directory")).expect("directory");
        symlink("secret", canary.path().join("link")).expect("link");
        let mut oracle =
            Self { snapshot: Snapshot::take(), canary, core_pattern: core_pattern(), guarded: Vec::new() };
        let path = oracle.canary.path().to_owned();
        oracle.guard(&path);
        oracle
    }

    /// The file that nobody may read, and that anybody could write to who gets at it.
    pub fn secret(&self) -> PathBuf {
        self.canary.path().join("secret")
    }

    /// This tree is to stay as it is, too.
    pub fn guard(&mut self, tree: &Path) {
        self.guarded.push((tree.to_owned(), picture(tree)));
    }

    /// Nothing has changed that may not.
    #[track_caller]
    pub fn assert_untouched(&self) {
        for (tree, before) in &self.guarded {
            assert_eq!(&picture(tree), before, "{} has changed", tree.display());
        }
        assert_eq!(core_pattern(), self.core_pattern, "core_pattern has changed");
    }

    /// The commands that must not depend on a guest end in time, and `delete --force` succeeds. What `state` said before.
    #[track_caller]
    pub fn assert_commands_end(&self, stockade: &Stockade, id: &str) -> Outcome {
        let state = within(stockade, &["state", id], LIMIT);
        within(stockade, &["list"], LIMIT).success();
        within(stockade, &["kill", id, "KILL"], LIMIT);
        within(stockade, &["delete", "--force", id], LIMIT).success();
        self.assert_untouched();
        state
    }

    /// Nothing is left of what there was meanwhile.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.assert_untouched();
        self.snapshot.assert_same_now();
    }
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new()
    }
}

fn core_pattern() -> String {
    fs::read_to_string("/proc/sys/kernel/core_pattern").expect("core_pattern")
}

/// Runs a command that must end within this time.
#[track_caller]
pub fn within(stockade: &Stockade, args: &[&str], limit: Duration) -> Outcome {
    let mut command = stockade.command(args);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("stockade");
    let begun = Instant::now();
    let outcome = Outcome::wait_for(child, &format!("{args:?}"), limit);
    eprintln!("{args:?}: {} after {:.1} s", outcome.status, begun.elapsed().as_secs_f32());
    outcome
}

/// A tree as it is: for every path its mode, owner, size, time and content.
type Picture = BTreeMap<PathBuf, (u32, u32, u32, u64, i64, Vec<u8>)>;

fn picture(tree: &Path) -> Picture {
    let mut found = BTreeMap::new();
    look(tree, &mut found);
    found
}

fn look(path: &Path, found: &mut Picture) {
    let data = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = data.file_type();
    let content = if kind.is_file() {
        fs::read(path).expect("file")
    } else if kind.is_symlink() {
        fs::read_link(path).expect("link").into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    found.insert(path.to_owned(), (data.mode(), data.uid(), data.gid(), data.size(), data.mtime(), content));
    if kind.is_dir() {
        fs::read_dir(path).expect("directory").for_each(|entry| look(&entry.expect("entry").path(), found));
    }
}

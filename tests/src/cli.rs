//! The `stockade` binary, run as its callers run it.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Longest that one command may take before its test fails.
const LIMIT: Duration = Duration::from_secs(180);

/// A file of the checkout's `target` directory.
pub fn built(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join(path).canonicalize().unwrap_or_else(
        |e| {
            panic!("target/{path}: {e}; run `make` first");
        },
    )
}

/// `stockade` with a state directory of its own.
pub struct Stockade {
    root: TempDir,
    /// Which build it is: a directory below `target`.
    build: &'static str,
    /// Environment variables of every command.
    pub env: Vec<(String, String)>,
}

impl Default for Stockade {
    fn default() -> Self {
        Self::new()
    }
}

impl Stockade {
    /// A state directory in a temporary directory. No start has a template made: what a test finds on the host would depend on how
    /// long that takes.
    pub fn new() -> Self {
        Self::with_config("")
    }

    fn without_config() -> Self {
        let root = tempfile::Builder::new().prefix("state-").tempdir().expect("temporary directory");
        std::fs::create_dir(root.path().join("run")).expect("state directory");
        Self { root, build: "release", env: Vec::new() }
    }

    /// With a configuration file of this text instead of the system's. Where it says nothing of templates, those that there are may be
    /// used.
    pub fn with_config(text: &str) -> Self {
        let mut stockade = Self::without_config();
        let file = stockade.root.path().join("config.toml");
        let templates = if text.contains("templates") { "" } else { "templates = \"prebuilt\"\n" };
        std::fs::write(&file, format!("{templates}{text}")).expect("write config.toml");
        stockade.env.push(("STOCKADE_CONFIG".into(), file.display().to_string()));
        stockade
    }

    /// The same of another build than the release.
    #[must_use]
    pub fn of_build(self, build: &'static str) -> Self {
        Self { build, ..self }
    }

    /// The state directory: `--root`.
    pub fn root(&self) -> PathBuf {
        self.root.path().join("run")
    }

    /// A command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built(&format!("{}/stockade", self.build)));
        command.arg("--root").arg(self.root()).args(args).envs(self.env.iter().cloned());
        command
    }

    /// Runs a command to its end with an empty standard input.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// `run --bundle B ID`.
    pub fn run_bundle(&self, bundle: &crate::bundle::Bundle, id: &str) -> Outcome {
        self.run(&["run", "--bundle", text(bundle.path()), id])
    }

    /// `create --bundle B --pid-file F ID` with null stdio; the relay's PID.
    pub fn create(&self, bundle: &crate::bundle::Bundle, id: &str) -> i32 {
        let pid_file = bundle.path().join("pid");
        let mut command =
            self.command(&["create", "--bundle", text(bundle.path()), "--pid-file", text(&pid_file), id]);
        // Inherited output would keep the pipes open for as long as the container lives.
        let log = bundle.path().join("create.log");
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("log"))
            .status()
            .expect("stockade create");
        assert!(status.success(), "create: {status}: {}", std::fs::read_to_string(log).unwrap_or_default());
        std::fs::read_to_string(pid_file).expect("pid file").trim().parse().expect("pid")
    }

    /// `state ID`, which must succeed.
    pub fn state(&self, id: &str) -> Value {
        let outcome = self.run(&["state", id]).success();
        serde_json::from_str(&outcome.stdout).expect("state prints JSON")
    }

    /// `.status` of `state ID`.
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("status").to_owned()
    }

    /// The VMM's PID on the host.
    pub fn vmm_pid(&self, relay: i32) -> i32 {
        crate::host::pids_named("stockade-vmm")
            .into_iter()
            .find(|&pid| crate::host::cgroup_of(pid) == crate::host::cgroup_of(relay))
            .expect("a stockade-vmm in the container's cgroup")
    }
}

/// A path as the string that it is.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; 128+n after signal n.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end, feeding it `input`.
    pub fn of(command: &mut Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A program that does not read its input breaks the pipe: that is its right.
        thread::spawn(move || drop(stdin.write_all(&input)));
        Self::wait(child, &format!("{command:?}"))
    }

    /// Waits for a child whose output is piped; fails the test after [`LIMIT`].
    pub fn wait(child: Child, name: &str) -> Self {
        Self::wait_for(child, name, LIMIT)
    }

    /// As [`wait`](Self::wait), for children that need longer.
    pub fn wait_for(mut child: Child, name: &str, limit: Duration) -> Self {
        let mut stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        let pid = child.id();
        let (done, finished) = mpsc::channel();
        let out = thread::spawn(move || read_all(&mut stdout));
        let err = thread::spawn(move || read_all(&mut stderr));
        thread::spawn(move || {
            let status = child.wait();
            // Output ends when every holder of the pipe has closed it, which must not be later than the command.
            let _ = done.send((status, out.join(), err.join()));
        });
        match finished.recv_timeout(limit) {
            Ok((status, stdout, stderr)) => {
                let status = status.expect("wait");
                Self {
                    status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
                    stdout: stdout.expect("reader"),
                    stderr: stderr.expect("reader"),
                }
            }
            Err(_) => {
                let processes = crate::host::Snapshot::take();
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                panic!("{name}: not ended (or its output still open) after {limit:?}\n{processes:#?}");
            }
        }
    }

    /// Fails the test unless the status is 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.status, 0, "{self:#?}");
        self
    }

    /// Fails the test unless the command failed with this status and one line on stderr that has all of `words`.
    #[track_caller]
    pub fn failure(self, status: i32, words: &[&str]) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "one line on stderr: {self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "stderr lacks {word:?}: {self:#?}");
        }
        self
    }
}

/// Gives a command `descriptors` as numbers from 3 on.
pub fn pass<'a>(command: &mut Command, descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) {
    // Above the numbers that are about to be taken.
    let copies: Vec<_> = descriptors
        .into_iter()
        .map(|fd| {
            // SAFETY: F_DUPFD_CLOEXEC takes an integer; the copy is meant for the child and may leak here.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) }
        })
        .collect();
    // SAFETY: dup2 is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (number, copy) in (3..).zip(&copies) {
                if libc::dup2(*copy, number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("read output");
    String::from_utf8_lossy(&bytes).into_owned()
}

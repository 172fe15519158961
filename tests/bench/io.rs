//! Files and output: what commands in a running container cost, without what it costs to start one.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::text;

use crate::measure::{Mark, median_and_spread};

/// Runs that count, after the one that is thrown away.
const RUNS: usize = 3;

/// Size of a large file, and of the output, in bytes.
const LARGE: usize = 32 << 20;
const OUTPUT: usize = 16 << 20;

/// The tree that is searched and unpacked: directories, files in each, and bytes in each.
const DIRECTORIES: usize = 27;
const FILES: usize = 30;
const SMALL: usize = 6500;

/// Requests whose costs are compared with those of none.
const REQUESTS: u64 = 1000;

/// The annotation that asks for disks which end with the container.
pub const SCRATCH: &str = "io.stockade.scratch";

/// Longer than the guest keeps names and attributes.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// Older than files have to be for the guest to keep their pages. Images are.
const SETTLED: Duration = Duration::from_secs(62);

/// One command: its name in the table, and the words, in which `N` stands for the number of the run.
const COMMANDS: [(&str, &str); 7] = [
    ("first read of 32 MiB", "dd if=/data/large-N of=/dev/null bs=1M"),
    ("cached read of 32 MiB", "dd if=/data/large-N of=/dev/null bs=1M"),
    ("find, 838 entries, again", "find /data/tree -size +1000k"),
    ("find, two seconds later", "find /data/tree -size +1000k"),
    ("untar of 838 entries, 5.3 MB", "tar xf /data/tree.tar -C /data/out-N"),
    ("the same onto a scratch disk", "tar xf /data/tree.tar -C /scratch"),
    ("16 MiB of output", "dd if=/dev/zero bs=64k count=256"),
];

/// The row after which two seconds pass.
const BEFORE_PAUSE: usize = 2;

/// The bundle with all files.
pub struct Io(Bundle);

/// What one runtime's commands cost, in instructions: medians and spreads.
pub struct Costs {
    /// Of a command that does nothing; the others are without it.
    pub nothing: (u64, u64),
    /// Of each command.
    pub commands: Vec<(&'static str, u64, u64)>,
    /// Of one request to the file server.
    pub request: u64,
}

impl Io {
    /// Makes the files; `stat` is the program that asks for attributes.
    pub fn prepare(stat: &Path) -> Result<Self> {
        // To the other runtimes, the annotation means nothing, and this is a directory like others.
        let bundle = Bundle::busybox(&["sleep", "100000"])
            .edit(|config| config["annotations"] = json!({ SCRATCH: "/scratch:256m" }));
        let root = bundle.rootfs();
        fs::copy(stat, root.join("bench-stat"))?;
        fs::create_dir(root.join("scratch"))?;
        let data = root.join("data");
        for run in 0..=RUNS {
            fs::create_dir_all(data.join(format!("out-{run}")))?;
            fs::write(data.join(format!("large-{run}")), vec![b'.'; LARGE])?;
        }
        for directory in 0..DIRECTORIES {
            let directory = data.join(format!("tree/directory-{directory}"));
            fs::create_dir_all(&directory)?;
            for file in 0..FILES {
                fs::write(directory.join(format!("file-{file}")), vec![b'.'; SMALL])?;
            }
        }
        let mut tar = Command::new("/bin/busybox");
        tar.args(["tar", "cf", "tree.tar", "tree"]).current_dir(&data);
        let status = tar.status()?;
        if !status.success() {
            bail!("busybox tar: {status}");
        }
        // As engines have it: an overlay, though its layers are in memory here.
        let [upper, work] = ["upper", "work"].map(|name| bundle.path().join(name));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let options = format!("lowerdir={},upperdir={},workdir={}", text(&root), text(&upper), text(&work));
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        thread::sleep(SETTLED);
        Ok(Self(bundle))
    }

    /// Measures in a container of a runtime; `runtime` makes its command up to the subcommand.
    pub fn measure(&self, runtime: impl Fn() -> Command, has_server: bool) -> Result<Costs> {
        let run = ["run", "--detach", "--bundle", text(self.0.path()), "io"];
        check(runtime().args(run), Stdio::null())?;
        let costs = self.measure_in(&runtime, has_server);
        check(runtime().args(["delete", "--force", "io"]), Stdio::null())?;
        costs
    }

    fn measure_in(&self, runtime: &impl Fn() -> Command, has_server: bool) -> Result<Costs> {
        let exec = |words: &str| cost(runtime().args(["exec", "io"]).args(words.split(' ')));
        // The guest may still be adding memory.
        thread::sleep(FORGOTTEN);
        exec("true")?;
        let mut nothing = Vec::new();
        let mut costs = vec![Vec::new(); COMMANDS.len()];
        for run in 0..=RUNS {
            let started = exec("true")?;
            for (row, (_, words)) in COMMANDS.iter().enumerate() {
                let words = format!("busybox {}", words.replace('N', &run.to_string()));
                if row == BEFORE_PAUSE {
                    exec(&words)?;
                }
                let cost = exec(&words)?;
                if row == BEFORE_PAUSE {
                    thread::sleep(FORGOTTEN);
                }
                if run > 0 {
                    costs[row].push(cost);
                }
            }
            if run > 0 {
                nothing.push(started);
            }
        }
        let nothing = median_and_spread(nothing);
        let commands = COMMANDS.iter().zip(costs).map(|((name, _), costs)| {
            let (cost, spread) = median_and_spread(costs);
            (*name, cost.saturating_sub(nothing.0), spread)
        });
        let commands = commands.collect();
        let request = if has_server {
            let asking = |times: u64| exec(&format!("/bench-stat {times} /data/tree.tar"));
            asking(REQUESTS)?;
            (asking(REQUESTS)?.saturating_sub(asking(0)?)) / REQUESTS
        } else {
            0
        };
        Ok(Costs { nothing, commands, request })
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // What is left of it goes with the lab.
        let _ = umount2(&self.0.rootfs(), MntFlags::MNT_DETACH);
    }
}

fn check(command: &mut Command, output: Stdio) -> Result<()> {
    let log = File::create("/tmp/io.log")?;
    let status = command.stdin(Stdio::null()).stdout(output).stderr(log).status()?;
    if !status.success() {
        bail!("{command:?}: {status}: {}", fs::read_to_string("/tmp/io.log")?);
    }
    Ok(())
}

/// The work of a command, its output being read.
fn cost(command: &mut Command) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let log = File::create("/tmp/io.log")?;
    let before = Mark::set()?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let mut bytes = 0;
    if let Some(mut stdout) = child.stdout.take() {
        loop {
            match stdout.read(&mut buffer)? {
                0 => break,
                count => bytes += count,
            }
        }
    }
    let status = child.wait()?;
    let between = Mark::set()?.since(&before);
    if !status.success() || bytes > OUTPUT {
        bail!("{command:?}: {status}, {bytes} bytes: {}", fs::read_to_string("/tmp/io.log")?);
    }
    Ok(between.work)
}

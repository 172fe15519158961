//! A container that a test talks to: a shell in the foreground of `stockade run`, on pipes.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::cli::{Outcome, Stockade, text};

/// What ends the output of one command.
const END: &str = "-- end of output --";

/// Longest that a shell may be silent before its test fails, in milliseconds.
const LIMIT_MS: u32 = 300_000;

/// A running shell.
pub struct Shell<'a> {
    /// The runtime that it runs under.
    pub stockade: &'a Stockade,
    /// Its container's ID.
    pub id: &'static str,
    /// Its bundle.
    pub bundle: Bundle,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> Shell<'a> {
    /// Starts one in a container with an edited config; cgroup files are at /sys/fs/cgroup, as in every bundle.
    pub fn start(stockade: &'a Stockade, id: &'static str, edit: impl FnOnce(&mut Value)) -> Self {
        Self::start_in(stockade, id, |bundle| bundle.edit(edit))
    }

    /// The same in a container whose bundle is changed.
    pub fn start_in(stockade: &'a Stockade, id: &'static str, change: impl FnOnce(Bundle) -> Bundle) -> Self {
        let bundle = change(Bundle::busybox(&["/bin/sh"]));
        let mut child = stockade
            .command(&["run", "--bundle", text(bundle.path()), id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("stockade run");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self { stockade, id, bundle, child, input, output };
        // It answers: the container runs.
        assert_eq!(shell.ask("echo up"), "up\n");
        shell
    }

    /// Runs a command; its output.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Begins a command.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}\necho '{END}'").expect("write to the shell");
    }

    /// One line of the output of a command that has begun; empty at the shell's end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if self.output.buffer().is_empty() {
                let mut fds = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
                let ready =
                    poll(&mut fds, PollTimeout::try_from(LIMIT_MS).expect("a timeout")).expect("poll");
                let state = || self.stockade.run(&["list"]).stdout;
                assert_eq!(ready, 1, "no answer of {} within five minutes; containers: {}", self.id, state());
            }
            let found = self.output.fill_buf().expect("read from the shell");
            let length = found.iter().position(|byte| *byte == b'\n').map_or(found.len(), |end| end + 1);
            if length == 0 {
                break;
            }
            line.extend_from_slice(&found[..length]);
            self.output.consume(length);
        }
        String::from_utf8(line).expect("UTF-8")
    }

    /// The output of a command that has begun.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        loop {
            let line = self.line();
            assert_ne!(line, "", "the shell has ended after {answer:?}");
            // The command's last line may have no end.
            if let Some(last) = line.trim_end().strip_suffix(END) {
                return answer + last;
            }
            answer.push_str(&line);
        }
    }

    /// A file of its cgroup, without the line end.
    pub fn cgroup(&mut self, file: &str) -> String {
        self.ask(&format!("cat /sys/fs/cgroup/{file}")).trim_end().to_owned()
    }

    /// Another command of stockade on this container: `ARGS… ID`.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.stockade.run(&[args, &[self.id]].concat())
    }

    /// Waits for its end; the exit status of `run`.
    pub fn end(self) -> i32 {
        let Self { mut child, input, output, bundle, .. } = self;
        drop(input);
        child.stdout = Some(output.into_inner());
        let outcome = Outcome::wait(child, "run");
        drop(bundle);
        outcome.status
    }
}

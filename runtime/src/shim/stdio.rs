//! A task's standard streams: FIFOs whose other ends are containerd's clients', files, or a logger's pipes. The relay gets them
//! as they are, so the shim copies nothing, and nothing is in between when the relay ends.
//!
//! The shim keeps the other end of each FIFO open, too: a client that goes away, as containerd does when it is restarted,
//! ends neither the task's input nor its output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a logger may take to say that it is ready.
const LOGGER_STARTS_WITHIN: u16 = 10_000;

/// How long a logger may take to end when its input has ended.
pub const LOGGER_ENDS_WITHIN: Duration = Duration::from_secs(12);

/// How long a logger may take to end that was asked to.
pub const LOGGER_OBEYS_WITHIN: Duration = Duration::from_secs(1);

/// Lowest number of the descriptors that a logger gets, and how many they are.
const LOGGER_FDS: [i32; 3] = [3, 4, 5];

/// What containerd calls the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// The relay's ends.
#[derive(Debug)]
pub struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What the shim keeps of the streams until the task is deleted.
#[derive(Debug, Default)]
pub struct Kept {
    /// The writer of the input's FIFO; it goes with CloseIO.
    pub input: Option<File>,
    /// The readers of the outputs' FIFOs.
    outputs: Vec<File>,
    /// The logger that reads the output.
    pub logger: Option<i32>,
}

impl Kept {
    /// The outputs that somebody still writes to.
    pub fn written(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // poll(2) reports POLLHUP without being asked, when the last writer of a FIFO has closed it.
        let is_written = |fd: &BorrowedFd<'_>| {
            let mut fds = [PollFd::new(*fd, PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready == 0)
        };
        self.outputs.iter().map(AsFd::as_fd).filter(is_written)
    }
}

/// Where a stream leads.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Nothing,
    /// A FIFO or a file.
    Path(PathBuf),
    /// A file that may have to be made.
    Log(PathBuf),
    /// A program with its arguments, to whose descriptors 3 and 4 the output goes.
    Logger(PathBuf, Vec<String>),
}

impl Target {
    fn parse(name: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Ok(if name.is_empty() { Self::Nothing } else { Self::Path(name.into()) });
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decoded(path));
        if !path.is_absolute() {
            anyhow::bail!("{name}: give an absolute path after {scheme}://");
        }
        match scheme {
            "fifo" => Ok(Self::Path(path)),
            "file" => Ok(Self::Log(path)),
            "binary" => {
                let pairs = query.split('&').filter(|pair| !pair.is_empty());
                let words = pairs.flat_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    [decoded(key), decoded(value)].into_iter().filter(|word| !word.is_empty())
                });
                Ok(Self::Logger(path, words.collect()))
            }
            _ => anyhow::bail!(
                "{name}: the output can go to fifo://, file:// or binary://, not to {scheme}://"
            ),
        }
    }
}

/// Text of a URI without its `%XX` and `+`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let number =
            after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, number) {
            (b'%', Some(number)) => {
                bytes.push(number);
                rest = &after[2..];
            }
            (byte, _) => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Opens the streams of a process of container `id`. `start_logger` starts a program as a child of the shim and returns its
/// PID.
///
/// # Errors
/// One line that names the stream.
pub fn open(
    names: &Names,
    [id, namespace]: [&str; 2],
    start_logger: impl FnOnce(&mut Command) -> io::Result<i32>,
) -> anyhow::Result<(Streams, Kept)> {
    let mut kept = Kept::default();
    let stdin = match Target::parse(&names.stdin).context("stdin")? {
        Target::Nothing => null(),
        Target::Path(path) => {
            open_input(&path, &mut kept).with_context(|| format!("stdin: cannot open {}", path.display()))
        }
        _ => anyhow::bail!("stdin: {} is for output", names.stdin),
    }?;
    let (stdout, stderr) =
        (Target::parse(&names.stdout).context("stdout")?, Target::parse(&names.stderr).context("stderr")?);
    if let (Target::Logger(program, arguments), other) = (&stdout, &stderr) {
        if !matches!(other, Target::Nothing | Target::Logger(..)) {
            anyhow::bail!("stderr: {} beside a logger for stdout; a logger takes both", names.stderr);
        }
        let (stdout, stderr) = logger(program, arguments, [id, namespace], &mut kept, start_logger)
            .with_context(|| format!("stdout: the logger {}", program.display()))?;
        return Ok((Streams { stdin, stdout, stderr }, kept));
    }
    let mut output = |target: Target, name: &str| match target {
        Target::Nothing => null(),
        Target::Path(path) => {
            open_output(&path, &mut kept).with_context(|| format!("{name}: cannot open {}", path.display()))
        }
        Target::Log(path) => {
            open_log(&path).with_context(|| format!("{name}: cannot open {}", path.display()))
        }
        Target::Logger(..) => anyhow::bail!("{name}: a logger takes both, so it has to be stdout's, too"),
    };
    let (stdout, stderr) = (output(stdout, "stdout")?, output(stderr, "stderr")?);
    Ok((Streams { stdin, stdout, stderr }, kept))
}

fn null() -> anyhow::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null").context("/dev/null")?.into())
}

fn is_fifo(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.file_type().is_fifo())
}

fn open_input(path: &Path, kept: &mut Kept) -> io::Result<OwnedFd> {
    // A FIFO's reader does not wait for a writer then, and the writer finds a reader.
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if is_fifo(path)? {
        kept.input = Some(OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?);
    }
    blocking(reader)
}

fn open_output(path: &Path, kept: &mut Kept) -> io::Result<OwnedFd> {
    if !is_fifo(path)? {
        return Ok(OpenOptions::new().append(true).open(path)?.into());
    }
    kept.outputs.push(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?);
    Ok(OpenOptions::new().write(true).open(path)?.into())
}

fn open_log(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(OpenOptions::new().append(true).create(true).open(path)?.into())
}

/// Without O_NONBLOCK, which a task does not expect.
fn blocking(file: File) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
    Ok(file.into())
}

/// Starts a logger, and waits until it says that it is ready: by a byte, or by closing its descriptor 5.
fn logger(
    program: &Path,
    arguments: &[String],
    [id, namespace]: [&str; 2],
    kept: &mut Kept,
    start: impl FnOnce(&mut Command) -> io::Result<i32>,
) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?) };
    let ((out_reader, stdout), (err_reader, stderr), (ready, says_ready)) = (pipe()?, pipe()?, pipe()?);
    // Their own numbers may be among those that they are to get.
    let above =
        |fd: OwnedFd| -> io::Result<i32> { Ok(fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(LOGGER_FDS[2] + 1))?) };
    let (a, b, c) = (above(out_reader)?, above(err_reader)?, above(says_ready)?);
    // SAFETY: fcntl(2) has just made these descriptors, and nobody else has them.
    let given = unsafe { [a, b, c].map(|fd| OwnedFd::from_raw_fd(fd)) };
    let numbers = [a, b, c];
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec it calls dup2(2) only, which touches no memory of the parent's; what it replaces in the
    // child is closed by the execution anyway.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in numbers.into_iter().zip(LOGGER_FDS) {
                if libc::dup2(from, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    kept.logger = Some(start(&mut command).context("cannot be executed")?);
    drop(given);
    let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
    let answered = poll(&mut fds, PollTimeout::from(LOGGER_STARTS_WITHIN)).unwrap_or(0);
    if answered == 0 {
        anyhow::bail!("does not close descriptor 5, by which it says that it is ready");
    }
    let _ = File::from(ready).read(&mut [0]);
    Ok((stdout, stderr))
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod tests;

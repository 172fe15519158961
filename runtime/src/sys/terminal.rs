//! Terminals on the host: the pseudo-terminal that an engine asks for, and the user's own in raw mode.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use stockade_protocol::container::WindowSize;
use stockade_sys::fd_passing;

use super::descriptors;

/// A pseudo-terminal: the master goes to the engine, the relay keeps the slave.
#[derive(Debug)]
pub struct Pty {
    /// The master, for `--console-socket`.
    pub master: OwnedFd,
    /// The slave, in raw mode, so that output passes as the container's own terminal has written it.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens a pseudo-terminal of this size.
    ///
    /// # Errors
    /// openpt(3)'s.
    pub fn open(size: WindowSize) -> io::Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER takes flags and returns a new descriptor or -1; it needs no path to the slave.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
        if slave < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        make_raw(slave.as_fd())?;
        if size != WindowSize::default() {
            set_size(slave.as_fd(), size)?;
        }
        Ok(Self { master: master.into(), slave })
    }
}

/// Checks that the console socket fits the other options: the terminal of a detached process is sent to it.
///
/// # Errors
/// The option that is missing, or that must not be given.
pub fn check(terminal: bool, console_socket: Option<&Path>, detached: bool) -> anyhow::Result<()> {
    match (terminal, console_socket) {
        (true, None) if detached => {
            anyhow::bail!("process.terminal: a terminal needs --console-socket when the process is detached")
        }
        (false, Some(_)) => {
            anyhow::bail!("--console-socket: process.terminal is not set, so there is no terminal to send")
        }
        (true, Some(_)) if !detached => {
            anyhow::bail!(
                "--console-socket: not possible in the foreground; add --detach, or leave this option out"
            )
        }
        _ => Ok(()),
    }
}

/// Sends descriptors to a socket that an engine listens on (`--console-socket`, `--pidfd-socket`).
///
/// # Errors
/// When the socket cannot be reached.
pub fn send_to(socket: &Path, option: &str, name: &str, descriptor: BorrowedFd<'_>) -> anyhow::Result<()> {
    descriptors::connect_to(socket)
        .and_then(|stream| fd_passing::send(stream.as_fd(), name.as_bytes(), &[descriptor.as_raw_fd()]))
        .with_context(|| format!("{option}: cannot send to {}", socket.display()))
}

/// The terminal at which a command runs: its stdin or its stdout.
#[derive(Debug)]
pub struct Window {
    terminal: OwnedFd,
    before: Option<Termios>,
}

impl Window {
    /// The terminal of stdin or, if stdin is not a terminal, of stdout, with its current settings.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn of_stdio() -> io::Result<Self> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let terminal =
            if stdin.is_terminal() || !stdout.is_terminal() { stdin.as_fd() } else { stdout.as_fd() };
        Ok(Self { terminal: terminal.try_clone_to_owned()?, before: tcgetattr(terminal).ok() })
    }

    /// Its size, if it has one.
    pub fn size(&self) -> Option<WindowSize> {
        size(self.terminal.as_fd()).filter(|size| *size != WindowSize::default())
    }

    /// Restores the settings after a command in raw mode was killed.
    pub fn restore(&self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, before);
        }
    }
}

/// The size that a process's terminal begins with. At a person's terminal, the container's terminal has its size from
/// the first line on; an engine sets the size of the terminal that it is sent.
pub fn initial_size(configured: WindowSize, console_socket: Option<&Path>) -> WindowSize {
    let window = if console_socket.is_none() { Window::of_stdio().ok() } else { None };
    window.and_then(|window| window.size()).unwrap_or(configured)
}

/// The terminal of stdin in raw mode; dropping this restores it.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Sets raw mode before the start of a process that has a terminal and stays in the foreground. If the command is
    /// killed, a relay restores the terminal.
    ///
    /// # Errors
    /// tcsetattr(3)'s.
    pub fn for_process(terminal: bool, detached: bool) -> anyhow::Result<Option<Self>> {
        if !terminal || detached {
            return Ok(None);
        }
        Self::of_stdin().context("cannot set the terminal to raw mode")
    }

    fn of_stdin() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        make_raw(stdin.as_fd())?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// The terminal as a screen that is redrawn, instead of lines that scroll; dropping this restores it.
#[derive(Debug)]
pub struct FullScreen {
    keyboard: Option<RawMode>,
}

impl FullScreen {
    /// Takes over the terminal of stdout, and that of stdin if stdin is a terminal.
    ///
    /// # Errors
    /// tcsetattr(3)'s or write(2)'s.
    pub fn enter() -> io::Result<Self> {
        let screen = Self { keyboard: RawMode::of_stdin()? };
        // The alternate screen, without a cursor.
        show("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Whether there are keys to wait for.
    pub fn has_keyboard(&self) -> bool {
        self.keyboard.is_some()
    }

    /// Draws as many of these lines as fit.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn draw(&self, text: &str) -> io::Result<()> {
        let size = size(io::stdout().as_fd()).filter(|size| size.rows > 0 && size.columns > 0);
        let size = size.unwrap_or(WindowSize { rows: 24, columns: 80 });
        let lines = text.lines().take(size.rows.into()).map(|line| {
            let shown: String = line.chars().take(size.columns.into()).collect();
            format!("{shown}\x1b[K")
        });
        // From the upper left corner, each line to its end, and nothing below.
        show(&format!("\x1b[H{}\x1b[J", lines.collect::<Vec<_>>().join("\r\n")))
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = show("\x1b[?25h\x1b[?1049l");
    }
}

fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// The keys that have been pressed on the terminal of stdin; `None` at its end.
///
/// # Errors
/// read(2)'s.
pub fn read_keys() -> io::Result<Option<Vec<u8>>> {
    let mut keys = [0; 64];
    let length = nix::unistd::read(io::stdin(), &mut keys)?;
    Ok((length > 0).then(|| keys[..length].to_vec()))
}

fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let mut termios = tcgetattr(terminal)?;
    cfmakeraw(&mut termios);
    Ok(tcsetattr(terminal, SetArg::TCSANOW, &termios)?)
}

/// A terminal's size; `None` if the descriptor is not a terminal.
fn size(terminal: BorrowedFd<'_>) -> Option<WindowSize> {
    // SAFETY: winsize is plain integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure that it is given.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets a terminal's size.
///
/// # Errors
/// ioctl(2)'s.
pub fn set_size(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads the structure that it is given.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a terminal the controlling terminal of this session, whose leader the calling process is.
///
/// # Errors
/// ioctl(2)'s.
pub fn control_by(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

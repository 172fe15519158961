//! Terminals: the person's, at which a command runs, and the one that a console socket delivers.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{Termios, tcgetattr};

/// Longest that one awaited output may take before its test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// The master of a pseudo-terminal.
pub struct Terminal {
    master: File,
    /// Open, so that the terminal does not hang up between commands.
    slave: Option<OwnedFd>,
    /// What has been read and not been asked for yet.
    unseen: Vec<u8>,
}

impl Terminal {
    /// A new terminal of this size, as a person has it.
    pub fn open(rows: u16, columns: u16) -> Self {
        let pty = openpty(&window(rows, columns), None).expect("openpty");
        Self { slave: Some(pty.slave), ..Self::of(pty.master) }
    }

    fn of(master: OwnedFd) -> Self {
        Self { master: master.into(), slave: None, unseen: Vec::new() }
    }

    /// Starts a command as a shell's foreground job: leader of a session that this terminal controls.
    pub fn spawn(&self, command: &mut Command) -> Child {
        let slave = || self.slave().try_clone().expect("dup");
        command.stdin(slave()).stdout(slave()).stderr(slave());
        // SAFETY: both calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        command.spawn().expect("start the command")
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Presses keys one by one, as fingers do: a program at our own terminal has read each before the next is sent.
    #[track_caller]
    pub fn press(&self, keys: &[u8]) {
        let deadline = Instant::now() + LIMIT;
        for key in keys {
            // What is written to the master arrives at some later time; this has arrived when it returns.
            // SAFETY: the kernel reads one byte.
            let result = unsafe { libc::ioctl(self.slave().as_raw_fd(), libc::TIOCSTI, key) };
            assert_eq!(result, 0, "TIOCSTI: {}", std::io::Error::last_os_error());
            // Nothing tells that input was read, so this asks again and again.
            while self.unread() > 0 {
                assert!(Instant::now() < deadline, "the key {key:#x} is not read after {LIMIT:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[track_caller]
    fn slave(&self) -> &OwnedFd {
        self.slave.as_ref().expect("a terminal of our own")
    }

    /// Bytes of input that no program has read yet.
    fn unread(&self) -> i32 {
        let mut count = 0;
        // SAFETY: the kernel writes one integer.
        let result = unsafe { libc::ioctl(self.slave().as_raw_fd(), libc::FIONREAD, &raw mut count) };
        assert_eq!(result, 0, "FIONREAD");
        count
    }

    /// Reads until `text` has come, and returns all up to its end; fails the test if it does not come.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.unseen.windows(text.len()).position(|bytes| bytes == text.as_bytes());
            if let Some(start) = found {
                let seen: Vec<u8> = self.unseen.drain(..start + text.len()).collect();
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let open = self.read(deadline);
            let unseen = String::from_utf8_lossy(&self.unseen);
            assert_ne!(open, None, "no {text:?} after {LIMIT:?}, but {unseen:?}");
            assert_ne!(open, Some(false), "the terminal hung up before {text:?}, after {unseen:?}");
        }
    }

    /// Reads until nobody has the terminal's other side open, and returns all that has come.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        self.slave = None;
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.read(deadline) {
                Some(true) => {}
                Some(false) => {
                    return String::from_utf8_lossy(&std::mem::take(&mut self.unseen)).into_owned();
                }
                None => panic!("the terminal is still open after {LIMIT:?}"),
            }
        }
    }

    /// What comes within `time`, for outputs that must not come.
    pub fn output_within(&mut self, time: Duration) -> String {
        let deadline = Instant::now() + time;
        while self.read(deadline) == Some(true) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unseen)).into_owned()
    }

    /// Changes the window's size; the kernel sends SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = window(rows, columns);
        // SAFETY: the kernel reads the structure that it is given.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
    }

    /// The terminal's settings: raw, or as a shell expects them.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.master).expect("tcgetattr")
    }

    /// False at the end, `None` after the deadline.
    fn read(&mut self, deadline: Instant) -> Option<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(left).expect("time limit")).expect("poll") == 0 {
            return None;
        }
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) => Some(false),
            Ok(count) => {
                self.unseen.extend_from_slice(&bytes[..count]);
                Some(true)
            }
            // How a master says that no slave is open.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Some(false),
            Err(error) => panic!("read from the terminal: {error}"),
        }
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A socket for `--console-socket`, as an engine listens on it.
pub struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens in `directory`.
    pub fn listen(directory: &Path) -> Self {
        let path = directory.join("console.sock");
        let listener = UnixListener::bind(&path).expect("bind the console socket");
        Self { path, listener }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        crate::cli::text(&self.path)
    }

    /// The terminal that a command has sent, which is to have ended by now.
    #[track_caller]
    pub fn receive(&self) -> Terminal {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let (stream, _) = self.listener.accept().expect("nothing was sent to the console socket");
        let mut bytes = [0; 64];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!([RawFd; 2]);
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )
        .expect("receive from the console socket");
        let mut received = Vec::new();
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just installed these descriptors here, and nobody else has them.
                received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        assert_eq!(received.len(), 1, "one message with one descriptor");
        Terminal::of(received.remove(0))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

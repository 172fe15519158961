//! The log: lines in the forms that engines parse, in the file that they name.
//!
//! Without `--log`, the lines that `--log-level warn` or `debug` asks for go to stderr. Without these options, warnings
//! go to stderr only if it is a terminal, where a person reads them: engines show their users every line that a command
//! has written to stderr, and a command that succeeds should write none. The command's error goes to stderr always,
//! because podman reads it there, and to the log file as well, because containerd reads it there.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::options::{Globals, LogFormat, LogLevel};
use crate::text::table::printable;

static LOG: OnceLock<Log> = OnceLock::new();

/// The log of a command that is a fork of a process with a log.
static OF_FORK: OnceLock<Log> = OnceLock::new();

thread_local! {
    /// The container and the sandbox that the thread's lines are about: several pods may share a log file, and the threads of a
    /// shim are about several containers.
    static SUBJECT: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Whether the log has ended: nothing is written any more.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Where lines are written, and which lines.
struct Log {
    file: Option<File>,
    format: LogFormat,
    most_verbose: Level,
}

/// Opens the log that the command line asks for.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(globals: &Globals) -> anyhow::Result<()> {
    begin(Log::open(globals)?)
}

/// As [`start`], in a process that was forked from one with a log, which is not written to any more.
///
/// # Errors
/// When the file cannot be opened.
pub fn start_in_fork(globals: &Globals) -> anyhow::Result<()> {
    let log = Log::open(globals)?;
    about_nothing();
    OF_FORK.get_or_init(|| log);
    // It fails where the former process has a log.
    let _ = tracing::subscriber::set_global_default(Lines);
    Ok(())
}

/// The log of this process.
fn current() -> Option<&'static Log> {
    OF_FORK.get().or_else(|| LOG.get())
}

/// Lets a process that is no command log to a file that is open already.
///
/// # Errors
/// When there is a log already.
pub fn start_in(file: File, is_debug: bool) -> anyhow::Result<()> {
    let most_verbose = if is_debug { Level::DEBUG } else { Level::INFO };
    begin(Log { file: Some(file), format: LogFormat::Text, most_verbose })
}

fn begin(log: Log) -> anyhow::Result<()> {
    LOG.get_or_init(|| log);
    Ok(tracing::subscriber::set_global_default(Lines)?)
}

/// The log file's descriptor, for a process that closes all other descriptors.
pub fn descriptor() -> Option<RawFd> {
    current()?.file.as_ref().map(AsRawFd::as_raw_fd)
}

/// Ends the log in a process that closes the log's file, because another file will get its descriptor's number.
pub fn end() {
    IS_OVER.store(true, Ordering::Relaxed);
}

/// From here on, lines in a log file are about this container.
pub fn about(container: &str, sandbox: Option<&str>) {
    let sandbox = sandbox.unwrap_or(container).to_owned();
    SUBJECT.with_borrow_mut(|subject| *subject = Some((container.to_owned(), sandbox)));
}

/// From here on, lines are about no container again.
pub fn about_nothing() {
    SUBJECT.take();
}

/// Whether debug lines are logged. If not, the values that only they need are not computed.
pub fn is_debug() -> bool {
    current().is_some_and(|log| log.most_verbose >= Level::DEBUG)
}

/// Tells the user, and the log file if there is one, why the command failed.
pub fn report(error: &anyhow::Error) {
    let message = one_line(&explain(error));
    if let Some(log @ Log { file: Some(_), .. }) = current() {
        log.write("error", &message, &Map::new());
    }
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "stockade: error: {message}");
}

/// The error and its causes; a cause is left out if the line already ends with it.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Control characters from a guest, a hook or a file are shown as escapes: a line stays one line and cannot control a
/// terminal.
fn one_line(text: &str) -> String {
    printable(text.trim_end())
}

impl Log {
    /// Opens the log that the command line asks for.
    fn open(globals: &Globals) -> anyhow::Result<Self> {
        let file = match &globals.log {
            None => None,
            Some(path) => Some(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("--log: cannot open {}", path.display()))?,
            ),
        };
        let most_verbose = match (globals.debug, globals.log_level) {
            (true, _) | (_, LogLevel::Debug) => Level::DEBUG,
            (_, LogLevel::Info) if file.is_some() => Level::INFO,
            (_, LogLevel::Info) if std::io::stderr().is_terminal() => Level::WARN,
            (_, LogLevel::Warn) => Level::WARN,
            (_, LogLevel::Info | LogLevel::Error) => Level::ERROR,
        };
        Ok(Self { file, format: globals.log_format, most_verbose })
    }

    fn write(&self, level: &str, message: &str, fields: &Map<String, Value>) {
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let mut fields = fields.clone();
        let subject = SUBJECT.with_borrow(Clone::clone);
        if let (Some((container, sandbox)), Some(_)) = (subject, &self.file) {
            fields.insert("container".to_owned(), container.into());
            fields.insert("sandbox".to_owned(), sandbox.into());
        }
        let fields = &fields;
        let mut line = match (&self.file, self.format) {
            (None, _) => format!("stockade: {level}: {message}{}", Pairs(fields)),
            (Some(_), LogFormat::Text) => {
                format!("time={time:?} level={level} msg={message:?}{}", Pairs(fields))
            }
            (Some(_), LogFormat::Json) => {
                let mut object = fields.clone();
                object.insert("level".to_owned(), level.into());
                object.insert("msg".to_owned(), message.into());
                object.insert("time".to_owned(), time.into());
                Value::Object(object).to_string()
            }
        };
        line.push('\n');
        // There is nowhere to report that a log line cannot be written.
        let _ = match &self.file {
            Some(file) => { file }.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

struct Pairs<'a>(&'a Map<String, Value>);

impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// The subscriber behind tracing's macros. The runtime uses events only, no spans.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_logged = |log: &Log| *metadata.level() <= log.most_verbose;
        metadata.is_event() && current().is_some_and(is_logged) && !IS_OVER.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        // Whether a line is enabled is asked once for each place in the code, which a fork inherits.
        let Some(log) = current().filter(|_| !IS_OVER.load(Ordering::Relaxed)) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        log.write(level, &one_line(&fields.message), &fields.others);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;

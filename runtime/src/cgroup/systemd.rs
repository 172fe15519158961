//! systemd's manager over the system bus: a transient scope for a container's cgroup.
//!
//! A scope is made around a process and ends with its last one. VMM and relay come later, so a placeholder is its first:
//!
//! ```text
//! StartTransientUnit(scope, PIDs=[placeholder]) ─→ JobRemoved ─→ VMM and relay join ─→ placeholder ends
//! StopUnit ─→ JobRemoved                                         (or its last process ends)
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use rustbus::connection::ll_conn::force_finish_on_error;
use rustbus::connection::{Error as BusError, Timeout};
use rustbus::message_builder::{MarshalledMessage, MessageType};
use rustbus::wire::ObjectPath;
use rustbus::{MessageBuilder, RpcConn};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A directory that exists if systemd manages the system, see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Time limit for a job or an answer of systemd.
const WITHIN: Duration = Duration::from_secs(30);

/// Why systemd has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// systemd does not manage this system.
    #[error(
        "--systemd-cgroup: systemd does not manage this system ({BOOTED} is not there); choose cgroupfs \
         (podman --cgroup-manager=cgroupfs, containerd SystemdCgroup = false)"
    )]
    Absent,
    /// systemd cannot be reached, or its answer is not understood.
    #[error("cannot talk to systemd over the system bus: {0}")]
    Bus(String),
    /// systemd refuses the request.
    #[error("systemd does not {what} {unit}: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The unit.
        unit: String,
        /// systemd's explanation.
        reason: String,
    },
    /// systemd has not finished in time.
    #[error("systemd does not {what} {unit} within {} seconds", WITHIN.as_secs())]
    Late {
        /// What was asked for.
        what: &'static str,
        /// The unit.
        unit: String,
    },
}

impl From<BusError> for SystemdError {
    fn from(error: BusError) -> Self {
        Self::Bus(error.to_string())
    }
}

impl From<rustbus::wire::errors::MarshalError> for SystemdError {
    fn from(error: rustbus::wire::errors::MarshalError) -> Self {
        Self::Bus(error.to_string())
    }
}

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq, rustbus::Marshal, rustbus::Signature)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Pids(Vec<u32>),
}

/// Properties of a unit.
pub type Properties = Vec<(String, Value)>;

/// Whether systemd manages this system.
///
/// # Errors
/// [`SystemdError::Absent`].
pub fn check() -> Result<(), SystemdError> {
    if Path::new(BOOTED).is_dir() { Ok(()) } else { Err(SystemdError::Absent) }
}

/// A connection to the manager.
pub struct Systemd(RpcConn);

impl Systemd {
    /// Connects.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub fn connect() -> Result<Self, SystemdError> {
        check()?;
        let mut manager = Self(RpcConn::system_conn(Timeout::Duration(WITHIN))?);
        // Without it systemd sends no signals over the bus.
        let rule = format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
        let added = manager.ask(&mut rustbus::standard_messages::add_match(&rule))?;
        let subscribed = manager.ask(&mut call("Subscribe"))?;
        for answer in [added, subscribed] {
            answer.map_err(|refusal| SystemdError::Bus(refusal.reason))?;
        }
        Ok(manager)
    }

    /// Starts a transient scope and waits until it exists.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub fn start_scope(&mut self, unit: &str, properties: &Properties) -> Result<(), SystemdError> {
        let mut answer = self.start_transient(unit, properties)?;
        if matches!(&answer, Err(refusal) if refusal.name == UNIT_EXISTS) {
            // A unit of that name has failed before, and systemd still keeps it for inspection.
            self.reset_failed(unit)?;
            answer = self.start_transient(unit, properties)?;
        }
        let job = answer.map_err(|refusal| refusal.of("start", unit))?;
        self.wait_for(&job, "start", unit)
    }

    fn start_transient(&mut self, unit: &str, properties: &Properties) -> Result<Answer, SystemdError> {
        let no_others: &[(String, Properties)] = &[];
        let mut message = call("StartTransientUnit");
        message.body.push_param2(unit, "replace")?;
        message.body.push_param2(properties, no_others)?;
        self.ask(&mut message)
    }

    /// Changes properties of a unit for as long as it runs.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub fn set(&mut self, unit: &str, properties: &Properties) -> Result<(), SystemdError> {
        let until_it_ends = true;
        let mut message = call("SetUnitProperties");
        message.body.push_param3(unit, until_it_ends, properties)?;
        self.ask(&mut message)?.map(drop).map_err(|refusal| refusal.of("change", unit))
    }

    /// Stops a unit and waits until it is gone. A unit that is gone already is no error.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let mut message = call("StopUnit");
        message.body.push_param2(unit, "replace")?;
        match self.ask(&mut message)? {
            Ok(job) => self.wait_for(&job, "stop", unit)?,
            Err(refusal) if refusal.name == NO_SUCH_UNIT => return Ok(()),
            Err(refusal) => return Err(refusal.of("stop", unit)),
        }
        self.reset_failed(unit)
    }

    /// Makes systemd forget that a unit has failed.
    fn reset_failed(&mut self, unit: &str) -> Result<(), SystemdError> {
        let mut message = call("ResetFailedUnit");
        message.body.push_param(unit)?;
        // An error means that the unit has not failed or is gone, which is fine.
        self.ask(&mut message).map(drop)
    }

    fn ask(&mut self, message: &mut MarshalledMessage) -> Result<Answer, SystemdError> {
        let within = Timeout::Duration(WITHIN);
        let serial = self.0.send_message(message)?.write(within).map_err(force_finish_on_error)?;
        let answer = self.0.wait_response(serial, within)?;
        Ok(match answer.typ {
            MessageType::Reply => Ok(answer),
            _ => Err(Refusal {
                reason: answer.body.parser().get::<String>().unwrap_or_default(),
                name: answer.dynheader.error_name.unwrap_or_default(),
            }),
        })
    }

    /// Waits for the end of the job that an answer names.
    fn wait_for(
        &mut self,
        answer: &MarshalledMessage,
        what: &'static str,
        unit: &str,
    ) -> Result<(), SystemdError> {
        let unreadable = |error| SystemdError::Bus(format!("{error:?}"));
        let late = || SystemdError::Late { what, unit: unit.to_owned() };
        let job = answer.body.parser().get::<ObjectPath<String>>().map_err(unreadable)?;
        let deadline = Instant::now() + WITHIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let signal = match self.0.wait_signal(Timeout::Duration(left)) {
                Err(BusError::TimedOut) => return Err(late()),
                result => result?,
            };
            if signal.dynheader.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            let (_, removed, _, result) =
                signal.body.parser().get4::<u32, ObjectPath<String>, String, String>().map_err(unreadable)?;
            if removed.as_ref() == job.as_ref() {
                return match result.as_str() {
                    "done" | "skipped" => Ok(()),
                    "timeout" => Err(late()),
                    other => Err(SystemdError::Refused {
                        what,
                        unit: unit.to_owned(),
                        reason: format!("its job ended with \"{other}\""),
                    }),
                };
            }
        }
    }
}

type Answer = Result<MarshalledMessage, Refusal>;

/// An error in an answer of systemd.
struct Refusal {
    name: String,
    reason: String,
}

impl Refusal {
    fn of(self, what: &'static str, unit: &str) -> SystemdError {
        let Self { name, reason } = self;
        let reason = if reason.is_empty() { name } else { reason };
        SystemdError::Refused { what, unit: unit.to_owned(), reason }
    }
}

fn call(method: &str) -> MarshalledMessage {
    MessageBuilder::new().call(method).with_interface(MANAGER).on(OBJECT).at(NAME).build()
}

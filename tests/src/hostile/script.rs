//! What the hostile guest says and when: the honest answers, and departures from them for single containers. Its other half is
//! `tests/hostile/guest/script.rs`.

use serde::Serialize;
use stockade_protocol::agent::{
    AgentError, ContainerState, ErrorKind, ExitStatus, HelloReply, MAGIC, OLDEST_VERSION, ProcessEvent,
    ProcessId, Purpose, Ready, Request, Response, Stream, VERSION,
};
use stockade_protocol::frame;
use stockade_protocol::network::NetworkChange;

/// A moment at which the guest acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment(u8);

/// Moments that are not the arrivals of requests, as the guest numbers them.
mod number {
    pub const HELLO: u8 = 0x20;
    pub const WELCOME: u8 = 0x30;
    pub const STATE_CREATED: u8 = 0x31;
    pub const STATE_RUNNING: u8 = 0x32;
    pub const STATE_STOPPED: u8 = 0x33;
    pub const ENDED_WELL: u8 = 0x34;
    pub const ENDED_BADLY: u8 = 0x35;
    pub const ENDED_KILLED: u8 = 0x36;
    pub const READY: u8 = 0x40;
}

impl Moment {
    /// When the agent of an honest guest reports that it listens.
    pub const READY: Self = Self(number::READY);

    /// When this request arrives.
    pub fn request(request: &Request) -> Self {
        Self(variant(&bytes_of(request)))
    }

    /// When the host asks how a container is.
    pub fn state() -> Self {
        Self::request(&Request::State { container: String::new() })
    }

    /// When the host starts a process.
    pub fn start() -> Self {
        Self::request(&Request::Start(init("")))
    }

    /// When the host sends a signal.
    pub fn signal() -> Self {
        Self::request(&Request::Signal { container: String::new(), signal: 0, all: false })
    }

    /// When the host removes a container.
    pub fn delete() -> Self {
        Self::request(&Request::Delete { container: String::new() })
    }

    /// When the host lists processes.
    pub fn processes() -> Self {
        Self::request(&Request::Processes { container: String::new() })
    }

    /// When the host reads statistics.
    pub fn statistics() -> Self {
        Self::request(&Request::CgroupFiles { container: String::new() })
    }

    /// When the host changes limits.
    pub fn update() -> Self {
        Self::request(&Request::Update { container: String::new(), values: Vec::new() })
    }

    /// When the host pauses a container.
    pub fn pause() -> Self {
        Self::request(&Request::Pause { container: String::new() })
    }

    /// When the host asks for a container: the number of that request is the first.
    pub fn create() -> Self {
        Self(0)
    }

    /// When the host asks for another process: between Delete and Pause.
    pub fn exec() -> Self {
        Self(Self::delete().0 + 1)
    }

    /// After the hello of a connection that stands for a process.
    pub fn process_hello() -> Self {
        Self::hello(Purpose::Process(init("")))
    }

    /// After the hello of a stdio stream.
    pub fn stream_hello() -> Self {
        Self::hello(Purpose::Stream(init(""), Stream::Stdin))
    }

    /// After the hello of a connection for events.
    pub fn events_hello() -> Self {
        Self::hello(Purpose::Events(String::new()))
    }

    fn hello(purpose: Purpose) -> Self {
        Self(number::HELLO + variant(&bytes_of(&purpose)))
    }
}

fn init(container: &str) -> ProcessId {
    ProcessId { container: container.to_owned(), exec: None }
}

/// Which of a container's connections an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one on which the request came.
    Asking,
    /// The one that stands for its process.
    Process,
    /// Its standard output.
    Stdout,
}

/// What the guest does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends these bytes so many times, with so many milliseconds between them.
    Send(Target, Vec<u8>, u32, u32),
    /// Sends these bytes one by one, with so many milliseconds between them.
    Drip(Vec<u8>, u32),
    /// Shuts the connection down.
    Close(Target),
    /// Resets the connection.
    Reset(Target),
    /// Waits for so many milliseconds.
    Wait(u32),
    /// Asks for so many connections to this port of the host.
    Connect(u32, u32),
    /// Writes so many bytes to the console.
    Console(u32),
    /// Ends its machine by a triple fault.
    Crash,
    /// Halts for ever.
    Halt,
    /// From now on says that the container has stopped.
    End,
}

impl Action {
    /// Answers with this message.
    pub fn answer(message: &impl Serialize) -> Self {
        Self::raw(framed(message))
    }

    /// Answers with these bytes.
    pub fn raw(bytes: Vec<u8>) -> Self {
        Self::Send(Target::Asking, bytes, 1, 0)
    }

    /// Says this on the connection that stands for the container's process.
    pub fn event(event: &ProcessEvent) -> Self {
        Self::Send(Target::Process, framed(event), 1, 0)
    }

    fn encode(&self, to: &mut Vec<u8>) {
        let (kind, target, a, b, bytes): (u8, Target, u32, u32, &[u8]) = match self {
            Self::Send(target, bytes, times, pause) => (0, *target, *times, *pause, bytes),
            Self::Drip(bytes, pause) => (1, Target::Asking, *pause, 0, bytes),
            Self::Close(target) => (2, *target, 0, 0, &[]),
            Self::Reset(target) => (3, *target, 0, 0, &[]),
            Self::Wait(time) => (4, Target::Asking, *time, 0, &[]),
            Self::Connect(times, port) => (5, Target::Asking, *times, *port, &[]),
            Self::Console(bytes) => (6, Target::Asking, *bytes, 0, &[]),
            Self::Crash => (7, Target::Asking, 0, 0, &[]),
            Self::Halt => (8, Target::Asking, 0, 0, &[]),
            Self::End => (9, Target::Asking, 0, 0, &[]),
        };
        to.extend([kind, target as u8]);
        for word in [a, b, bytes.len() as u32] {
            to.extend(word.to_le_bytes());
        }
        to.extend(bytes);
    }
}

/// All that one guest does.
#[derive(Clone, Debug)]
pub struct Script(Vec<(Moment, String, Vec<Action>)>);

impl Default for Script {
    fn default() -> Self {
        Self::honest()
    }
}

impl Script {
    /// An agent that has no containers, but says that it has.
    pub fn honest() -> Self {
        let created = Response::Created { guest_pid: 42, warnings: Vec::new() };
        let unknown = AgentError { kind: ErrorKind::NotFound, message: "no such container".to_owned() };
        let network = Request::Network(Box::<NetworkChange>::default());
        let answers = [
            (Moment::create(), created.clone()),
            (Moment::start(), Response::Started),
            (Moment::signal(), Response::Signalled),
            (Moment::state(), Response::Error(unknown)),
            (Moment(number::STATE_CREATED), Response::State(ContainerState::Created)),
            (Moment(number::STATE_RUNNING), Response::State(ContainerState::Running)),
            (Moment(number::STATE_STOPPED), Response::State(ContainerState::Stopped(ExitStatus::Exited(0)))),
            (Moment::delete(), Response::Deleted),
            (Moment::exec(), created),
            (Moment::pause(), Response::Paused),
            (Moment::request(&Request::Resume { container: String::new() }), Response::Resumed),
            (Moment::processes(), Response::Processes(Vec::new())),
            (Moment::statistics(), Response::CgroupFiles(Vec::new())),
            (Moment::update(), Response::Updated),
            (Moment::request(&network), Response::NetworkChanged),
            (Moment::request(&Request::Containers), Response::Containers(Vec::new())),
            (Moment::request(&Request::SetCpus { count: 1 }), Response::CpusSet),
            (Moment::request(&Request::Settings(Box::default())), Response::SettingsTaken(Vec::new())),
        ];
        let ends = [
            (number::ENDED_WELL, ExitStatus::Exited(0)),
            (number::ENDED_BADLY, ExitStatus::Exited(1)),
            (number::ENDED_KILLED, ExitStatus::Signalled(9)),
        ];
        let mut script = Self(Vec::new());
        for (moment, answer) in answers {
            script = script.on(moment, "", [Action::answer(&answer)]);
        }
        for (moment, end) in ends {
            script = script.on(Moment(moment), "", [Action::answer(&ProcessEvent::Ended(end))]);
        }
        script.on(Moment(number::WELCOME), "", [Action::answer(&HelloReply::Welcome)]).on(
            Moment::READY,
            "",
            [Action::answer(&ready())],
        )
    }

    /// Departs from that: at this moment, for this container (or for all that no other rule names), it does this instead.
    #[must_use]
    pub fn on(mut self, moment: Moment, container: &str, actions: impl IntoIterator<Item = Action>) -> Self {
        self.0.retain(|(at, of, _)| *at != moment || of != container);
        self.0.push((moment, container.to_owned(), actions.into_iter().collect()));
        self
    }

    /// Departs from it at this moment for each of these containers.
    #[must_use]
    pub fn on_each(self, moment: &Moment, cases: &[(String, Vec<Action>)]) -> Self {
        cases.iter().fold(self, |script, (container, actions)| {
            script.on(moment.clone(), container, actions.iter().cloned())
        })
    }

    /// The bytes that the guest reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u16).to_le_bytes().to_vec();
        for (moment, container, actions) in &self.0 {
            bytes.extend([moment.0, container.len() as u8]);
            bytes.extend(container.bytes());
            bytes.push(actions.len() as u8);
            actions.iter().for_each(|action| action.encode(&mut bytes));
        }
        bytes
    }
}

/// An honest report.
pub fn ready() -> Ready {
    Ready {
        magic: MAGIC,
        oldest_version: OLDEST_VERSION,
        version: VERSION,
        kernel_release: "none".to_owned(),
        entry_tsc: 1,
    }
}

/// A message as it goes over the wire.
pub fn framed(message: &impl Serialize) -> Vec<u8> {
    frame::encode(message).expect("encode")
}

fn bytes_of(message: &impl Serialize) -> Vec<u8> {
    framed(message)[4..].to_vec()
}

/// The number of an enum's variant, which postcard puts first.
fn variant(bytes: &[u8]) -> u8 {
    bytes[0]
}

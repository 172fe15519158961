//! What the test has written for this guest (its other half is `tests/src/hostile/script.rs`): the bytes of each honest
//! answer, and the rules by which it departs from them.
//!
//! ```text
//!  script   count: u16, rule…
//!  rule     at: u8, length of the container's ID: u8, ID, count: u8, action…
//!  action   kind: u8, target: u8, a: u32, b: u32, length: u32, bytes
//! ```

use alloc::vec::Vec;

/// When a rule holds: the number of a request of the host as it is on the wire, or one of these.
pub mod at {
    /// Plus the purpose's number: after a hello.
    pub const HELLO: u8 = 0x20;
    /// The answers that are no answers to requests.
    pub const WELCOME: u8 = 0x30;
    pub const STATE_CREATED: u8 = 0x31;
    pub const STATE_RUNNING: u8 = 0x32;
    pub const STATE_STOPPED: u8 = 0x33;
    pub const ENDED_WELL: u8 = 0x34;
    pub const ENDED_BADLY: u8 = 0x35;
    pub const ENDED_KILLED: u8 = 0x36;
    /// In place of the report that the agent listens.
    pub const READY: u8 = 0x40;
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Send the bytes, `a` times, with `b` milliseconds between them.
    Send,
    /// Send the bytes one by one, one in `a` milliseconds.
    Drip,
    /// Shut the connection down.
    Close,
    /// Reset it.
    Reset,
    /// Wait for `a` milliseconds.
    Wait,
    /// Ask for `a` connections to the host's port `b`.
    Connect,
    /// Write `a` bytes to the console.
    Console,
    /// Triple fault.
    Crash,
    /// Halt for ever.
    Halt,
    /// Forget the process's exit status and connections, as if it had ended.
    End,
}

/// Which of a container's connections an action is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Asking,
    Process,
    Stdout,
}

#[derive(Clone, Copy)]
pub struct Action {
    pub kind: Kind,
    pub target: Target,
    pub a: u32,
    pub b: u32,
    pub bytes: &'static [u8],
}

pub struct Rule {
    at: u8,
    container: &'static [u8],
    actions: Vec<Action>,
}

pub struct Script(Vec<Rule>);

impl Script {
    pub fn parse(bytes: &'static [u8]) -> Self {
        let mut reader = Reader(bytes);
        let count = u16::from_le_bytes([reader.byte(), reader.byte()]);
        Self((0..count).map(|_| reader.rule()).collect())
    }

    /// What to do at this moment with this container; a rule for it comes before one for all.
    pub fn actions(&self, at: u8, container: &[u8]) -> Vec<Action> {
        let find = |id: &[u8]| self.0.iter().find(|rule| rule.at == at && rule.container == id);
        find(container).or_else(|| find(b"")).map(|rule| rule.actions.clone()).unwrap_or_default()
    }

    /// True where a rule speaks of this container itself.
    pub fn mentions(&self, at: u8, container: &[u8]) -> bool {
        self.0.iter().any(|rule| rule.at == at && rule.container == container)
    }
}

struct Reader(&'static [u8]);

impl Reader {
    fn take(&mut self, count: usize) -> &'static [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u32 {
        (0..4).map(|index| u32::from(self.byte()) << (8 * index)).sum()
    }

    fn rule(&mut self) -> Rule {
        let at = self.byte();
        let length = self.byte().into();
        let container = self.take(length);
        let count = self.byte();
        Rule { at, container, actions: (0..count).map(|_| self.action()).collect() }
    }

    fn action(&mut self) -> Action {
        let kind = match self.byte() {
            0 => Kind::Send,
            1 => Kind::Drip,
            2 => Kind::Close,
            3 => Kind::Reset,
            4 => Kind::Wait,
            5 => Kind::Connect,
            6 => Kind::Console,
            7 => Kind::Crash,
            8 => Kind::Halt,
            _ => Kind::End,
        };
        let target = match self.byte() {
            0 => Target::Asking,
            1 => Target::Process,
            _ => Target::Stdout,
        };
        let (a, b, length) = (self.word(), self.word(), self.word());
        Action { kind, target, a, b, bytes: self.take(length as usize) }
    }
}

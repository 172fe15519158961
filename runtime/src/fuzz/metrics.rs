//! What VMM and agent answer to who measures a sandbox, and the text that comes of it.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use super::peer;
use crate::metrics::{Reach, Sandbox, Subject, text};
use crate::sys::deadline::Deadline;
use crate::vm::Control;

struct Peers {
    vmm: UnixStream,
    agent: UnixStream,
}

impl Reach for Peers {
    fn vmm(&self, deadline: Deadline) -> io::Result<Control> {
        Control::over_by(self.vmm.try_clone()?, deadline)
    }

    fn agent(&self) -> io::Result<UnixStream> {
        self.agent.try_clone()
    }

    fn interfaces(&self) -> Option<String> {
        Some("Inter-|   Receive\n face |bytes\n  eth0: 10 2 0 1 0 0 0 0 20 3 0 4 0 0 0 0\n".into())
    }
}

/// What the VMM says, and what the agent says once it has welcomed the connection.
pub fn run(input: &[u8]) {
    let (of_vmm, of_agent) = peer::halves(input);
    let (vmm, _vmm) = peer::saying(&peer::welcomed_by_vmm(of_vmm));
    let (agent, _agent) = peer::saying(&peer::welcomed(of_agent));
    let subject = Subject { id: "pod".into(), created: SystemTime::UNIX_EPOCH };
    let text = text(&[Sandbox::measure(subject, &Peers { vmm, agent }, peer::TIMEOUT)]);
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        assert!(is_sample(line), "no sample: {line:?}");
    }
}

/// `NAME{LABEL="VALUE",…} NUMBER`, printable.
fn is_sample(line: &str) -> bool {
    let Some((series, number)) = line.rsplit_once(' ') else { return false };
    let Some((name, labels)) = series.split_once('{') else { return false };
    name.starts_with("stockade_")
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && labels.starts_with("sandbox=\"pod\"")
        && labels.ends_with("\"}")
        && !line.chars().any(char::is_control)
        && number.parse::<f64>().is_ok()
}

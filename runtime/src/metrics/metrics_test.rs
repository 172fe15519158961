use std::thread::{self, JoinHandle};

use stockade_protocol::agent::{Hello, HelloReply, Request, Response};
use stockade_protocol::frame;

use super::*;

/// An agent whose containers have this much text each.
struct Agent {
    containers: usize,
    text: usize,
}

impl Agent {
    fn serve(self, mut stream: UnixStream) -> JoinHandle<()> {
        thread::spawn(move || {
            frame::read::<Hello>(&mut stream, frame::HOST_LIMIT).unwrap();
            frame::write(&mut stream, &HelloReply::Welcome).unwrap();
            while let Ok(Some(request)) = frame::read(&mut stream, frame::HOST_LIMIT) {
                let response = match request {
                    Request::Containers => Response::Containers(
                        (0..self.containers).map(|number| format!("c{number}")).collect(),
                    ),
                    _ => Response::CgroupFiles(vec![("memory.stat".to_owned(), "x".repeat(self.text))]),
                };
                if frame::write(&mut stream, &response).is_err() {
                    return;
                }
            }
        })
    }
}

/// Reaches an agent alone.
struct Alone(UnixStream);

impl Reach for Alone {
    fn vmm(&self, _: Deadline) -> io::Result<Control> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn agent(&self) -> io::Result<UnixStream> {
        self.0.try_clone()
    }

    fn interfaces(&self) -> Option<String> {
        None
    }
}

fn measure(agent: Agent) -> Option<usize> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let agent = agent.serve(theirs);
    let subject = Subject { id: "pod".into(), created: SystemTime::UNIX_EPOCH };
    let measured = Sandbox::measure(subject, &Alone(ours), Duration::from_secs(60));
    agent.join().unwrap();
    measured.containers.map(|containers| containers.len())
}

#[test]
fn a_guest_with_endless_cgroup_files_is_not_kept() {
    assert_eq!(measure(Agent { containers: 20, text: 15 << 10 }), Some(20));
    assert_eq!(measure(Agent { containers: 1000, text: 200 << 10 }), None);
}

#[test]
fn a_guest_that_names_too_many_containers_is_not_believed() {
    assert_eq!(measure(Agent { containers: 2000, text: 1 }), None);
}

//! What each version of the protocols says, to the byte. `tests/golden` has a value of every message for every variant in it, as
//! `BYTES TYPE: VALUE`. What has been released is never edited: whoever changes a message finds here that pods which were started
//! before the upgrade would not understand it any more, and gives the new message a place of its own and the protocol a new
//! version.
//!
//! agent-1.txt and vmm-1.txt were written by the code of 0.1.

mod generate;

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;

use serde::{Serialize, de::DeserializeOwned};
use stockade_protocol::{agent, frame, vmm};

/// A message of a protocol: its values as they are to stand in the file, and how bytes of it are read and written again.
struct Message {
    lines: Vec<String>,
    reread: fn(&[u8]) -> Result<Vec<u8>, String>,
}

type Messages = BTreeMap<String, Message>;

fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(messages: &mut Messages) {
    let name = type_name::<T>().trim_start_matches("stockade_protocol::").to_owned();
    let lines = generate::values::<T>().into_iter().map(|value| {
        let bytes = frame::encode(&value).unwrap();
        let read: T = frame::read(&mut &bytes[..], frame::HOST_LIMIT).unwrap().unwrap();
        assert_eq!(read, value);
        format!("{} {name}: {value:?}", hex(&bytes))
    });
    let lines = lines.collect();
    let reread = |bytes: &[u8]| {
        let read = frame::read::<T>(&mut &*bytes, frame::HOST_LIMIT).map_err(|error| error.to_string())?;
        frame::encode(&read.ok_or("nothing")?).map_err(|error| error.to_string())
    };
    messages.insert(name, Message { lines, reread });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn of_agent() -> Messages {
    let mut messages = Messages::new();
    add::<agent::Ready>(&mut messages);
    add::<agent::Hello>(&mut messages);
    add::<agent::HelloReply>(&mut messages);
    add::<agent::Request>(&mut messages);
    add::<agent::Response>(&mut messages);
    add::<agent::ProcessCommand>(&mut messages);
    add::<agent::ProcessEvent>(&mut messages);
    add::<agent::ContainerEvent>(&mut messages);
    messages
}

fn of_vmm() -> Messages {
    let mut messages = Messages::new();
    add::<vmm::Config>(&mut messages);
    add::<vmm::Status>(&mut messages);
    add::<vmm::Request>(&mut messages);
    add::<vmm::Response>(&mut messages);
    add::<vmm::Hello>(&mut messages);
    add::<vmm::HelloReply>(&mut messages);
    add::<vmm::FilesRequest>(&mut messages);
    add::<vmm::FilesResponse>(&mut messages);
    messages
}

fn file(protocol: &str, version: u16) -> String {
    format!("{}/tests/golden/{protocol}-{version}.txt", env!("CARGO_MANIFEST_DIR"))
}

/// What this build says is what its version of the protocol says, no more and no less. `STOCKADE_WRITE_GOLDEN=1` writes the file
/// of a version that is not released yet.
fn says(protocol: &str, version: u16, messages: &Messages) {
    let now: String =
        messages.values().flat_map(|message| &message.lines).map(|line| format!("{line}\n")).collect();
    let path = file(protocol, version);
    if std::env::var_os("STOCKADE_WRITE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    let first = now.lines().zip(frozen.lines()).find(|(now, frozen)| now != frozen);
    assert!(
        now == frozen,
        "messages of the {protocol} are not what its version {version} says ({path}); give the protocol a new version. \
         The first that differs: {first:#?}"
    );
}

#[test]
fn the_agents_messages_are_those_of_its_version() {
    says("agent", agent::VERSION, &of_agent());
}

#[test]
fn the_vmms_messages_are_those_of_its_version() {
    says("vmm", vmm::VERSION, &of_vmm());
}

/// Every message of an older version that is still spoken means today what it meant then.
fn still_understands(protocol: &str, version: u16, messages: &Messages, except: &[&str]) -> usize {
    let frozen = fs::read_to_string(file(protocol, version)).unwrap();
    let mut understood = 0;
    for line in frozen.lines() {
        let (bytes, value) = line.split_once(' ').unwrap();
        let (name, _) = value.split_once(": ").unwrap();
        if except.contains(&name) {
            continue;
        }
        let message = messages.get(name).unwrap_or_else(|| panic!("{name} of version {version} is gone"));
        assert!(message.lines.iter().any(|now| now == line), "{name} has other values now than {value}");
        assert_eq!((message.reread)(&unhex(bytes)).as_ref(), Ok(&unhex(bytes)), "{value}");
        understood += 1;
    }
    understood
}

#[test]
fn what_a_vmm_and_an_agent_of_0_1_say_is_understood() {
    // The runtime that starts a VMM is of the VMM's own release: nobody sends an old configuration.
    assert_eq!(still_understands("vmm", 1, &of_vmm(), &["vmm::Config"]), 28);
    assert_eq!(still_understands("agent", 1, &of_agent(), &[]), 90);
}

#[test]
fn a_value_is_found_for_every_variant() {
    let requests = generate::values::<agent::Request>();
    for name in ["Create", "Network", "SetCpus", "Socket", "RemoveNeighbour"] {
        assert!(requests.iter().any(|request| format!("{request:?}").contains(name)), "{name}");
    }
}

//! Statistics, and what `events` tells of a container as it happens.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};
use stockade_tests::cli::{Outcome, Stockade};
use stockade_tests::shell::Shell;

const MIB: u64 = 1 << 20;

/// A running `stockade events`.
struct Events {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Events {
    fn start(stockade: &Stockade, id: &str, interval: &str) -> Self {
        let mut command = stockade.command(&["events", "--interval", interval, id]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("stockade events");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read");
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }

    /// The next line of this type; those of other types are passed over.
    fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let line = self.next().unwrap_or_else(|| panic!("no {kind} event"));
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// The rest, and that it ended as it should.
    fn end(mut self) -> Vec<Value> {
        let rest = std::iter::from_fn(|| self.next()).collect();
        self.child.stdout = Some(self.lines.into_inner());
        assert_eq!(Outcome::wait(self.child, "events").success().stderr, "");
        rest
    }
}

fn stats(shell: &Shell<'_>) -> Value {
    let outcome = shell.run(&["events", "--stats"]).success();
    let event: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(shell.id)));
    event["data"].clone()
}

#[test]
fn statistics_follow_what_the_container_does() {
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "works", |config| {
        config["linux"]["resources"] = json!({
            "memory": { "limit": 64 * MIB, "swap": 128 * MIB }, "pids": { "limit": 20 },
            "cpu": { "quota": 50_000, "period": 100_000 },
        });
    });
    let before = stats(&shell);
    assert_eq!(before["pids"], json!({ "current": 1, "limit": 20 }));
    assert_eq!(before["memory"]["usage"]["limit"], 64 * MIB);
    assert_eq!(before["memory"]["swap"]["limit"], 128 * MIB);
    assert_eq!(before["memory"]["kernelTCP"], json!({ "limit": 0, "failcnt": 0 }));
    assert_eq!(before["network_interfaces"], Value::Null);
    assert_eq!(before["intel_rdt"], json!({}));
    assert_eq!(before["cpuset"]["sched_relax_domain_level"], 0);
    assert!(before["hugetlb"]["2MB"]["failcnt"].is_u64(), "{before}");
    assert!(before["blkio"].is_object());

    shell.ask("dd if=/dev/zero of=/dev/shm/file bs=1M count=8 2>/dev/null; sleep 1000 & sleep 1000 &");
    shell.ask("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done");
    let after = stats(&shell);
    let cpu = |stats: &Value| stats["cpu"]["usage"]["total"].as_u64().expect("cpu time");
    assert!(cpu(&after) > cpu(&before) + 1_000_000, "a millisecond of work, in nanoseconds");
    let usage = &after["cpu"]["usage"];
    assert!(usage["user"].as_u64().expect("user") + usage["kernel"].as_u64().expect("kernel") > 0);
    assert!(after["cpu"]["throttling"]["periods"].as_u64().expect("periods") > 0, "{after}");
    assert_eq!(after["pids"]["current"], 3);
    let memory = &after["memory"];
    assert!(memory["usage"]["usage"].as_u64().expect("usage") > 8 * MIB, "{memory}");
    assert!(
        memory["usage"]["max"].as_u64().expect("max") >= memory["usage"]["usage"].as_u64().expect("usage")
    );
    assert!(memory["raw"]["shmem"].as_u64().expect("shmem") >= 8 * MIB, "{memory}");
    assert!(memory["cache"].as_u64().expect("cache") >= 8 * MIB, "{memory}");
    stockade.run(&["kill", "works", "KILL"]).success();
    assert_eq!(shell.end(), 137);
}

#[test]
fn events_come_as_they_happen_and_end_with_the_container() {
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "greedy", |config| {
        config["linux"]["resources"] = json!({ "memory": { "limit": 32 * MIB, "swap": 32 * MIB } });
    });
    let mut events = Events::start(&stockade, "greedy", "200ms");
    let first = events.next_of("stats");
    assert_eq!(first["id"], "greedy");
    assert_eq!(first["data"]["memory"]["event_count"]["oom_kill"], Value::Null);
    // What goes over the limit is killed, and the shell goes on.
    let said =
        shell.ask("dd if=/dev/zero of=/dev/shm/file bs=1M count=60 2>/dev/null; echo $?; rm /dev/shm/file");
    assert_eq!(said, "137\n");
    assert_eq!(events.next_of("oom"), json!({ "type": "oom", "id": "greedy" }));
    let later = events.next_of("stats");
    assert_eq!(later["data"]["memory"]["event_count"]["oom_kill"], 1, "{later}");

    // An exec ends as a process of the container's does.
    let args = ["exec", "greedy", "dd", "if=/dev/zero", "of=/dev/shm/file", "bs=1M", "count=60"];
    assert_eq!(stockade.run(&args).status, 137);
    assert_eq!(events.next_of("oom"), json!({ "type": "oom", "id": "greedy" }));
    shell.ask("rm /dev/shm/file");

    // A second one, which is never to print statistics, and one whose reader leaves.
    let quiet = Events::start(&stockade, "greedy", "1h");
    let mut unread = Events::start(&stockade, "greedy", "200ms");
    unread.next_of("stats");
    let Events { child, lines } = unread;
    drop(lines);
    let mut child = child;
    assert!(child.wait().expect("wait").success());
    // That of the container's init ends the container, and is told before the end.
    shell.tell("exec dd if=/dev/zero of=/dev/shm/file bs=1M count=60 2>/dev/null");
    assert_eq!(shell.end(), 137);
    let rest = events.end();
    assert!(rest.iter().any(|event| event["type"] == "oom"), "{rest:?}");
    let rest = quiet.end();
    assert_eq!(rest, [json!({ "type": "oom", "id": "greedy" })]);
}

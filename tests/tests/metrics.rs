//! Metrics for Prometheus: printed, and served on a socket of the sandbox's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::shell::Shell;

const MIB: u64 = 1 << 20;

/// The value of a sample.
#[track_caller]
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in\n{text}"))
}

/// The answer of a sandbox's socket.
fn scrape(stockade: &Stockade, id: &str, target: &str) -> String {
    let mut client = UnixStream::connect(stockade.root().join(id).join("metrics.sock")).expect("connect");
    write!(client, "GET {target} HTTP/1.1\r\nHost: sandbox\r\n\r\n").expect("request");
    let mut text = String::new();
    client.read_to_string(&mut text).expect("answer");
    text
}

#[test]
fn a_sandbox_tells_of_its_containers_what_they_use() {
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let pod = Shell::start(&stockade, "pod", |config| {
        config["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    });
    let mut member = Shell::start(&stockade, "member", |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
        config["linux"]["resources"] = json!({ "memory": { "limit": 64 * MIB, "swap": 64 * MIB } });
    });
    member.ask("dd if=/dev/zero of=/dev/shm/file bs=1M count=8 2>/dev/null");
    let outcome = stockade.run(&["metrics", "pod"]).success();
    assert_eq!(outcome.stderr, "");
    let printed = outcome.stdout;
    assert_eq!(value(&printed, "stockade_sandbox_up{sandbox=\"pod\"}"), 1.0);
    assert!(value(&printed, "stockade_guest_resident_bytes{sandbox=\"pod\"}") > 8e6);
    assert!(value(&printed, "stockade_vmm_resident_bytes{sandbox=\"pod\"}") > 1e5);
    assert!(value(&printed, "stockade_sandbox_start_time_seconds{sandbox=\"pod\"}") > 1.6e9);
    assert!(printed.contains("stockade_vmm_cpu_seconds_total{sandbox=\"pod\",thread=\"vcpu"), "{printed}");
    assert!(printed.contains("stockade_network_receive_bytes_total{sandbox=\"pod\",interface=\"lo\"} 0.0\n"));
    assert_eq!(
        value(&printed, "stockade_container_processes_limit{sandbox=\"pod\",container=\"pod\"}"),
        20.0
    );
    let of_member = "{sandbox=\"pod\",container=\"member\"}";
    assert!(value(&printed, &format!("stockade_container_memory_bytes{of_member}")) > 8.0 * MIB as f64);
    assert_eq!(
        value(&printed, &format!("stockade_container_memory_limit_bytes{of_member}")),
        64.0 * MIB as f64
    );
    assert_eq!(value(&printed, &format!("stockade_container_oom_kills_total{of_member}")), 0.0);
    assert!(printed.ends_with("# EOF\n"));
    assert_eq!(stockade.run(&["metrics"]).success().stdout.lines().count(), printed.lines().count());
    stockade.run(&["metrics", "member"]).failure(1, &["sandbox pod"]);

    let answer = scrape(&stockade, "pod", "/metrics");
    let (head, served) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    let names = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    assert_eq!(names(served), names(&printed));
    assert!(scrape(&stockade, "pod", "/").starts_with("HTTP/1.0 404 "));

    // What is killed for want of memory is counted, and the container goes on.
    member.ask("dd if=/dev/zero of=/dev/shm/file bs=1M count=80 2>/dev/null; rm /dev/shm/file");
    let served = scrape(&stockade, "pod", "/metrics");
    assert_eq!(value(&served, &format!("stockade_container_oom_kills_total{of_member}")), 1.0);
    assert_eq!(member.end(), 0);
    stockade.run(&["delete", "--force", "member"]).success();
    assert!(!scrape(&stockade, "pod", "/metrics").contains("member"));
    assert_eq!(pod.end(), 0);
    stockade.run(&["delete", "--force", "pod"]).success();
    before.assert_same_now();
}

#[test]
fn a_scrape_that_nobody_answers_does_not_keep_the_relay_from_its_work() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["/bin/sleep", "1000"]);
    let relay = stockade.create(&bundle, "still");
    stockade.run(&["start", "still"]).success();
    let vmm = stockade.vmm_pid(relay);
    kill(Pid::from_raw(vmm), Signal::SIGSTOP).expect("stop the VMM");
    let path = stockade.root().join("still/metrics.sock");
    let mut clients: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(&path).expect("connect")).collect();
    for client in &mut clients {
        write!(client, "GET /metrics HTTP/1.0\r\n\r\n").expect("request");
    }
    kill(Pid::from_raw(vmm), Signal::SIGKILL).expect("kill the VMM");
    host::wait_for_end(relay);
    drop(clients);
    assert_eq!(stockade.status("still"), "stopped");
    stockade.run(&["metrics", "still"]).failure(1, &["not running"]);
    stockade.run(&["delete", "still"]).success();
}

//! Many containers and pods, one after the other and side by side, leave the host as it was.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::engine::Node;
use stockade_tests::host::{self, Snapshot};
use stockade_tests::kubernetes::{Cri, Pod, container_config};

/// Pods at once and pods in a row, unless `STOCKADE_PODS_AT_ONCE` and `STOCKADE_PODS_IN_A_ROW` say other numbers.
const AT_ONCE: usize = 2;
const IN_A_ROW: usize = 1;

/// Longest that a call may take for each pod that is made meanwhile, on one emulated processor, if there are enough of them.
const A_POD_WITHIN: Duration = Duration::from_secs(30);
const ENOUGH: usize = 10;

/// What the kernel's caches may take, however many pods there were, in KiB: for a thousand pods that is 16 KiB for each.
const MOST_GROWTH_KIB: u64 = 16 << 10;

#[test]
fn fifty_in_a_row() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("exit 3");
    let before = Snapshot::take();
    for n in 0..50 {
        let outcome = stockade.run_bundle(&bundle, &format!("row-{n}"));
        assert_eq!(outcome.status, 3, "{n}: {outcome:#?}");
    }
    before.assert_same_now();
}

#[test]
fn five_at_once() {
    let stockade = Stockade::new();
    let bundles: Vec<_> = (0..5).map(|n| Bundle::script(&format!("echo {n}; exit {n}"))).collect();
    let before = Snapshot::take();
    for _ in 0..3 {
        let children: Vec<_> = bundles
            .iter()
            .enumerate()
            .map(|(n, bundle)| {
                stockade
                    .command(&["run", "-b", text(bundle.path()), &format!("once-{n}")])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("run")
            })
            .collect();
        for (n, child) in children.into_iter().enumerate() {
            let outcome = Outcome::wait(child, "run");
            assert_eq!(
                (outcome.status, outcome.stdout.as_str()),
                (n as i32, format!("{n}\n").as_str()),
                "{outcome:#?}"
            );
        }
        before.assert_same_now();
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// The whole life of a pod.
fn live(node: &Node, cri: &Cri, name: &str) {
    let pod = Pod::run(cri, node, name, |_| ());
    let container = pod.start(&container_config("member", &["sleep", "1000000"]));
    assert_eq!(pod.exec(&container, &["hostname"]).trim(), name);
    pod.remove();
}

/// Kernel memory that cannot be given back, in KiB.
fn kernel_memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:")).expect("SUnreclaim");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn pods_in_a_row_and_at_once_leave_nothing() {
    let at_once = number("STOCKADE_PODS_AT_ONCE", AT_ONCE);
    let node = if at_once > ENOUGH { Node::new().with_patience(at_once) } else { Node::new() };
    // The first pods that come at once find that CNI's plugins race for the chains that they all make.
    let cri = Cri::new(&node.socket());
    live(&node, &cri, "first");
    node.assert_clean();
    let before = kernel_memory_kib();
    for n in 1..=number("STOCKADE_PODS_IN_A_ROW", IN_A_ROW) {
        live(&node, &cri, &format!("row-{n}"));
        if n % 100 == 0 {
            node.assert_clean();
            let grown = kernel_memory_kib().saturating_sub(before);
            println!("{n} pods have come and gone; kernel memory has grown by {grown} KiB");
        }
    }
    node.assert_clean();
    let grown = kernel_memory_kib().saturating_sub(before);
    assert!(grown < MOST_GROWTH_KIB, "kernel memory has grown by {grown} KiB");
    thread::scope(|scope| {
        for n in 0..at_once {
            let node = &node;
            scope.spawn(move || {
                let cri = Cri::new(&node.socket()).within(A_POD_WITHIN * at_once.max(ENOUGH) as u32);
                live(node, &cri, &format!("once-{n}"));
            });
        }
    });
    // A containerd that is busy does not wait until its shims have ended.
    host::pids_named("containerd-shim").into_iter().for_each(host::wait_for_end);
    node.assert_clean();
}

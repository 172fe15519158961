//! SIGKILL to conmon, a relay, the VMM, podman or a command of the runtime while podman's containers live their lives, at
//! points that a printed seed chooses: what podman and `stockade delete --force` then do leaves nothing.

use std::path::Path;
use std::process::Command;

use stockade_tests::cli::{Outcome, built};
use stockade_tests::engine::Podman;
use stockade_tests::host;
use stockade_tests::killer::{Numbers, kill_during, recorded};

/// How many processes are killed.
const POINTS: usize = 8;

/// Most times that a process is seen before it is killed.
const ROUNDS: usize = 60;

/// podman's default `--root` of the runtime.
const RUNTIME_ROOT: &str = "/run/stockade";

const VICTIMS: [&str; 4] = ["conmon", "relay", "stockade-vmm", "stockade"];

/// The life of a pod with one member, command by command.
const LIFE: [&[&str]; 6] = [
    &["pod", "create", "--name", "pod", "--network", "podman"],
    &["run", "-d", "--pod", "pod", "--name", "member", "busybox", "sleep", "1000000"],
    &["exec", "member", "true"],
    &["restart", "--time", "0", "member"],
    &["pod", "stop", "--time", "0", "pod"],
    &["pod", "rm", "--force", "--time", "0", "pod"],
];

fn stockade(args: &[&str]) -> Outcome {
    Outcome::of(Command::new(built("release/stockade")).args(args), b"").success()
}

#[test]
fn nothing_is_left_whoever_is_killed() {
    let podman = Podman::with_network();
    let mut numbers = Numbers::new();
    for point in 0..POINTS {
        let victim = VICTIMS[point % VICTIMS.len()];
        // While a pod is created nothing runs, and podman starts its infra container with the first member.
        let (step, rounds) = (1 + numbers.below(LIFE.len() - 1), numbers.below(ROUNDS));
        eprintln!("point {point}: {victim}, at {:?} after {rounds} rounds", LIFE[step]);
        for args in &LIFE[..step] {
            podman.run(args).success();
        }
        let find = || match victim {
            "relay" => recorded(Path::new(RUNTIME_ROOT), "relay"),
            name => host::pids_named(name).first().copied(),
        };
        let (outcome, killed) = kill_during(rounds, find, || podman.run(LIFE[step]));
        eprintln!("    killed {killed:?}; the command has ended with {}", outcome.status);
        podman.run(&["pod", "rm", "--force", "--all", "--time", "0"]);
        podman.run(&["rm", "--force", "--all", "--time", "0"]);
        // podman does not delete what it has lost the conmon of.
        for id in stockade(&["list", "--quiet"]).stdout.lines() {
            stockade(&["delete", "--force", id]);
        }
        podman.assert_clean();
    }
    let outcome = podman.run(&["run", "--rm", "--network", "podman", "busybox", "echo", "next"]);
    assert_eq!(outcome.success().stdout, "next\n");
    podman.assert_clean();
}

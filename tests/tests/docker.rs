//! Docker, as Debian ships it, with stockade as its default runtime.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use stockade_tests::cli::{Outcome, text};
use stockade_tests::engine::{Docker, IMAGE};
use stockade_tests::terminal::Terminal;

#[test]
fn containers_run_execute_pause_and_are_looked_at_copied_from_and_stopped() {
    let docker = Docker::new();
    let at = |name: &str| docker.path().join(name);
    let outcome = docker.container(&["--rm"], &["sh", "-c", "uname -r; echo error >&2; exit 42"]);
    assert_eq!(outcome.status, 42, "{outcome:#?}");
    assert!(outcome.stdout.ends_with("-stockade\n"), "{outcome:#?}");
    let outcome = docker.container(&["--rm"], &["nowhere"]);
    assert_eq!(outcome.status, 127, "{outcome:#?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:#?}");
    docker.assert_clean();

    let script = "trap 'echo stopped; exit 5' TERM; echo out; echo err >&2; while :; do sleep 0.2; done";
    docker.container(&["-di", "--init", "--name", "box"], &["sh", "-c", script]).success();
    let outcome = docker.run(&["ps", "--format", "{{.Names}} {{.Status}}"]).success();
    assert!(outcome.stdout.starts_with("box Up"), "{outcome:#?}");

    fs::write(at("file"), "copied\n").expect("file");
    docker.run(&["cp", text(&at("file")), "box:/etc/stockade-copied"]).success();
    assert!(!Path::new("/etc/stockade-copied").exists(), "docker cp wrote to the host");
    docker.run(&["cp", "box:/etc/stockade-copied", text(&at("back"))]).success();
    assert_eq!(fs::read_to_string(at("back")).expect("file"), "copied\n");
    let script = "cat; id -u; pwd; echo $A; echo error >&2; exit 3";
    let options =
        ["exec", "-i", "--user", "1000", "--workdir", "/tmp", "--env", "A=b", "box", "sh", "-c", script];
    let outcome = Outcome::of(&mut docker.command(&options), b"input\n");
    assert_eq!(outcome.status, 3, "{outcome:#?}");
    assert_eq!(outcome.stdout, "input\n1000\n/tmp\nb\n", "{outcome:#?}");
    assert_eq!(outcome.stderr, "error\n", "{outcome:#?}");
    let mut terminal = Terminal::open(24, 80);
    let mut exec = terminal.spawn(&mut docker.command(&["exec", "-it", "box", "sh"]));
    terminal.expect("# ");
    terminal.send("tty; exit 4\r");
    terminal.expect("/dev/pts/");
    assert_eq!(exec.wait().expect("docker exec").code(), Some(4), "{}", terminal.rest());

    docker.run(&["pause", "box"]).success();
    let outcome = docker.run(&["ps", "--format", "{{.Status}}"]).success();
    assert!(outcome.stdout.contains("(Paused)"), "{outcome:#?}");
    docker.run(&["unpause", "box"]).success();
    let top = docker.run(&["top", "box"]).success();
    assert!(top.stdout.contains("sh -c trap"), "the relay, under the container's command line: {top:#?}");
    let stats =
        docker.run(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}"]).success();
    let stats: Vec<_> = stats.stdout.split_whitespace().collect();
    assert_eq!(stats[0], "box");
    assert!(stats[1].parse::<u32>().expect("PIDs") > 0, "{stats:?}");
    // Of the relay on the host, or, by the own shim, of the container in its guest.
    assert!(stats[2].ends_with("MiB") || stats[2].ends_with("KiB"), "{stats:?}");

    let mut attached = docker.command(&["attach", "--no-stdin", "box"]);
    let attached = attached.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let attached = attached.spawn().expect("docker attach");
    // The client refuses a container that has stopped before it looks.
    docker.wait_for_event("attach", "box");
    docker.run(&["stop", "--time", "60", "box"]).success();
    let attached = Outcome::wait(attached, "docker attach");
    assert_eq!(attached.status, 5, "{attached:#?}");
    let outcome =
        docker.run(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box"]).success();
    assert_eq!(outcome.stdout, "exited 5\n");
    let logs = docker.run(&["logs", "box"]).success();
    assert_eq!(logs.stdout, "out\nstopped\n", "{logs:#?}");
    assert_eq!(logs.stderr, "err\n", "{logs:#?}");
    docker.run(&["rm", "box"]).success();
    docker.assert_clean();
    jobs_share_what_the_page_on_ci_runners_says(&docker);
    containers_of_a_network_find_each_other_by_name(&docker);
}

/// Docker's resolver is in the network namespace on the host; what a container asks in its first moment is answered, too.
fn containers_of_a_network_find_each_other_by_name(docker: &Docker) {
    docker.run(&["network", "create", "names"]).success();
    let run = |options: &[&str], args: &[&str]| {
        let head = ["run", "--network", "names"];
        docker.run(&[&head, options, &[IMAGE], args].concat()).success().stdout
    };
    run(&["-d", "--name", "web"], &["sleep", "1000"]);
    let format = "{{.NetworkSettings.Networks.names.IPAddress}}";
    let address = docker.run(&["inspect", "--format", format, "web"]).success().stdout;
    let address = address.trim_end();
    // The same question by TCP: its length, a header, `web`, A, IN. The answer, with its length, has one record of 19 bytes more.
    let question = r"\000\025\022\064\001\000\000\001\000\000\000\000\000\000\003web\000\000\001\000\001";
    let script = format!("nslookup web; printf '{question}' | timeout 20 nc 127.0.0.11 53 | wc -c");
    let found = run(&["--rm"], &["sh", "-c", &script]);
    assert!(found.contains(&format!("Address: {address}\n")) && found.ends_with("42\n"), "{found}");
    docker.run(&["rm", "--force", "web"]).success();
    docker.run(&["network", "rm", "names"]).success();
    docker.assert_clean();
}

/// The commands of docs/ci-runners.md: two jobs, one after the other, each in a machine of its own.
fn jobs_share_what_the_page_on_ci_runners_says(docker: &Docker) {
    let options =
        ["--rm", "--runtime", "stockade", "--memory", "256m", "-v", "builds:/builds", "-v", "cache:/cache"];
    let job = |args: &[&str]| docker.container(&options, args).success();
    job(&["sh", "-c", "date > /cache/last; echo built > /builds/result"]);
    let outcome = job(&["cat", "/builds/result", "/cache/last"]);
    assert!(outcome.stdout.starts_with("built\n") && outcome.stdout.lines().count() == 2, "{outcome:#?}");
    docker.run(&["volume", "rm", "builds", "cache"]).success();
    docker.assert_clean();
}

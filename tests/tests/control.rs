//! Commands on a container that is there: pause, resume, ps, list and update.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host;
use stockade_tests::shell::Shell;

fn json(outcome: Outcome) -> Value {
    let outcome = outcome.success();
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:#?}"))
}

/// CPU time that the container has used, in nanoseconds.
fn cpu_time(shell: &Shell<'_>) -> u64 {
    let stats = json(shell.run(&["events", "--stats"]));
    stats["data"]["cpu"]["usage"]["total"].as_u64().expect("cpu time")
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "pausing", |_| {});
    let counter = shell.bundle.rootfs().join("counter");
    let count = || fs::read_to_string(&counter).unwrap_or_default();
    shell.ask("trap 'echo signalled' USR1; (while :; do n=$((n+1)); echo $n > /counter; done) &");
    while count().is_empty() {
        shell.ask("true");
    }

    shell.run(&["pause"]).success();
    assert_eq!(stockade.status("pausing"), "paused");
    assert!(stockade.run(&["list"]).success().stdout.contains("paused"));
    let (before, used) = (count(), cpu_time(&shell));
    assert!(used > 0);
    assert_eq!(cpu_time(&shell), used, "it has gone on");
    shell.tell("echo typed");
    stockade.run(&["kill", "pausing", "USR1"]).success();
    assert!(shell.run(&["ps"]).success().stdout.contains("/bin/sh"), "ps works");
    shell.run(&["pause"]).failure(1, &["cannot pause", "container not running", "paused"]);
    shell.run(&["start"]).failure(1, &["cannot start", "paused"]);
    shell.run(&["delete"]).failure(1, &["pausing", "paused"]);
    assert_eq!(count(), before, "it has gone on");

    shell.run(&["resume"]).success();
    assert_eq!(stockade.status("pausing"), "running");
    let answer = shell.answer();
    assert!(answer.contains("typed") && answer.contains("signalled"), "{answer:?}");
    while count() == before {
        shell.ask("true");
    }
    shell.run(&["resume"]).failure(1, &["container not paused"]);

    shell.run(&["pause"]).success();
    stockade.run(&["kill", "pausing", "KILL"]).success();
    assert_eq!(shell.end(), 137);
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
}

#[test]
fn a_created_container_can_be_paused_listed_and_measured() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let relay = stockade.create(&bundle, "early");
    stockade.run(&["resume", "early"]).failure(1, &["container not paused"]);
    stockade.run(&["pause", "early"]).success();
    assert_eq!(stockade.status("early"), "paused");
    stockade.run(&["start", "early"]).failure(1, &["cannot start", "paused"]);
    stockade.run(&["resume", "early"]).success();
    assert_eq!(stockade.status("early"), "created");
    assert_eq!(json(stockade.run(&["ps", "--format", "json", "early"])), serde_json::json!([relay]));
    assert_eq!(stockade.run(&["ps", "early"]).success().stdout.lines().count(), 2);
    stockade.run(&["events", "--stats", "early"]).success();

    stockade.run(&["start", "early"]).success();
    stockade.run(&["pause", "early"]).success();
    stockade.run(&["delete", "--force", "early"]).success();
    stockade.run(&["state", "early"]).failure(1, &["does not exist"]);
}

#[test]
fn ps_shows_the_containers_processes_and_the_hosts_relays() {
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "shown", |config| {
        config["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 1000 });
    });
    // One with a name that would clear the screen. All are there, and as they will be, when the shell answers.
    shell.ask("busybox mkfifo /dev/shm/never /dev/shm/ready; name=$(printf 'a\\033[2Jb')");
    shell.ask(
        "sh -c 'echo > /dev/shm/ready; read line < /dev/shm/never' \"$name\" & read line < /dev/shm/ready",
    );
    shell.ask("sleep 1000 & until grep -q sleep /proc/$!/cmdline; do :; done");
    let table = shell.run(&["ps"]).success().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(rows[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let find = |command: &str| {
        let row = rows.iter().find(|row| row[7..].join(" ") == command);
        row.unwrap_or_else(|| panic!("{command} in {table}"))
    };
    let init = find("/bin/sh");
    assert_eq!((init[0], init[1], init[2], init[5]), ("1000", "1", "0", "?"), "{table}");
    assert_eq!(find("sleep 1000")[2], "1", "{table}");
    assert!(table.contains("[2Jb") && !table.contains('\u{1b}'), "{table}");
    assert_eq!(stockade.run(&["ps", "shown", "-ef"]).success().stdout.lines().count(), rows.len());

    let relay = stockade.state("shown")["pid"].clone();
    for args in [["ps", "--format", "json", "shown"], ["ps", "shown", "-f", "json"]] {
        assert_eq!(json(stockade.run(&args)), serde_json::json!([relay]));
    }
    // Further processes have relays of their own, and a parent that the container does not see.
    let pid_file = shell.bundle.path().join("exec.pid");
    let exec = ["exec", "--detach", "--pid-file", text(&pid_file), "shown", "sleep", "3000"];
    let log = fs::File::create(shell.bundle.path().join("exec.log")).expect("log");
    let mut command = stockade.command(&exec);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status().expect("exec");
    assert!(status.success());
    let exec_relay: i32 = fs::read_to_string(pid_file).expect("pid file").trim().parse().expect("pid");
    assert_eq!(json(stockade.run(&["ps", "-f", "json", "shown"])), serde_json::json!([relay, exec_relay]));
    let table = shell.run(&["ps"]).success().stdout;
    let row = table.lines().find(|line| line.ends_with(" sleep 3000")).expect("the new process");
    assert_eq!(row.split_ascii_whitespace().nth(2), Some("0"), "{table}");
    stockade.run(&["kill", "shown", "KILL"]).success();
    assert_eq!(shell.end(), 137);
}

#[test]
fn without_a_pid_namespace_ps_shows_the_container_and_not_the_guest() {
    let stockade = Stockade::new();
    let shell = Shell::start(&stockade, "guests", |config| {
        config["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }, { "type": "network" }]);
    });
    let table = shell.run(&["ps"]).success().stdout;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().all(|line| line.split_ascii_whitespace().nth(1) != Some("1")), "{table}");
    assert_eq!(shell.end(), 0);
}

#[test]
fn list_shows_what_there_is_and_survives_what_is_damaged() {
    let stockade = Stockade::new();
    assert_eq!(stockade.run(&["list", "--format", "json"]).success().stdout, "[]\n");
    assert_eq!(stockade.run(&["list", "-q"]).success().stdout, "");
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let relay = stockade.create(&bundle, "ended");
    stockade.run(&["start", "ended"]).success();
    stockade.run(&["kill", "ended", "KILL"]).success();
    host::wait_for_end(relay);
    let relay = stockade.create(&bundle, "waiting");
    for (name, content) in [("damaged", Some("{")), ("half-made", None)] {
        fs::create_dir(stockade.root().join(name)).expect("mkdir");
        if let Some(content) = content {
            fs::write(stockade.root().join(name).join("state.json"), content).expect("write");
        }
    }
    fs::write(stockade.root().join("a-file"), "").expect("write");

    let outcome = stockade.run(&["--log-level", "warn", "list"]).success();
    let rows: Vec<Vec<&str>> =
        outcome.stdout.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!((rows.len(), &rows[1][..4]), (3, &["ended", "0", "stopped", text(bundle.path())][..]));
    assert_eq!(rows[2][..3], ["waiting", &relay.to_string(), "created"]);
    assert_eq!(rows[2][5], "root");
    for name in ["damaged", "half-made"] {
        assert!(outcome.stderr.contains(name) && outcome.stderr.contains("delete --force"), "{outcome:#?}");
    }
    let list = json(stockade.run(&["list", "-f", "json"]));
    assert_eq!(list[1], stockade.state("waiting"));
    assert_eq!(stockade.run(&["list", "--quiet"]).success().stdout, "ended\nwaiting\n");
    for id in ["ended", "waiting", "damaged", "half-made"] {
        stockade.run(&["delete", "--force", id]).success();
    }
}

#[test]
fn one_vm_that_hangs_does_not_hide_the_others() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let relay = stockade.create(&bundle, "hangs");
    stockade.run(&["start", "hangs"]).success();
    let vmm = stockade.vmm_pid(relay);
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(vmm, libc::SIGSTOP) }, 0);
    // 99 more that hang just so.
    for n in 0..99 {
        let copy = stockade.root().join(format!("copy-{n}"));
        fs::create_dir(&copy).expect("mkdir");
        for file in ["state.json", "agent.sock", "vmm-2.sock"] {
            fs::hard_link(stockade.root().join("hangs").join(file), copy.join(file)).expect("link");
        }
    }
    let mut list = stockade.command(&["list", "--quiet"]);
    let list = list.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("list");
    let begun = std::time::Instant::now();
    let outcome = Outcome::wait(list, "list").success();
    assert!(begun.elapsed().as_secs() < 60, "list took {:?}", begun.elapsed());
    assert_eq!(outcome.stdout.lines().count(), 100);
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(vmm, libc::SIGCONT) }, 0);
    for n in 0..99 {
        fs::remove_dir_all(stockade.root().join(format!("copy-{n}"))).expect("remove");
    }
    stockade.run(&["delete", "--force", "hangs"]).success();
}

/// A file of the container's cgroup on the host.
fn on_host(stockade: &Stockade, id: &str, file: &str) -> String {
    let relay = stockade.state(id)["pid"].as_i64().expect("pid") as i32;
    let cgroup = host::cgroup_of(relay).expect("cgroup");
    let path = format!("/sys/fs/cgroup{cgroup}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim_end().to_owned()
}

#[test]
fn update_changes_each_limit_where_it_holds() {
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "limited", |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
    });
    let update = |args: &[&str]| stockade.run(&[&["update"], args, &["limited"]].concat());
    for (args, file, value) in [
        (&["--memory", "48m"][..], "memory.max", "50331648"),
        (&["--memory-reservation", "16MiB"], "memory.low", "16777216"),
        (&["--memory-swap", "96m"], "memory.swap.max", "50331648"),
        (&["--cpu-quota", "20000"], "cpu.max", "20000 100000"),
        (&["--cpu-period", "50000"], "cpu.max", "20000 50000"),
        (&["--cpu-burst", "10000"], "cpu.max.burst", "10000"),
        (&["--cpu-burst", "0", "--cpu-quota", "-1"], "cpu.max", "max 50000"),
        (&["--cpu-share", "2048"], "cpu.weight", "174"),
        (&["--cpu-idle", "1"], "cpu.idle", "1"),
        (&["--cpu-idle", "0"], "cpu.idle", "0"),
        (&["--pids-limit", "33"], "pids.max", "33"),
        (&["--blkio-weight", "500"], "io.weight", "default 4950"),
        // What has no effect in cgroup v2 changes nothing.
        (&["--cpu-rt-period", "1000", "--cpu-rt-runtime", "1", "--kernel-memory", "4m"], "pids.max", "33"),
    ] {
        assert_eq!(update(args).success().stderr, "");
        assert_eq!(shell.cgroup(file), value, "{args:?}");
    }
    update(&["--cpuset-cpus", "0", "--cpuset-mems", "0"]).success();
    for (file, value) in
        [("cpuset.cpus", "0"), ("cpuset.mems", "0"), ("io.weight", "default 4950"), ("pids.max", "max")]
    {
        assert_eq!(on_host(&stockade, "limited", file), value, "{file}");
    }

    // What cannot be done leaves everything as it was, on both sides.
    let weights = (shell.cgroup("cpu.weight"), on_host(&stockade, "limited", "cpu.weight"));
    update(&["--cpu-share", "512", "--cpu-quota", "30000", "--cpu-burst", "99999999"])
        .failure(1, &["linux.resources.cpu.burst"]);
    // Only the guest's kernel knows which sizes of pages it has.
    let file = shell.bundle.path().join("resources.json");
    let resources = r#"{"cpu":{"shares":512,"quota":30000},"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#;
    fs::write(&file, resources).expect("write");
    update(&["--resources", text(&file)]).failure(1, &["linux.resources", "hugetlb.3MB"]);
    assert_eq!(shell.cgroup("cpu.max"), "max 50000");
    assert_eq!((shell.cgroup("cpu.weight"), on_host(&stockade, "limited", "cpu.weight")), weights);
    update(&["--memory", "100g"]).failure(1, &["memory.limit", "MiB", "VM"]);
    update(&["--memory", "lots"]).failure(1, &["--memory", "64m"]);
    update(&["--l3-cache-schema", "L3:0=f"]).failure(1, &["--l3-cache-schema"]);
    assert_eq!(shell.cgroup("memory.max"), "50331648");

    let mut command = stockade.command(&["update", "--resources", "-", "limited"]);
    let resources = r#"{"memory":{"limit":41943040},"cpu":{"quota":40000,"period":80000},"pids":{"limit":0},
            "hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    Outcome::of(&mut command, resources.as_bytes()).success();
    assert_eq!(
        (shell.cgroup("memory.max"), shell.cgroup("cpu.max")),
        ("41943040".into(), "40000 80000".into())
    );
    assert_eq!((shell.cgroup("pids.max"), shell.cgroup("hugetlb.2MB.max")), ("33".into(), "4194304".into()));
    fs::write(&file, r#"{"memory":{"limit":1,"checkBeforeUpdate":true},"cpu":{"period":"x"}}"#)
        .expect("write");
    update(&["--resources", text(&file)]).failure(1, &["resources.json", "cpu.period"]);
    fs::write(&file, r#"{"memory":{"limit":600000,"checkBeforeUpdate":true}}"#).expect("write");
    update(&["-r", text(&file)]).failure(1, &["memory.limit", "uses"]);

    shell.run(&["pause"]).success();
    update(&["--pids-limit", "-1"]).success();
    shell.run(&["resume"]).success();
    assert_eq!(shell.cgroup("pids.max"), "max");
    assert_eq!(shell.end(), 0);
}

#[test]
fn engines_find_the_vm_in_the_hosts_cgroup() {
    let stockade = Stockade::new();
    let shell = Shell::start(&stockade, "measured", |config| {
        config["linux"]["resources"] = serde_json::json!({
            "memory": { "limit": 64 << 20 }, "pids": { "limit": 50 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0" },
            "blockIO": { "weight": 100 },
        });
    });
    let relay = stockade.state("measured")["pid"].as_i64().expect("pid") as i32;
    let vmm = stockade.vmm_pid(relay);
    let read = |file: &str| on_host(&stockade, "measured", file);
    let pids: Vec<i32> = read("cgroup.procs").lines().map(|pid| pid.parse().expect("pid")).collect();
    assert!(pids.contains(&relay) && pids.contains(&vmm), "{pids:?}");
    let number = |file: &str| read(file).parse::<u64>().unwrap_or_else(|e| panic!("{file}: {e}"));
    // The guest's RAM, as far as it was touched, and what the VMM itself needs.
    assert!(number("memory.current") > 16 << 20);
    assert!(number("memory.max") > 64 << 20);
    assert!(number("pids.current") >= 3, "the relay and the VMM's threads");
    assert!(read("cpu.stat").lines().any(|line| line.starts_with("usage_usec") && !line.ends_with(" 0")));
    read("io.stat");
    // Weights and CPU sets hold for the VM; limits of CPU time and processes are the guest's.
    assert_eq!(read("cpuset.cpus"), "0");
    assert_eq!(read("io.weight"), "default 910");
    assert_eq!(read("pids.max"), "max");
    assert!(read("cpu.max").starts_with("max "));
    assert!(number("cpu.weight") < 100);
    assert_eq!(shell.end(), 0);
}

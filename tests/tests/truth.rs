//! What commands say is true, whatever else happens to a container at the same time, or has happened to the host.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::{self, Snapshot};

/// A `create` that has been started, and where its stderr goes: the container would keep a pipe open.
struct Creating(Child, std::path::PathBuf);

impl Creating {
    fn start(stockade: &Stockade, bundle: &Bundle, id: &str, name: &str) -> Self {
        let log = bundle.path().join(name);
        let child = stockade
            .command(&["create", "-b", text(bundle.path()), id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("log"))
            .spawn()
            .expect("create");
        Self(child, log)
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let status = self.0.wait().expect("wait");
        (status.code(), fs::read_to_string(self.1).expect("log"))
    }
}

/// Starts a command whose output is piped.
fn begin(stockade: &Stockade, args: &[&str]) -> Child {
    let mut command = stockade.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("command")
}

fn end(child: Child) -> Outcome {
    Outcome::wait(child, "stockade")
}

fn sleeper() -> Bundle {
    Bundle::busybox(&["sleep", "1000"])
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}");
}

/// Changes state.json as an accident would.
fn edit_record(stockade: &Stockade, id: &str, change: impl FnOnce(&mut Value)) {
    let path = stockade.root().join(id).join("state.json");
    let mut record = serde_json::from_slice(&fs::read(&path).expect("state.json")).expect("JSON");
    change(&mut record);
    fs::write(path, record.to_string()).expect("write");
}

#[test]
fn of_two_creates_one_wins_and_the_other_leaves_it_alone() {
    let stockade = Stockade::new();
    let bundle = sleeper();
    let before = Snapshot::take();
    let both = ["first.log", "second.log"].map(|name| Creating::start(&stockade, &bundle, "same", name));
    let mut outcomes = both.map(Creating::wait);
    outcomes.sort();
    let [winner, loser] = outcomes;
    assert_eq!(winner, (Some(0), String::new()));
    assert_eq!(loser.0, Some(1));
    assert!(loser.1.contains("exists") && loser.1.contains("same"), "{}", loser.1);
    stockade.run(&["start", "same"]).success();
    stockade.run(&["create", "-b", text(bundle.path()), "same"]).failure(1, &["exists"]);
    assert_eq!(stockade.status("same"), "running");
    stockade.run(&["delete", "--force", "same"]).success();
    before.assert_same_now();
}

#[test]
fn a_delete_at_any_time_of_a_create_leaves_nothing() {
    let stockade = Stockade::new();
    let bundle = sleeper();
    let before = Snapshot::take();
    // The delete comes once the create has come as far as this file.
    for file in ["state.json", "vmm-2.sock", "console.log"] {
        let creating = Creating::start(&stockade, &bundle, "both", "create.log");
        let path = stockade.root().join("both").join(file);
        while !path.exists() {
            std::thread::yield_now();
        }
        stockade.run(&["delete", "--force", "both"]).success();
        let (status, log) = creating.wait();
        assert!(status == Some(0) || log.trim_end().lines().count() == 1, "{status:?} {log}");
        stockade.run(&["delete", "--force", "both"]).success();
        before.assert_same_now();
    }
}

#[test]
fn start_and_kill_and_two_deletes_take_turns() {
    let stockade = Stockade::new();
    let bundle = sleeper();
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "turns");
    let starting = begin(&stockade, &["start", "turns"]);
    let killing = begin(&stockade, &["kill", "turns", "KILL"]);
    let started = end(starting);
    end(killing).success();
    if started.status != 0 {
        started.failure(1, &["start"]);
    }
    host::wait_for_end(relay);
    assert_eq!(stockade.status("turns"), "stopped");
    let mut deletes = [0, 1].map(|_| begin(&stockade, &["delete", "turns"])).map(end);
    deletes.sort_by_key(|outcome| outcome.status);
    let [first, second] = deletes;
    assert_eq!((first.status, first.stderr.as_str()), (0, ""));
    second.failure(1, &["turns", "does not exist"]);
    before.assert_same_now();

    stockade.create(&bundle, "forced");
    for outcome in [0, 1].map(|_| begin(&stockade, &["delete", "--force", "forced"])).map(end) {
        assert_eq!(outcome.success().stderr, "");
    }
    before.assert_same_now();
}

#[test]
fn an_earlier_boots_container_is_stopped_and_its_pids_are_others() {
    let stockade = Stockade::new();
    let bundle = sleeper().edit(|config| config["linux"]["cgroupsPath"] = "/stale".into());
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "stale");
    kill(relay, libc::SIGKILL);
    host::wait_for_end(relay);
    let mut bystander = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let pid = bystander.id() as i32;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let start_time: u64 = stat
        .rsplit_once(')')
        .expect("stat")
        .1
        .split_whitespace()
        .nth(19)
        .expect("field")
        .parse()
        .expect("time");
    // The PID alone, as after its reuse; then the whole reference, as the same moment of another boot would have it.
    for reused in [json!({ "pid": pid, "start_time": 1 }), json!({ "pid": pid, "start_time": start_time })] {
        edit_record(&stockade, "stale", |record| {
            record["relay"] = reused.clone();
            record["vmm"] = reused;
            record["boot_id"] = "another boot".into();
        });
        let state = stockade.state("stale");
        assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
        stockade.run(&["kill", "stale", "KILL"]).failure(1, &["container not running"]);
        stockade.run(&["start", "stale"]).failure(1, &["stopped"]);
    }
    stockade.run(&["delete", "stale"]).success();
    assert!(
        bystander.try_wait().expect("wait").is_none(),
        "delete has killed a process that is not the container's"
    );
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
    // No reboot has removed it.
    fs::remove_dir("/sys/fs/cgroup/stale").expect("its cgroup");
    before.assert_same_now();
}

#[test]
fn another_root_is_another_world() {
    let (here, there) = (Stockade::new(), Stockade::new());
    let bundle = |path: &str| sleeper().edit(|config| config["linux"]["cgroupsPath"] = path.into());
    let bundles = [bundle("/here/same"), bundle("/there/same")];
    let before = Snapshot::take();
    here.create(&bundles[0], "same");
    there.run(&["state", "same"]).failure(1, &["does not exist"]);
    there.run(&["delete", "--force", "same"]).success();
    there.create(&bundles[1], "same");
    there.run(&["start", "same"]).success();
    assert_eq!((here.status("same"), there.status("same")), ("created".into(), "running".into()));
    there.run(&["delete", "--force", "same"]).success();
    assert_eq!(here.status("same"), "created");
    here.run(&["delete", "same"]).success();
    before.assert_same_now();
}

#[test]
fn a_container_outlives_its_bundles_directory() {
    let stockade = Stockade::new();
    let bundle = sleeper();
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "orphan");
    // config.json and what lies around it; the rootfs is in use.
    fs::remove_file(bundle.path().join("config.json")).expect("remove");
    let moved = bundle.path().with_extension("moved");
    fs::rename(bundle.path(), &moved).expect("move the bundle away");
    assert_eq!(stockade.state("orphan")["bundle"], text(bundle.path()));
    stockade.run(&["start", "orphan"]).success();
    stockade.run(&["kill", "orphan", "KILL"]).success();
    host::wait_for_end(relay);
    assert_eq!(stockade.status("orphan"), "stopped");
    stockade.run(&["delete", "orphan"]).success();
    fs::rename(moved, bundle.path()).expect("move it back");
    before.assert_same_now();
}

#[test]
fn a_damaged_record_is_named_and_its_container_removed_all_the_same() {
    let stockade = Stockade::new();
    let bundle = sleeper().edit(|config| config["linux"]["cgroupsPath"] = "/damaged".into());
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "damaged");
    let vmm = stockade.vmm_pid(relay);
    stockade.run(&["start", "damaged"]).success();
    fs::write(stockade.root().join("damaged/state.json"), "{\"id\": \"dam").expect("write");
    for args in
        [&["state", "damaged"][..], &["start", "damaged"], &["kill", "damaged"], &["delete", "damaged"]]
    {
        stockade.run(args).failure(1, &["state.json", "damaged", "delete --force"]);
    }
    stockade.run(&["delete", "--force", "damaged"]);
    host::wait_for_end(relay);
    host::wait_for_end(vmm);
    // Which cgroup it was, only the record knew.
    fs::remove_dir("/sys/fs/cgroup/damaged").expect("its cgroup");
    before.assert_same_now();
}

#[test]
fn a_hundred_containers_are_listed_and_the_living_told_from_the_dead() {
    let stockade = Stockade::new();
    let bundles = [sleeper(), sleeper(), sleeper()];
    let before = Snapshot::take();
    let relay = stockade.create(&bundles[0], "dead-0");
    kill(relay, libc::SIGKILL);
    host::wait_for_end(relay);
    let record = fs::read(stockade.root().join("dead-0/state.json")).expect("state.json");
    for number in 1..98 {
        let id = format!("dead-{number}");
        let mut record: Value = serde_json::from_slice(&record).expect("JSON");
        record["id"] = id.as_str().into();
        fs::create_dir(stockade.root().join(&id)).expect("directory");
        fs::write(stockade.root().join(&id).join("state.json"), record.to_string()).expect("write");
    }
    stockade.create(&bundles[1], "waiting");
    stockade.create(&bundles[2], "alive");
    stockade.run(&["start", "alive"]).success();

    let listed: Value =
        serde_json::from_str(&stockade.run(&["list", "-f", "json"]).success().stdout).expect("JSON");
    let listed = listed.as_array().expect("array");
    assert_eq!(listed.len(), 100);
    for container in listed {
        let id = container["id"].as_str().expect("id");
        let status = match id {
            "waiting" => "created",
            "alive" => "running",
            _ => "stopped",
        };
        assert_eq!(container["status"], status, "{id}");
        assert_eq!(container["pid"] == 0, status == "stopped", "{id}");
    }
    assert_eq!(stockade.run(&["list", "--quiet"]).success().stdout.lines().count(), 100);
    assert_eq!(stockade.run(&["list"]).success().stdout.lines().count(), 101);

    // Most are only records.
    for number in 1..98 {
        fs::remove_dir_all(stockade.root().join(format!("dead-{number}"))).expect("remove");
    }
    for id in ["dead-0", "waiting", "alive"] {
        stockade.run(&["delete", "--force", id]).success();
    }
    assert_eq!(stockade.run(&["list", "-q"]).success().stdout, "");
    before.assert_same_now();
}

/// A creator that is killed while its VM hangs: neither can undo anything.
#[test]
fn a_half_created_container_is_stopped_and_can_be_deleted() {
    let stockade = Stockade::new();
    let bundle = sleeper();
    let before = Snapshot::take();
    let creating = Creating::start(&stockade, &bundle, "half", "create.log");
    let vmm = loop {
        if let Some(vmm) = host::pids_named("stockade-vmm").first() {
            break *vmm;
        }
        std::thread::yield_now();
    };
    kill(vmm, libc::SIGSTOP);
    assert_eq!(stockade.status("half"), "creating");
    kill(creating.0.id() as i32, libc::SIGKILL);
    creating.wait();
    assert_eq!(stockade.state("half")["pid"], 0);
    assert_eq!(stockade.status("half"), "stopped");
    stockade.run(&["start", "half"]).failure(1, &["stopped"]);
    stockade.run(&["kill", "half"]).failure(1, &["container not running"]);
    stockade.run(&["delete", "half"]).success();
    before.assert_same_now();
}

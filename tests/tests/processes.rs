//! The processes of a VM on the host: what they may do, and what becomes of a container when one of them ends or hangs.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::hanging::Hanging;
use stockade_tests::host;
use stockade_tests::shell::Shell;

/// Makes the container a member of this pod.
fn join(config: &mut serde_json::Value, sandbox: &str) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox,
    });
}

/// The file server in the same cgroup.
fn file_server(vmm: i32) -> i32 {
    host::pids_named("stockade-files")
        .into_iter()
        .find(|&pid| host::cgroup_of(pid) == host::cgroup_of(vmm))
        .expect("a stockade-files in the VMM's cgroup")
}

fn mounts(pid: i32) -> Vec<String> {
    let mountinfo = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    mountinfo.lines().map(str::to_owned).collect()
}

#[test]
fn the_vmm_is_nobody_and_its_file_server_has_only_files() {
    let stockade = Stockade::new();
    let vmm = stockade.vmm_pid(stockade.create(&Bundle::busybox(&["sleep", "1000"]), "c"));
    let other = stockade.vmm_pid(stockade.create(&Bundle::busybox(&["sleep", "1000"]), "d"));
    let users =
        |pid| host::status_field(pid, "Uid").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(
        users(vmm).iter().all(|user| *user == users(vmm)[0] && user.parse::<u32>().unwrap() >= 2_000_000_000)
    );
    assert_ne!(users(vmm), users(other), "a user for each");
    assert_eq!(host::status_field(vmm, "Uid"), host::status_field(vmm, "Gid"));
    let files = file_server(vmm);
    for (pid, capabilities) in [(vmm, 0), (files, 0x8800_00db)] {
        for (set, expected) in
            [("CapPrm", capabilities), ("CapEff", capabilities), ("CapBnd", 0), ("CapInh", 0), ("CapAmb", 0)]
        {
            let found = u64::from_str_radix(&host::status_field(pid, set), 16).expect("hexadecimal");
            assert_eq!(found, expected, "{set} of {pid}");
        }
        assert_eq!(host::status_field(pid, "Groups"), "");
        assert_eq!(host::status_field(pid, "NoNewPrivs"), "1");
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
        for task in tasks.flatten() {
            let status = fs::read_to_string(task.path().join("status")).expect("status");
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
        let mounts = mounts(pid);
        assert!(mounts.len() == 1 && mounts[0].contains(" / / ro,nosuid,nodev,noexec"), "{mounts:?}");
        let root = fs::read_dir(format!("/proc/{pid}/root")).expect("root");
        assert_eq!(root.count(), 0, "an empty root");
    }
    let open = |pid: i32| -> Vec<String> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    };
    assert!(
        open(files).iter().all(|link| !link.contains("kvm") && !link.contains("eventfd")),
        "{:?}",
        open(files)
    );
    for id in ["c", "d"] {
        stockade.run(&["delete", "--force", id]).success();
    }
    host::wait_for_end(files);
}

#[test]
fn a_user_is_reserved_in_a_range_of_the_configuration() {
    let stockade = Stockade::with_config("vmm_users = { first = 3000000000, count = 1 }\n");
    let vmm = stockade.vmm_pid(stockade.create(&Bundle::busybox(&["sleep", "1000"]), "c"));
    assert!(host::status_field(vmm, "Uid").starts_with("3000000000"));
    stockade.run_bundle(&Bundle::busybox(&["true"]), "d").failure(1, &["all 1 users", "vmm_users.count"]);
    stockade.run(&["delete", "--force", "c"]).success();
    stockade.run_bundle(&Bundle::busybox(&["true"]), "d").success();
}

#[test]
fn either_process_of_a_vm_takes_the_other_along() {
    let stockade = Stockade::new();
    for victim in ["stockade-vmm", "stockade-files"] {
        let before = host::Snapshot::take();
        let bundle = Bundle::busybox(&["sleep", "1000"]);
        let relay = stockade.create(&bundle, "c");
        let vmm = stockade.vmm_pid(relay);
        let files = file_server(vmm);
        let killed = if victim == "stockade-vmm" { vmm } else { files };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL)
            .expect("kill");
        host::wait_for_end(vmm);
        host::wait_for_end(files);
        if victim == "stockade-files" {
            host::wait_for_end(relay);
            let logs = stockade.run(&["logs", "c"]).success().stdout;
            assert!(
                logs.contains("stockade-vmm: the file server was killed by signal 9 (SIGKILL)"),
                "{logs}"
            );
        }
        assert_eq!(stockade.status("c"), "stopped");
        stockade.run(&["delete", "c"]).success();
        drop(bundle);
        before.assert_same_now();
    }
}

#[test]
fn a_file_system_that_hangs_holds_up_no_other_container() {
    let stockade = Stockade::new();
    let pod = Bundle::busybox(&["sleep", "1000"]);
    stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    let directory = tempfile::tempdir().expect("directory");
    let hanging = Hanging::mount(directory.path());
    let mut stuck = Shell::start(&stockade, "stuck", |config| {
        join(config, "pod");
        let mount = json!({
            "destination": "/hanging", "type": "bind", "source": text(directory.path()), "options": ["rbind"],
        });
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    let mut free = Shell::start(&stockade, "free", |config| join(config, "pod"));
    stuck.ask("for i in 1 2 3 4 5 6 7 8 9; do cat /hanging/$i > /dev/null 2>&1 & done");
    // Nothing of it comes from a cache.
    let script = "for i in $(seq 20); do echo $i > /file$i; cat /file$i; rm /file$i; done; ls /bin | wc -l";
    let begin = Instant::now();
    let answer = free.ask(script);
    assert!(answer.starts_with("1\n2\n3\n"), "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    // A new member gets its files all the same, and one that goes takes its share along.
    stockade.run_bundle(&Bundle::script("echo new").edit(|config| join(config, "pod")), "new").success();
    drop(hanging);
    let answer = stuck.ask("wait; echo over");
    assert_eq!(answer, "over\n");
    assert_eq!((stuck.end(), free.end()), (0, 0));
    stockade.run(&["delete", "--force", "pod"]).success();
}

#[test]
fn a_container_may_have_more_mounts_than_a_message_has_descriptors() {
    let stockade = Stockade::new();
    let directory = tempfile::tempdir().expect("directory");
    let bundle = Bundle::script("cat /m/*/f | awk '{ s += $1 } END { print s }'; ls /m | wc -l").edit(|config| {
        for index in 1..=300 {
            let source = directory.path().join(index.to_string());
            fs::create_dir(&source).expect("directory");
            fs::write(source.join("f"), format!("{index}\n")).expect("file");
            let mount = json!({
                "destination": format!("/m/{index}"), "type": "bind", "source": text(&source), "options": ["rbind"],
            });
            config["mounts"].as_array_mut().expect("mounts").push(mount);
        }
    });
    let outcome = stockade.run_bundle(&bundle, "c").success();
    assert_eq!(outcome.stdout, "45150\n300\n");
}

#[test]
fn a_read_only_root_is_so_from_the_first_moment() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]).edit(|config| config["root"]["readonly"] = true.into());
    let vmm = stockade.vmm_pid(stockade.create(&bundle, "c"));
    // The file server's own view of the tree.
    let files = file_server(vmm);
    let rootfs = text(&bundle.rootfs()).to_owned();
    let flags: Vec<String> = fs::read_dir(format!("/proc/{files}/fd"))
        .expect("descriptors")
        .flatten()
        .map(|descriptor| descriptor.path())
        .filter(|path| fs::read_link(path).is_ok_and(|link| link == std::path::Path::new("/")))
        .map(|path| text(&path).to_owned())
        .collect();
    assert!(!flags.is_empty(), "{rootfs} is served");
    for path in flags {
        let written = fs::write(format!("{path}/planted"), "x");
        assert!(written.is_err(), "{path} can be written to");
    }
    assert!(!bundle.rootfs().join("planted").exists());
    stockade.run(&["delete", "--force", "c"]).success();
}

//! The relay of a container on the host: what callers find at the PID in the pid file, and the VMM beside it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host::{self, Snapshot};
use stockade_tests::shell::Shell;

fn namespace(pid: i32, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).expect("namespace").ino()
}

#[test]
fn it_stands_in_the_containers_namespaces_and_cgroup() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]).edit(|config| {
        config["linux"]["cgroupsPath"] = "/relay-test/inner".into();
    });
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "relayed");
    stockade.run(&["start", "relayed"]).success();

    let own = std::process::id() as i32;
    for kind in ["pid", "mnt", "ipc", "uts", "net"] {
        assert_ne!(namespace(relay, kind), namespace(own, kind), "{kind} namespace");
    }
    assert_eq!(host::status_field(relay, "NSpid").split_whitespace().nth(1), Some("1"), "PID 1 of its own");
    assert_eq!(
        host::status_field(relay, "NSsid").split_whitespace().next(),
        Some(relay.to_string().as_str())
    );
    assert_eq!(host::cgroup_of(relay).as_deref(), Some("/relay-test/inner"));
    assert_eq!(host::cgroup_of(stockade.vmm_pid(relay)).as_deref(), Some("/relay-test/inner"));
    // Its root is the bundle's rootfs: what is copied there is the container's, not the host's.
    fs::write(format!("/proc/{relay}/root/tmp/copied"), "in\n").expect("write through /proc/PID/root");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("tmp/copied")).expect("read"), "in\n");
    assert!(!std::path::Path::new("/tmp/copied").exists());
    // Its own /proc, which shows itself alone.
    let shown: Vec<_> = fs::read_dir(format!("/proc/{relay}/root/proc"))
        .expect("its /proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok())
        .collect();
    assert_eq!(shown, [1]);
    for entry in fs::read_dir(format!("/proc/{relay}/fd")).expect("fds").flatten() {
        let target = fs::read_link(entry.path()).expect("fd").display().to_string();
        let known = ["/dev/null", "socket:", "anon_inode:", "pipe:"];
        // The standard error that `create` was given here, where what the VMM says when it ends goes, and what metrics are asked by: two
        // sockets and the counters of its own network namespace.
        let given = ["/create.log", "/console.log", "/agent.sock", "/vmm-2.sock", "/net/dev"];
        let given = given.iter().any(|given| target.ends_with(given));
        assert!(given || known.iter().any(|known| target.starts_with(known)), "inherited {target}");
    }
    let command = fs::read(format!("/proc/{relay}/cmdline")).expect("cmdline");
    assert_eq!(command, b"sleep\x001000\0", "ps shows the container's command");
    stockade.run(&["delete", "--force", "relayed"]).success();
    before.assert_same_now();
}

#[test]
fn a_signal_sent_to_it_reaches_the_container() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("trap 'exit 33' USR2; touch /tmp/ready; while :; do sleep 0.1; done");
    let relay = stockade.create(&bundle, "signalled");
    stockade.run(&["start", "signalled"]).success();
    host::wait_for_file(&bundle.rootfs().join("tmp/ready"));
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(relay, libc::SIGUSR2) }, 0);
    host::wait_for_end(relay);
    assert_eq!(stockade.status("signalled"), "stopped");
    stockade.run(&["delete", "signalled"]).success();
}

#[test]
fn killing_it_ends_the_container_and_the_vmm() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "orphan");
    stockade.run(&["start", "orphan"]).success();
    let vmm = stockade.vmm_pid(relay);
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(relay, libc::SIGKILL) }, 0);
    host::wait_for_end(relay);
    host::wait_for_end(vmm);
    assert_eq!(stockade.status("orphan"), "stopped");
    stockade.run(&["delete", "orphan"]).success();
    before.assert_same_now();
}

#[test]
fn the_vmm_is_confined() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let relay = stockade.create(&bundle, "confined");
    stockade.run(&["start", "confined"]).success();
    let vmm = stockade.vmm_pid(relay);
    let own = std::process::id() as i32;
    for kind in ["pid", "mnt", "ipc", "uts", "net"] {
        assert_ne!(namespace(vmm, kind), namespace(own, kind), "{kind} namespace");
        assert_ne!(namespace(vmm, kind), namespace(relay, kind), "{kind} namespace");
    }
    // CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SETGID SETUID MKNOD SETFCAP, and never SYS_ADMIN.
    let file_server: u64 = [0, 1, 2, 3, 4, 6, 7, 27, 31].iter().map(|bit| 1u64 << bit).sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let bits = u64::from_str_radix(&host::status_field(vmm, set), 16).expect("hex");
        assert_eq!(bits & !file_server, 0, "{set} {bits:x}");
    }
    assert_eq!(host::status_field(vmm, "NoNewPrivs"), "1");
    for task in fs::read_dir(format!("/proc/{vmm}/task")).expect("tasks").flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("status");
        assert!(status.contains("Seccomp:\t2"), "every thread has a filter: {status}");
    }
    let root: Vec<_> = fs::read_dir(format!("/proc/{vmm}/root"))
        .expect("its root")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("name"))
        .collect();
    assert!(root.iter().all(|name| name == "proc" || name == "shares"), "{root:?}");
    stockade.run(&["delete", "--force", "confined"]).success();
}

#[test]
fn the_file_system_of_a_deleted_container_is_free() {
    let directory = stockade_tests::bundle::directory();
    let mount = directory.path().join("fs");
    fs::create_dir(&mount).expect("mkdir");
    let script = "truncate -s 64M $1/image && mkfs.ext4 -q $1/image && mount -o loop $1/image $1/fs";
    let run = |script: &str| {
        let status = std::process::Command::new("sh")
            .args(["-c", script, "sh", stockade_tests::cli::text(directory.path())])
            .status()
            .expect("sh");
        assert!(status.success(), "{script}");
    };
    run(script);
    stockade_tests::bundle::make_rootfs(&mount);
    let bundle = Bundle::script("find / -xdev -type f | xargs md5sum > /tmp/sums")
        .edit(|config| config["root"]["path"] = stockade_tests::cli::text(&mount).into());
    Stockade::new().run_bundle(&bundle, "loop").success();
    run("umount $1/fs && ! losetup -j $1/image | grep .");
}

#[test]
fn what_is_written_where_it_stands_is_the_containers_or_refused() {
    let host = stockade_tests::bundle::directory();
    for name in ["volume", "inner", "fake/fd", "kernel"] {
        fs::create_dir_all(host.path().join(name)).expect("mkdir");
    }
    fs::write(host.path().join("file"), "hosts\n").expect("write");
    fs::write(host.path().join("secret"), "secret\n").expect("write");
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "seen", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let mut bind = |name: &str, destination: &str, option: &str| {
            mounts
                .push(json!({ "destination": destination, "type": "bind", "source": host.path().join(name),
                                "options": ["rbind", option] }));
        };
        bind("volume", "/volume", "rw");
        bind("inner", "/volume/in/ner", "rw");
        bind("volume", "/readonly", "ro");
        bind("file", "/etc/hosts", "rw");
        // A link of the image's, and one that a container may have made in a volume.
        bind("inner", "/link/made", "rw");
        bind("inner", "/volume/escape/made", "rw");
        // Nothing of the relay's own is looked up there.
        bind("fake", "/proc/self", "rw");
        bind("fake", "/dev/shm", "rw");
        mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(
            json!({ "destination": "/kernel", "type": "bind", "source": "/sys", "options": ["rbind"] }),
        );
    });
    drop(shell.ask("echo guest > /tmp/file; echo guest > /volume/file; mkdir -p /volume/in"));
    let relay = stockade.state("seen")["pid"].as_i64().expect("PID");
    let root = std::path::PathBuf::from(format!("/proc/{relay}/root"));
    assert_eq!(fs::read_to_string(root.join("volume/file")).expect("volume"), "guest\n");
    for name in ["volume/copied", "volume/in/ner/copied", "dev/shm/copied", "etc/hosts"] {
        fs::write(root.join(name), "copied\n").unwrap_or_else(|error| panic!("{name}: {error}"));
        // /etc/hosts was shorter, and the guest may know that size for a second (docs/volumes.md).
        shell.ask(&format!("until [ $(wc -c < /{name}) = 7 ]; do :; done"));
        assert_eq!(shell.ask(&format!("cat /{name}")), "copied\n", "{name}");
    }
    for (name, errno) in [
        ("tmp/x", libc::ENOTCONN),
        ("tmp/file", libc::ENOTCONN),
        ("sys/x", libc::EROFS),
        ("dev/mqueue/x", libc::ENOTCONN),
        ("dev/x", libc::EROFS),
        ("readonly/x", libc::EROFS),
        ("kernel/x", libc::EROFS),
    ] {
        let refused = fs::write(root.join(name), "lost").expect_err(name);
        assert_eq!(refused.raw_os_error(), Some(errno), "{name}: {refused}");
    }
    assert!(fs::read(root.join("tmp/file")).is_err(), "read past the container's tmpfs");
    assert_eq!(fs::read_dir(host.path().join("fake/fd")).expect("fake").count(), 0);
    assert_eq!(shell.end(), 0);
}

//! podman and conmon, as Debian ships them, with stockade as their runtime.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use stockade_tests::cli::{Outcome, built, text};
use stockade_tests::engine::Podman;
use stockade_tests::host;
use stockade_tests::terminal::Terminal;

/// Lines `name=value` of a container's output.
fn values(outcome: &Outcome) -> BTreeMap<&str, &str> {
    outcome.stdout.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn run_carries_stdio_and_returns_the_status() {
    let podman = Podman::new();
    let script = "uname -r; cat; grep ^Seccomp: /proc/self/status; echo error >&2; exit 42";
    let mut command = podman.container_command(&["--rm", "-i"], &["sh", "-c", script]);
    let outcome = Outcome::of(&mut command, b"input\n");
    assert_eq!(outcome.status, 42, "{outcome:#?}");
    assert!(outcome.stdout.ends_with("-stockade\ninput\nSeccomp:\t2\n"), "{outcome:#?}");
    assert_eq!(outcome.stderr, "error\n", "{outcome:#?}");

    let outcome = podman.container(&["--rm"], &["nowhere"]);
    assert_eq!(outcome.status, 127, "{outcome:#?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:#?}");
    let outcome = podman.container(&["--rm"], &["/etc/passwd"]);
    assert_eq!(outcome.status, 126, "{outcome:#?}");
    assert!(outcome.stderr.contains("permission denied"), "{outcome:#?}");
    podman.assert_clean();
}

#[test]
fn a_detached_container_can_be_looked_at_copied_from_and_stopped() {
    let podman = Podman::new();
    let at = |name: &str| podman.path().join(name);
    let script = "trap 'echo stopped; exit 5' TERM; trap 'echo signalled' USR1; echo out; echo err >&2; \
                  while :; do sleep 0.2; done";
    fs::create_dir(at("volume")).expect("directory");
    let volume = format!("{}:/volume", at("volume").display());
    let options = ["-d", "--name", "box", "-v", &volume, "--tmpfs", "/scratch", "--shm-size", "5m"];
    podman.container(&options, &["sh", "-c", script]).success();
    let outcome = podman.run(&["ps", "--format", "{{.Names}} {{.Status}}"]).success();
    assert!(outcome.stdout.starts_with("box Up"), "{outcome:#?}");

    // What is looked at from the host: the relay under the container's command line, and the sandbox's use.
    let top = podman.run(&["top", "box", "pid", "args"]).success();
    assert!(top.stdout.contains("1 ") && top.stdout.contains("sh -c trap"), "{top:#?}");
    assert_eq!(top.stdout.lines().count(), 2, "{top:#?}");
    let stats = podman
        .run(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsageBytes}} {{.CPU}}", "box"])
        .success();
    let stats: Vec<_> = stats.stdout.split_whitespace().collect();
    assert!(stats[0].parse::<u32>().expect("PIDs") > 0, "{stats:?}");
    assert!(stats[1].ends_with("MiB"), "{stats:?}");

    fs::create_dir_all(at("directory/below")).expect("directory");
    fs::write(at("directory/below/file"), "copied\n").expect("file");
    podman.run(&["cp", text(&at("directory")), "box:/etc/stockade-copied"]).success();
    assert!(!Path::new("/etc/stockade-copied").exists(), "podman cp wrote to the host");
    podman.run(&["cp", "box:/etc/stockade-copied/below", text(&at("back"))]).success();
    assert_eq!(fs::read_to_string(at("back/file")).expect("file"), "copied\n");
    // Below mounts, too: what only the VM has is refused, and nothing is lost.
    podman.run(&["cp", text(&at("back/file")), "box:/volume/copied"]).success();
    assert_eq!(fs::read_to_string(at("volume/copied")).expect("volume"), "copied\n");
    podman.run(&["cp", text(&at("back/file")), "box:/dev/shm/copied"]).success();
    let script =
        "cat /volume/copied /dev/shm/copied; touch /volume/made /scratch/made; stat -f -c %b:%S /dev/shm";
    let inside = podman.run(&["exec", "box", "sh", "-c", script]).success();
    assert_eq!(inside.stdout, "copied\ncopied\n1280:4096\n");
    podman.run(&["cp", "box:/volume/made", text(&at("made"))]).success();
    // podman says of whatever it cannot look at that it cannot be found.
    for (from, to) in
        [(text(&at("back/file")), "box:/scratch/copied"), ("box:/scratch/made", text(&at("never")))]
    {
        let refused = podman.run(&["cp", from, to]);
        assert!(refused.status != 0 && refused.stderr.contains("/scratch/"), "{refused:#?}");
    }
    podman.run(&["commit", "--quiet", "box", "committed"]).success();

    podman.run(&["kill", "--signal", "USR1", "box"]).success();
    podman.run(&["stop", "--time", "60", "box"]).success();
    assert_eq!(podman.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    let logs = podman.run(&["logs", "box"]).success();
    assert_eq!(logs.stdout, "out\nsignalled\nstopped\n", "{logs:#?}");
    assert_eq!(logs.stderr, "err\n", "{logs:#?}");
    podman.run(&["rm", "box"]).success();

    let args = ["run", "--rm", "--network", "none", "committed", "cat", "/etc/stockade-copied/below/file"];
    assert_eq!(podman.run(&args).success().stdout, "copied\n");
    podman.assert_clean();
}

#[test]
fn options_hold_inside() {
    let podman = Podman::new();
    let at = |name: &str| podman.path().join(name);
    fs::create_dir(at("data")).expect("directory");
    fs::write(at("data/given"), "from the host\n").expect("file");
    fs::write(at("file"), "read me\n").expect("file");
    let script = "\
        echo user=$(id -u):$(id -g) $(id -G); echo host=$(hostname); echo directory=$PWD; echo variable=$VARIABLE; \
        grep Cap /proc/self/status | tr -d '\\t' | tr : =; \
        echo init=$(tr '\\0' ' ' < /proc/1/cmdline); \
        echo files=$(ulimit -S -n):$(ulimit -H -n); \
        cd /sys/fs/cgroup; \
        echo memory=$(cat memory.max); echo cpu=$(cat cpu.max); echo pids=$(cat pids.max); \
        echo root=$(touch /file 2>&1); \
        touch /scratch/file && echo scratch=$(stat -f -c %T /scratch) $(stat -f -c %b:%S /scratch); \
        echo given=$(cat /data/given); echo taken > /data/taken; \
        echo file=$(cat /etc/file); echo refused=$( (echo x > /etc/file) 2>&1 ); \
        echo sysctl=$(cat /proc/sys/kernel/msgmax); \
        echo shm=$(stat -f -c %b:%S /dev/shm); \
        echo device=$(stat -c %t:%T /dev/fuse); \
        echo seccomp=$(mkdir /tmp/directory 2>&1)";
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV }],
    });
    fs::write(at("profile"), profile.to_string()).expect("file");
    let seccomp = format!("--security-opt=seccomp={}", at("profile").display());
    fs::set_permissions(at("data"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let (data, file) =
        (format!("{}:/data", at("data").display()), format!("{}:/etc/file:ro", at("file").display()));
    let options = [
        "--rm",
        "--init",
        "--read-only",
        "--user=1000:2000",
        "--group-add=3000",
        "--hostname=inside",
        "--workdir=/tmp",
        "--env=VARIABLE=value",
        "--cap-drop=all",
        "--cap-add=sys_time",
        "--ulimit=nofile=123:456",
        "--memory=64m",
        "--cpus=0.5",
        "--pids-limit=50",
        "--tmpfs=/scratch:size=1m,mode=1777",
        "--volume",
        &data,
        "--volume",
        &file,
        "--sysctl=kernel.msgmax=4096",
        "--shm-size=2m",
        "--device=/dev/fuse",
        &seccomp,
    ];
    let outcome = podman.container(&options, &["sh", "-c", script]).success();
    let inside = values(&outcome);
    let expected = [
        ("user", "1000:2000 2000 3000"),
        ("host", "inside"),
        ("directory", "/tmp"),
        ("variable", "value"),
        // podman gives a user that is not root its added capabilities in every set.
        ("CapEff", "0000000002000000"),
        ("CapBnd", "0000000002000000"),
        ("files", "123:456"),
        ("memory", "67108864"),
        ("cpu", "50000 100000"),
        ("pids", "50"),
        ("root", "touch: /file: Read-only file system"),
        ("scratch", "tmpfs 256:4096"),
        ("given", "from the host"),
        ("file", "read me"),
        ("sysctl", "4096"),
        ("shm", "512:4096"),
        ("device", "a:e5"),
        ("seccomp", "mkdir: can't create directory '/tmp/directory': Invalid cross-device link"),
    ];
    for (name, value) in expected {
        assert_eq!(inside.get(name), Some(&value), "{name}: {outcome:#?}");
    }
    assert!(inside["init"].starts_with("/run/podman-init -- sh -c"), "{outcome:#?}");
    assert!(inside["refused"].contains("Read-only file system"), "{outcome:#?}");
    assert_eq!(fs::read_to_string(at("data/taken")).expect("file"), "taken\n");
    podman.assert_clean();
}

#[test]
fn a_privileged_container_is_root_of_its_vm() {
    let podman = Podman::new();
    let script = "grep -E '^(Cap|Seccomp:)' /proc/self/status | tr -d '\\t' | tr : =; \
                  mkdir /made && mount -t tmpfs made /made && echo mounted=$(stat -f -c %T /made); \
                  echo kvm=$(stat -c %t:%T /dev/kvm); \
                  echo 4321 > /proc/sys/kernel/pid_max && echo pids=$(cat /proc/sys/kernel/pid_max)";
    let outcome = podman.container(&["--rm", "--privileged"], &["sh", "-c", script]).success();
    let inside = values(&outcome);
    assert_eq!(inside["CapEff"], inside["CapBnd"], "{outcome:#?}");
    assert!(u64::from_str_radix(inside["CapEff"], 16).expect("hex").count_ones() >= 38, "{outcome:#?}");
    assert_eq!(inside["Seccomp"], "0", "{outcome:#?}");
    assert_eq!(inside["mounted"], "tmpfs", "{outcome:#?}");
    assert_eq!(inside["kvm"], "a:e8", "{outcome:#?}");
    assert_eq!(inside["pids"], "4321", "{outcome:#?}");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max").trim(), "4321", "the host's");
    podman.assert_clean();
}

#[test]
fn a_running_container_executes_pauses_and_is_healthy() {
    let podman = Podman::new();
    let health = ["--health-cmd", "test -e /tmp/healthy", "--health-interval", "disable"];
    let options = [&["-d", "--name", "box"], &health[..]].concat();
    podman.container(&options, &["sh", "-c", "while :; do sleep 0.2; done"]).success();

    let script = "cat; id -u; pwd; echo $A; echo error >&2; exit 3";
    let options =
        ["exec", "-i", "--user", "1000", "--workdir", "/tmp", "--env", "A=b", "box", "sh", "-c", script];
    let outcome = Outcome::of(&mut podman.command(&options), b"input\n");
    assert_eq!(outcome.status, 3, "{outcome:#?}");
    assert_eq!(outcome.stdout, "input\n1000\n/tmp\nb\n", "{outcome:#?}");
    assert_eq!(outcome.stderr, "error\n", "{outcome:#?}");
    let outcome = podman.run(&["exec", "box", "nowhere"]);
    assert_eq!(outcome.status, 127, "{outcome:#?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:#?}");

    let mut terminal = Terminal::open(24, 80);
    let mut exec = terminal.spawn(&mut podman.command(&["exec", "-it", "box", "sh"]));
    terminal.expect("# ");
    terminal.send("tty; exit 4\r");
    terminal.expect("/dev/pts/");
    assert_eq!(exec.wait().expect("podman exec").code(), Some(4), "{}", terminal.rest());

    assert_eq!(podman.run(&["healthcheck", "run", "box"]).status, 1);
    podman.run(&["exec", "-d", "box", "touch", "/tmp/healthy"]).success();
    let root = podman.inspect("box", "{{.State.Pid}}");
    host::wait_for_file(&Path::new("/proc").join(root).join("root/tmp/healthy"));
    podman.run(&["healthcheck", "run", "box"]).success();

    podman.run(&["pause", "box"]).success();
    assert_eq!(podman.inspect("box", "{{.State.Status}}"), "paused");
    podman.run(&["unpause", "box"]).success();
    podman.run(&["exec", "box", "true"]).success();
    podman.run(&["rm", "--force", "--time", "0", "box"]).success();
    podman.assert_clean();
}

#[test]
fn a_failed_container_is_restarted() {
    let podman = Podman::new();
    let data = podman.path().join("data");
    fs::create_dir(&data).expect("directory");
    let script = "[ -e /data/first ] && touch /data/second && exec sleep 1000; touch /data/first; exit 3";
    let volume = format!("{}:/data", data.display());
    let options = ["-d", "--name", "again", "--restart", "on-failure:1", "--volume", &volume];
    podman.container(&options, &["sh", "-c", script]).success();
    host::wait_for_file(&data.join("second"));
    assert_eq!(podman.inspect("again", "{{.RestartCount}} {{.State.Status}}"), "1 running");
    podman.run(&["rm", "--force", "--time", "0", "again"]).success();
    podman.assert_clean();
}

#[test]
fn podman_cleans_up_after_any_process_was_killed() {
    let podman = Podman::new();
    for victim in ["stockade-vmm", "relay", "conmon"] {
        podman.container(&["-d", "--name", victim], &["sleep", "1000"]).success();
        let ids = podman.inspect(victim, "{{.State.Pid}} {{.State.ConmonPid}} {{.Id}}");
        let [relay, conmon, id] = ids.split(' ').collect::<Vec<_>>()[..] else {
            panic!("three values: {ids}")
        };
        let pid = match victim {
            "relay" => relay.parse().expect("PID"),
            "conmon" => conmon.parse().expect("PID"),
            vmm => host::pids_named(vmm)[0],
        };
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        host::wait_for_end(pid);
        if victim != "conmon" {
            assert_eq!(podman.run(&["wait", victim]).success().stdout, "137\n", "{victim}");
            podman.run(&["start", victim]).success();
        }
        podman.run(&["rm", "--force", "--time", "0", victim]).success();
        if victim == "conmon" {
            // podman 4.3 then ends the container but has no runtime delete it: runc's and crun's state stays too.
            let mut delete = Command::new(built("release/stockade"));
            Outcome::of(delete.args(["delete", id]), b"").success();
        }
        podman.assert_clean();
    }
    assert_eq!(podman.container(&["--rm"], &["echo", "next"]).success().stdout, "next\n");
    podman.assert_clean();
}

#[test]
fn play_kube_runs_a_pod_in_one_vm() {
    let podman = Podman::new();
    let file = podman.path().join("pod.yaml");
    let pod = "{ apiVersion: v1, kind: Pod, metadata: { name: kube }, spec: { restartPolicy: Never, containers: [{ \
               name: one, image: localhost/busybox, imagePullPolicy: Never, \
               command: [sh, -c, 'echo $(hostname); touch /tmp/ready; exec sleep 1000'] }] } }";
    fs::write(&file, pod).expect("file");
    podman.run(&["play", "kube", "--network", "none", text(&file)]).success();
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "the pod's containers share a VM");
    let relay = podman.inspect("kube-one", "{{.State.Pid}}");
    host::wait_for_file(&Path::new("/proc").join(relay).join("root/tmp/ready"));
    assert_eq!(podman.run(&["logs", "kube-one"]).success().stdout, "kube\n");
    assert_eq!(podman.run(&["exec", "kube-one", "echo", "in"]).success().stdout, "in\n");
    podman.run(&["play", "kube", "--down", text(&file)]).success();
    podman.assert_clean();
}

#[test]
fn a_user_namespace_maps_the_ids_of_its_files() {
    let podman = Podman::new();
    let at = |name: &str| podman.path().join(name);
    fs::write(at("given"), "given\n").expect("file");
    let script = "cat /proc/self/uid_map | tr -s ' '; id -u; stat -c %u:%g /bin /proc /dev/null; touch /made; \
                  while [ ! -e /stop ]; do sleep 0.2; done; stat -c %u:%g /given; cat /given";
    let maps = ["--uidmap=0:200000:5000", "--gidmap=0:300000:5000"];
    podman.container(&[&["-d", "--name", "box"], &maps[..]].concat(), &["sh", "-c", script]).success();
    let relay = podman.inspect("box", "{{.State.Pid}}");
    let root = Path::new("/proc").join(&relay).join("root");
    host::wait_for_file(&root.join("made"));
    let made = fs::metadata(root.join("made")).expect("made");
    assert_eq!((made.uid(), made.gid()), (200_000, 300_000));

    assert_eq!(podman.run(&["exec", "--user", "7:8", "box", "id", "-G"]).success().stdout, "8\n");
    let top = podman.run(&["top", "box", "user", "huser"]).success();
    assert!(top.stdout.lines().count() == 2, "{top:#?}");
    podman.run(&["cp", text(&at("given")), "box:/given"]).success();
    podman.run(&["exec", "box", "touch", "/stop"]).success();
    podman.run(&["wait", "box"]).success();
    let logs = podman.run(&["logs", "box"]).success();
    assert_eq!(logs.stdout, " 0 200000 5000\n0\n0:0\n65534:65534\n0:0\n0:0\ngiven\n", "{logs:#?}");
    podman.run(&["rm", "box"]).success();
    podman.assert_clean();
}

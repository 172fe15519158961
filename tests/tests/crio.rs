//! CRI-O's way of calling, replayed: conmon starts `create`, CRI-O itself the other commands; the pod's namespaces are
//! pinned in /var/run before there is a container; execs run in the foreground.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, built, text};
use stockade_tests::host;
use stockade_tests::netns::{Netns, veth};

/// The name under which the pod's namespaces are pinned.
const PIN: &str = "ba5eba11-0000-4000-8000-5701cade0001";

/// The pod's namespaces as `pinns` and a CNI plugin leave them, gone with the value.
struct Pinned {
    net: Netns,
    files: [PathBuf; 2],
}

impl Pinned {
    fn new() -> Self {
        let net = Netns::new(PIN);
        let files = ["ipc", "uts"].map(|kind| {
            let folder = PathBuf::from(format!("/run/{kind}ns"));
            fs::create_dir_all(&folder).expect("folder");
            let file = folder.join(PIN);
            File::create(&file).expect("file");
            let namespace = format!("--{kind}={}", file.display());
            Outcome::of(Command::new("unshare").args([&namespace, "hostname", "pod"]), b"").success();
            file
        });
        Self { net, files }
    }

    /// Has a spec name them, as CRI-O's do.
    fn join(&self, config: &mut Value) {
        for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            let path = match entry["type"].as_str().expect("type") {
                "network" => self.net.path(),
                "ipc" => self.files[0].clone(),
                "uts" => self.files[1].clone(),
                _ => continue,
            };
            entry["path"] = text(&path).into();
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = umount2(file, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(file);
        }
    }
}

/// What CRI-O is for one pod.
struct Crio {
    stockade: Stockade,
    pinned: Pinned,
}

impl Crio {
    /// A bundle whose container is called `id`, of type `sandbox` or `container`.
    fn bundle(&self, kind: &str, id: &str, script: &str) -> Bundle {
        Bundle::script(script).edit(|config| {
            self.pinned.join(config);
            config["hostname"] = "pod".into();
            config["linux"]["cgroupsPath"] = format!("/kubepods/pod-crio/crio-{id}").into();
            let resources =
                json!({ "cpu_period": 100_000, "cpu_quota": 100_000, "memory_limit_in_bytes": 256 << 20 });
            config["annotations"] = json!({
                "io.kubernetes.cri-o.ContainerType": kind,
                "io.kubernetes.cri-o.ContainerID": id,
                "io.kubernetes.cri-o.SandboxID": "infra",
                "io.kubernetes.cri-o.SandboxName": "k8s_pod_default_uid_0",
                "io.kubernetes.cri-o.HostNetwork": "false",
                "io.kubernetes.cri-o.PodLinuxResources": resources.to_string(),
                "io.kubernetes.cri-o.PodLinuxOverhead": "{}",
                "io.kubernetes.cri-o.TTY": "false",
            });
        })
    }

    /// Creates it by conmon, which goes on as its parent, and starts it; the PID that conmon tells.
    #[track_caller]
    fn create_and_start(&self, bundle: &Bundle, id: &str) -> i32 {
        let at = |name: &str| bundle.path().join(name);
        for folder in ["exits", "persist", "sockets"] {
            fs::create_dir(at(folder)).expect("folder");
        }
        let (reader, writer) = std::io::pipe().expect("pipe");
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherit the pipe");
        let mut command = Command::new("conmon");
        command
            .args(["-b", text(bundle.path()), "-c", id, "-u", id, "-n", id])
            .args(["--exit-dir", text(&at("exits")), "--persist-dir", text(&at("persist"))])
            .args(["-l", text(&log(bundle)), "--log-level", "info"])
            .args(["-p", text(&at("pidfile")), "-P", text(&at("conmon-pidfile"))])
            .args(["-r", text(&built("release/stockade"))])
            .args(["--runtime-arg", &format!("--root={}", self.stockade.root().display())])
            .args(["--socket-dir-path", text(&at("sockets")), "--full-attach"])
            .env("_OCI_SYNCPIPE", writer.as_raw_fd().to_string());
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(at("conmon.log")).expect("log"))
            .status()
            .expect("conmon");
        drop(writer);
        assert!(status.success(), "conmon: {status}");
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).expect("what conmon tells");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let pid = told["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a PID");
        assert!(pid > 0, "{told}");
        assert_eq!(self.stockade.status(id), "created");
        self.stockade.run(&["start", id]).success();
        pid
    }

    /// The exit status that conmon writes at the end.
    fn exit_status(&self, bundle: &Bundle, id: &str) -> String {
        let file = bundle.path().join("exits").join(id);
        host::wait_for_file(&file);
        fs::read_to_string(file).expect("exit file")
    }

    /// `exec --process F ID` in the foreground.
    fn exec(&self, bundle: &Bundle, id: &str, args: &[&str], input: &[u8]) -> Outcome {
        let file = bundle.path().join("exec.json");
        let mut process = bundle.config["process"].clone();
        process["args"] = json!(args);
        fs::write(&file, process.to_string()).expect("write the process");
        Outcome::of(&mut self.stockade.command(&["exec", "--process", text(&file), id]), input)
    }

    /// As RemoveContainer and RemovePodSandbox do.
    #[track_caller]
    fn remove(&self, id: &str) {
        self.stockade.run(&["kill", id, "KILL"]);
        self.stockade.run(&["delete", "--force", id]).success();
        self.stockade.run(&["delete", "--force", id]).success();
    }
}

fn log(bundle: &Bundle) -> PathBuf {
    bundle.path().join("log")
}

#[test]
fn a_pod_of_pinned_namespaces_lives_and_ends() {
    let crio = Crio { stockade: Stockade::new(), pinned: Pinned::new() };
    let outside = Netns::new("outside");
    veth(&crio.pinned.net, "eth0", &outside, "veth0");
    for (netns, name, address) in [(&crio.pinned.net, "eth0", 2), (&outside, "veth0", 1)] {
        netns.ip(&format!("addr add 10.85.0.{address}/16 dev {name}"));
        netns.ip(&format!("link set {name} up"));
    }
    fs::create_dir_all("/sys/fs/cgroup/kubepods/pod-crio").expect("the pod's cgroup");
    let picture = crio.pinned.net.picture();
    let before = host::Snapshot::take();

    let infra = crio.bundle("sandbox", "infra", "exec sleep 1000000");
    let infra_pid = crio.create_and_start(&infra, "infra");
    assert_eq!(crio.stockade.status("infra"), "running");
    let server = crio.bundle(
        "container",
        "server",
        "hostname; echo failing >&2; mkdir /www; echo the page > /www/index.html; busybox httpd -p 80 -h /www; \
         echo serves; exec sleep 1000000",
    );
    crio.create_and_start(&server, "server");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    host::wait_for_text(&log(&server), " stdout F serves\n");
    let lines = fs::read_to_string(log(&server)).expect("log");
    assert!(lines.contains(" stdout F pod\n") && lines.contains(" stderr F failing\n"), "{lines}");
    let page = outside.within(|| {
        let mut stream = TcpStream::connect("10.85.0.2:80").expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    assert!(page.join().expect("the client").ends_with("the page\n"));

    // A member with the infra container's processes in sight.
    let script = "echo ready; while [ ! -e /done ]; do sleep 0.2; done; exit 9";
    let shares = crio.bundle("container", "shares", script).edit(|config| {
        for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            if entry["type"] == "pid" {
                entry["path"] = format!("/proc/{infra_pid}/ns/pid").into();
            }
        }
    });
    crio.create_and_start(&shares, "shares");
    let list = crio.exec(&shares, "shares", &["ps", "-o", "pid,args"], b"").success();
    let first = list.stdout.lines().nth(1).unwrap_or_default().trim();
    assert_eq!(first, "1 sleep 1000000", "{list:#?}");

    // Execs with inherited stdio, and their status.
    let outcome = crio.exec(&shares, "shares", &["sh", "-c", "cat; echo bad >&2; exit 5"], b"input");
    assert_eq!((outcome.status, &*outcome.stdout, &*outcome.stderr), (5, "input", "bad\n"));
    let outcome =
        crio.exec(&server, "server", &["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/"], b"");
    assert_eq!(outcome.success().stdout, "the page\n");

    let mut update = crio.stockade.command(&["update", "--resources", "-", "server"]);
    Outcome::of(&mut update, br#"{"memory":{"limit":67108864},"cpu":{"shares":512}}"#).success();
    let limit = crio.exec(&server, "server", &["cat", "/sys/fs/cgroup/memory.max"], b"").success();
    assert_eq!(limit.stdout, "67108864\n");

    // One ends by itself, one is killed, and the pod goes.
    crio.exec(&shares, "shares", &["touch", "/done"], b"").success();
    assert_eq!(crio.exit_status(&shares, "shares"), "9");
    assert_eq!(crio.stockade.status("shares"), "stopped");
    crio.remove("shares");
    crio.stockade.run(&["kill", "server", "KILL"]).success();
    assert_eq!(crio.exit_status(&server, "server"), "137");
    crio.remove("server");
    assert_eq!(crio.stockade.status("infra"), "running");
    crio.remove("infra");
    assert_eq!(crio.exit_status(&infra, "infra"), "137");
    host::pids_named("conmon").into_iter().for_each(host::wait_for_end);
    before.assert_same_now();
    assert_eq!(crio.pinned.net.picture(), picture, "nothing is left in the namespace");
    for cgroup in ["kubepods/pod-crio", "kubepods"] {
        fs::remove_dir(Path::new("/sys/fs/cgroup").join(cgroup)).expect("remove a cgroup");
    }
}

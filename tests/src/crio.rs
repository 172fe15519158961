//! CRI-O's way of calling, without CRI-O: conmon for containers and for `ExecSync`, the runtime itself for the rest, the
//! annotations, and namespaces that are pinned below /run for as long as the pod lives.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::cli::{Outcome, Stockade, built, text};
use crate::host;
use crate::netns::{Netns, veth};

/// The only environment that conmon gets: CRI-O's `monitor_env`.
const MONITOR_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the kubelet has the pods' cgroups.
const PODS: &str = "/sys/fs/cgroup/kubepods/besteffort";

/// The address of the pod.
pub const POD_ADDRESS: &str = "10.85.0.2";
/// That of the node, as the pod sees it.
const NODE_ADDRESS: &str = "10.85.0.1";

/// The directories that a CRI-O has on a node, and stockade as the runtime of one of its handlers.
pub struct Crio {
    /// The runtime with its `runtime_root`.
    pub stockade: Stockade,
    directory: TempDir,
}

impl Default for Crio {
    fn default() -> Self {
        Self::new()
    }
}

impl Crio {
    /// Makes the directories.
    pub fn new() -> Self {
        let directory = crate::bundle::directory();
        for name in ["exits", "persist", "sockets", "logs"] {
            fs::create_dir(directory.path().join(name)).expect("directory");
        }
        for kept in ["/run/ipcns", "/run/utsns", "/run/userns", "/run/netns", PODS] {
            fs::create_dir_all(kept).expect("directory");
        }
        // The kubelet hands the controllers down.
        for parent in ["/sys/fs/cgroup", "/sys/fs/cgroup/kubepods", PODS] {
            let control = Path::new(parent).join("cgroup.subtree_control");
            fs::write(control, "+cpu +memory +pids").expect("controllers");
        }
        // `ip` makes /run/netns a mount of its own, and leaves it.
        drop(Netns::new("first"));
        Self { stockade: Stockade::new(), directory }
    }

    /// A runtime command as CRI-O gives it: without an environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stockade.command(args);
        command.env_clear();
        command
    }

    /// Runs one to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// The log of a container, which conmon writes: `TIME STREAM TAG LINE`.
    pub fn log(&self, id: &str) -> PathBuf {
        self.directory.path().join("logs").join(id)
    }

    /// The file that conmon writes when the container has ended.
    pub fn exit_file(&self, id: &str) -> PathBuf {
        self.directory.path().join("exits").join(id)
    }

    /// Waits for a container's end; its exit status.
    #[track_caller]
    pub fn wait_for_exit(&self, id: &str) -> i32 {
        host::wait_for_file(&self.exit_file(id));
        let status = fs::read_to_string(self.exit_file(id)).expect("exit file");
        status.trim().parse().expect("exit status")
    }

    /// What a container has written to a stream so far.
    pub fn logged(&self, id: &str, stream: &str) -> String {
        let log = fs::read_to_string(self.log(id)).unwrap_or_default();
        let entries = log.lines().filter_map(|line| {
            let mut fields = line.splitn(4, ' ').skip(1);
            (fields.next()? == stream).then(|| (fields.next(), fields.next().unwrap_or_default()))
        });
        entries
            .map(|(tag, text)| if tag == Some("P") { text.to_owned() } else { format!("{text}\n") })
            .collect()
    }

    /// The conmon that creates a container, not yet started.
    pub fn create_command(&self, bundle: &Bundle, id: &str) -> Command {
        let directory = |name: &str| self.directory.path().join(name);
        let file = |name: &str| bundle.path().join(name);
        let mut command = Command::new("conmon");
        command
            .args(["-b", text(bundle.path()), "-c", id])
            .args(["--exit-dir", text(&directory("exits")), "-l", text(&self.log(id)), "--log-level", "info"])
            .args(["-n", &format!("k8s_{id}"), "-P", text(&file("conmon-pidfile"))])
            .args(["-p", text(&file("pidfile")), "--persist-dir", text(&directory("persist"))])
            .arg("-r")
            .arg(built("release/stockade"))
            .args(["--runtime-arg", &format!("--root={}", self.stockade.root().display())])
            .args(["--socket-dir-path", text(&directory("sockets")), "--syslog", "-u", id])
            .args(["--log-size-max", "-1"])
            .current_dir(bundle.path());
        command
    }

    /// Has conmon create a container; the PID that it reports.
    ///
    /// # Errors
    /// What conmon reports instead: the runtime's message.
    pub fn create(&self, bundle: &Bundle, id: &str) -> Result<i32, String> {
        self.create_by(self.create_command(bundle, id), id)
    }

    /// As [`create`](Self::create), by a command that runs or is conmon.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_by(&self, command: Command, id: &str) -> Result<i32, String> {
        let cgroup = Path::new(PODS).join(format!("crio-conmon-{id}"));
        fs::create_dir_all(&cgroup).expect("conmon's cgroup");
        let mut monitor = Monitor::spawn(command, Stdio::null);
        fs::write(cgroup.join("cgroup.procs"), monitor.child.id().to_string()).expect("move conmon");
        let report = monitor.let_go();
        monitor.child.wait().expect("conmon");
        let Some(report) = report else { return Err("conmon ended without a report".to_owned()) };
        match report["pid"].as_i64() {
            Some(pid) if pid > 0 => Ok(pid as i32),
            _ => Err(report["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// `create` and `start`.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle, id: &str) -> i32 {
        let pid = self.create(bundle, id).unwrap_or_else(|message| panic!("create {id}: {message}"));
        assert_eq!(self.stockade.status(id), "created");
        self.run(&["start", id]).success();
        pid
    }

    /// The CRI's `ExecSync`: conmon runs the process, whose output is in a log; exit status, stdout, stderr.
    #[track_caller]
    pub fn exec_sync(&self, bundle: &Bundle, id: &str, args: &[&str]) -> (i32, String, String) {
        let directory = crate::bundle::directory();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("process"), process(bundle, args).to_string()).expect("process");
        let exec_log = format!("exec-{id}");
        let _ = fs::remove_file(self.log(&exec_log));
        let mut command = Command::new("conmon");
        command
            .args(["-c", id, "-n", &format!("k8s_{id}"), "-r"])
            .arg(built("release/stockade"))
            .args(["-p", text(&file("pidfile")), "-e", "-l", text(&self.log(&exec_log))])
            .args(["--socket-dir-path", text(&self.directory.path().join("sockets")), "--log-level", "info"])
            .args(["--sync", "--log-global-size-max", "16777216"])
            .args(["--exec-process-spec", text(&file("process"))])
            .args(["--runtime-arg", &format!("--root={}", self.stockade.root().display())]);
        let mut monitor = Monitor::spawn(command, Stdio::null);
        let report = monitor.let_go();
        monitor.child.wait().expect("conmon");
        let report = report.expect("conmon reports an exit status");
        let status = report["exit_code"].as_i64().unwrap_or_else(|| panic!("exec in {id}: {report}"));
        assert_ne!(status, -1, "exec in {id}: {report}");
        (status as i32, self.logged(&exec_log, "stdout"), self.logged(&exec_log, "stderr"))
    }

    /// The CRI's `Exec`: the runtime in the foreground, with its caller's stdio.
    pub fn exec(&self, bundle: &Bundle, id: &str, args: &[&str], input: &[u8]) -> Outcome {
        let directory = crate::bundle::directory();
        let file = directory.path().join("process");
        fs::write(&file, process(bundle, args).to_string()).expect("process");
        Outcome::of(&mut self.command(&["exec", "--process", text(&file), id]), input)
    }

    /// Whether CRI-O takes a container for alive: its process exists and began when the container did.
    pub fn is_alive(pid: i32, start_time: &str) -> bool {
        // SAFETY: kill takes two integers.
        (unsafe { libc::kill(pid, 0) }) == 0 && self::start_time(pid).as_deref() == Some(start_time)
    }

    /// `delete --force`, as often as CRI-O might, and what CRI-O itself leaves of a container.
    #[track_caller]
    pub fn remove(&self, bundle: &Bundle, id: &str) {
        for _ in 0..2 {
            let outcome = self.run(&["delete", "--force", id]);
            assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{outcome:#?}");
        }
        if let Ok(pid) = fs::read_to_string(bundle.path().join("conmon-pidfile")) {
            host::wait_for_end(pid.trim().parse().expect("conmon's PID"));
        }
        let _ = fs::remove_dir(Path::new(PODS).join(format!("crio-conmon-{id}")));
    }
}

/// The time at which a process began, as CRI-O reads it.
pub fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 22nd field; the second ends with the last parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// The process of a container with other arguments.
fn process(bundle: &Bundle, args: &[&str]) -> Value {
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(args);
    process
}

/// A conmon that waits for its byte.
struct Monitor {
    child: Child,
    start: UnixStream,
    sync: BufReader<UnixStream>,
}

impl Monitor {
    /// Starts it with the two sockets at 3 and 4.
    fn spawn(mut command: Command, stdio: fn() -> Stdio) -> Self {
        let (sync, its_sync) = UnixStream::pair().expect("socket pair");
        let (start, its_start) = UnixStream::pair().expect("socket pair");
        let sockets = [its_sync.as_raw_fd(), its_start.as_raw_fd()];
        command
            .env_clear()
            .envs([("PATH", MONITOR_PATH), ("_OCI_SYNCPIPE", "3"), ("_OCI_STARTPIPE", "4")])
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        // SAFETY: the closure only calls fcntl and dup2, with integers.
        unsafe {
            command.pre_exec(move || {
                // Out of the way first: either may be at 3 or 4.
                let away = sockets.map(|fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10));
                for (fd, place) in away.into_iter().zip([3, 4]) {
                    if fd < 0 || libc::dup2(fd, place) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, start, sync: BufReader::new(sync) }
    }

    /// Sends the byte; what it reports, if it does.
    fn let_go(&mut self) -> Option<Value> {
        // One that has been killed already does not read it.
        let _ = self.start.write_all(&[0]);
        let mut line = String::new();
        self.sync.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// A pod as CRI-O has prepared it before it creates the sandbox's container.
pub struct Pod {
    /// Its ID, and that of its sandbox's container.
    pub id: String,
    /// Its network namespace, as CNI has left it.
    pub netns: Netns,
    /// The node's end.
    pub peer: Netns,
    /// Of the infra container.
    pub bundle: Bundle,
    run: TempDir,
    pinned: Vec<(&'static str, PathBuf)>,
}

impl Pod {
    /// Namespaces, a shared /dev/shm, network, and the infra container's bundle.
    pub fn new(id: &str) -> Self {
        let pod = Netns::new(&format!("pod-{id}"));
        let peer = Netns::new(&format!("node-{id}"));
        veth(&pod, "eth0", &peer, "veth0");
        pod.ip(&format!("addr add {POD_ADDRESS}/24 brd + dev eth0"));
        pod.ip("link set eth0 up");
        peer.ip(&format!("addr add {NODE_ADDRESS}/24 dev veth0"));
        peer.ip("link set veth0 up");
        pod.ip(&format!("route add default via {NODE_ADDRESS}"));

        let pinned: Vec<_> = [("ipc", "/run/ipcns"), ("uts", "/run/utsns")]
            .into_iter()
            .map(|(kind, directory)| (kind, Path::new(directory).join(format!("uuid-{id}"))))
            .collect();
        let mut pin = Command::new("unshare");
        for (kind, path) in &pinned {
            fs::write(path, "").expect("pinned namespace");
            pin.arg(format!("--{kind}={}", path.display()));
        }
        assert!(pin.arg("true").status().expect("unshare").success(), "{pin:?}");

        let run = crate::bundle::directory();
        let shm = run.path().join("shm");
        fs::create_dir(&shm).expect("directory");
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("shm"), &shm, Some("tmpfs"), flags, Some("mode=1777,size=65536k")).expect("mount shm");
        fs::write(run.path().join("hostname"), format!("host-{id}\n")).expect("hostname");
        fs::write(run.path().join("resolv.conf"), "nameserver 10.96.0.10\n").expect("resolv.conf");
        let bundle = Bundle::script("trap 'exit 0' TERM; while :; do sleep 1000 & wait; done");
        let mut pod = Self { id: id.to_owned(), netns: pod, peer, run, pinned, bundle };
        let mut config = pod.bundle.config.take();
        pod.place(&mut config, id, &[]);
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|entry| entry["type"] != "cgroup");
        config["root"]["readonly"] = true.into();
        config["process"]["oomScoreAdj"] = (-998).into();
        config["process"]["capabilities"] = json!({});
        config["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 0" });
        config["linux"]["resources"]["cpu"] = json!({ "shares": 2 });
        let cni = json!({ "cniVersion": "1.0.0", "ips": [{ "address": format!("{POD_ADDRESS}/24") }] });
        for (name, value) in [
            ("ContainerType", json!("sandbox")),
            ("CgroupParent", json!("/kubepods/besteffort")),
            ("CNIResult", json!(cni.to_string())),
            ("PodLinuxOverhead", json!(json!({ "memory_limit_in_bytes": 64 << 20 }).to_string())),
            ("PodLinuxResources", json!(json!({ "cpu_period": 100_000, "cpu_shares": 2 }).to_string())),
        ] {
            config["annotations"][format!("io.kubernetes.cri-o.{name}")] = value;
        }
        pod.bundle.raw_config(&config.to_string());
        pod.bundle.config = config;
        pod
    }

    /// A container of the pod, whose processes see each other's where the infra container's PID is given.
    pub fn member(&self, id: &str, script: &str, shared_pid: Option<i32>) -> Bundle {
        let pid = shared_pid.map(|pid| ("pid", PathBuf::from(format!("/proc/{pid}/ns/pid"))));
        Bundle::script(script).edit(|config| {
            self.place(config, id, pid.as_slice());
            config["annotations"]["io.kubernetes.cri-o.ContainerType"] = "container".into();
            config["annotations"]["io.kubernetes.cri-o.SandboxName"] = format!("k8s_POD_{}", self.id).into();
        })
    }

    /// What infra container and members have in common.
    fn place(&self, config: &mut Value, id: &str, more: &[(&'static str, PathBuf)]) {
        let net = ("network", self.netns.path());
        let paths: Vec<_> = self.pinned.iter().chain(more).chain([&net]).cloned().collect();
        for entry in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            if let Some((_, path)) = paths.iter().find(|(kind, _)| entry["type"] == *kind) {
                entry["path"] = text(path).into();
            }
        }
        config["hostname"] = format!("host-{}", self.id).into();
        config["linux"]["cgroupsPath"] = format!("/kubepods/besteffort/crio-{id}").into();
        let shm = self.run.path().join("shm");
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev/shm");
        mounts.push(json!({ "destination": "/dev/shm", "type": "bind", "source": text(&shm),
                            "options": ["rw", "bind"] }));
        for (name, options) in [
            ("hostname", json!(["ro", "bind", "nodev", "nosuid", "noexec"])),
            ("resolv.conf", json!(["ro", "bind", "nodev", "nosuid", "noexec"])),
        ] {
            mounts.push(json!({ "destination": format!("/etc/{name}"), "type": "bind",
                                "source": text(&self.run.path().join(name)), "options": options }));
        }
        config["annotations"] = json!({
            "io.kubernetes.cri-o.ContainerID": id,
            "io.kubernetes.cri-o.SandboxID": self.id,
            "io.kubernetes.cri-o.HostName": format!("host-{}", self.id),
            "io.kubernetes.cri-o.Namespace": "default",
            "io.kubernetes.cri-o.Created": "2026-01-01T00:00:00.000000000Z",
            "io.kubernetes.cri-o.IP.0": POD_ADDRESS,
            "io.kubernetes.cri-o.ShmPath": text(&shm),
            "io.kubernetes.cri-o.RuntimeHandler": "stockade",
            "io.kubernetes.cri-o.NamespaceOptions": json!({ "pid": 1 }).to_string(),
            "io.kubernetes.cri-o.TTY": "false",
            "io.kubernetes.container.name": id,
        });
    }

    /// The numbers of its pinned namespaces.
    pub fn namespaces(&self) -> Vec<u64> {
        let numbers = self.pinned.iter().map(|(_, path)| fs::metadata(path).expect("pinned namespace").ino());
        numbers.collect()
    }

    /// Lets go of the pinned namespaces, as CRI-O does when it stops a pod that it keeps.
    pub fn unpin(&mut self) {
        for (_, path) in self.pinned.drain(..) {
            umount2(&path, MntFlags::MNT_DETACH).expect("unpin");
            fs::remove_file(&path).expect("remove");
        }
    }

    /// The pod's network, pinned namespaces and /dev/shm go last.
    pub fn remove(self) {}
}

impl Drop for Pod {
    fn drop(&mut self) {
        for path in self.pinned.iter().map(|(_, path)| path).chain([&self.run.path().join("shm")]) {
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
        for (_, path) in &self.pinned {
            let _ = fs::remove_file(path);
        }
    }
}

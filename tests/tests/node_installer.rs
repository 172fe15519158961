//! What a cluster's nodes are given: the tarball, the installer of the DaemonSet, the node's labels.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stockade_tests::bundle::{Bundle, directory};
use stockade_tests::cli::{Outcome, Stockade, built, text};

const TARBALL: &str = "dist/stockade.tar.gz";

/// A directory that is a node's root to the installer.
struct Node(tempfile::TempDir);

const API_FILE_SYSTEMS: [&str; 3] = ["dev", "proc", "sys"];

/// Where the node's /usr/local leads, and the mode of that directory.
const LOCAL: &str = "../var/usrlocal";
const LOCAL_MODE: u32 = 0o2775;

/// The token of the installer's account.
const TOKEN: &str = "token-of-the-account";

impl Node {
    fn new() -> Self {
        let root = directory();
        for name in API_FILE_SYSTEMS {
            let target = root.path().join(name);
            fs::create_dir(&target).expect("directory");
            let source = Path::new("/").join(name);
            mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .expect("bind mount");
        }
        // As on systems whose /usr is read-only; Debian's mode.
        let local = root.path().join("var/usrlocal");
        fs::create_dir_all(local.join("bin")).expect("directory");
        fs::set_permissions(&local, fs::Permissions::from_mode(LOCAL_MODE)).expect("mode");
        fs::create_dir(root.path().join("usr")).expect("directory");
        symlink(LOCAL, root.path().join("usr/local")).expect("link");
        Self(root)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for name in API_FILE_SYSTEMS {
            umount2(&self.0.path().join(name), MntFlags::MNT_DETACH).expect("umount");
        }
    }
}

/// The bodies of what is sent to a server that says yes to everything; its address.
fn api_server() -> (Receiver<(String, Value)>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("connection"));
            let mut head = Vec::new();
            let mut line = String::new();
            while reader.read_line(&mut line).expect("head") > 2 {
                head.push(std::mem::take(&mut line));
            }
            assert!(head.contains(&format!("Authorization: Bearer {TOKEN}\r\n")), "{head:?}");
            let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.expect("length").trim().parse().expect("number")];
            reader.read_exact(&mut body).expect("body");
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answer");
            let request = (head[0].clone(), serde_json::from_slice(&body).expect("JSON"));
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (requests, address)
}

/// The next labels that the node gets.
fn next_labels(requests: &Receiver<(String, Value)>) -> Value {
    let (head, body) = requests.recv_timeout(Duration::from_secs(120)).expect("a request to the API");
    assert!(head.starts_with("PATCH /api/v1/nodes/node-1 "), "{head}");
    body["metadata"]["labels"].clone()
}

#[test]
fn the_installer_makes_a_node_ready() {
    let node = Node::new();
    let root = node.0.path();
    let commands = directory();
    // What would restart containerd in the node's mount namespace.
    let nsenter = commands.path().join("nsenter");
    fs::write(&nsenter, format!("#!/bin/sh\necho \"$@\" >> {}/restarts\n", text(commands.path())))
        .expect("stub");
    fs::set_permissions(&nsenter, fs::Permissions::from_mode(0o755)).expect("mode");
    // What every user of the node sees of curl.
    let curl = commands.path().join("curl");
    let seen = commands.path().join("seen");
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\nPATH=${{PATH#*:}}\nexec curl \"$@\"\n", text(&seen));
    fs::write(&curl, script).expect("stub");
    fs::set_permissions(&curl, fs::Permissions::from_mode(0o755)).expect("mode");
    let account = directory();
    for (name, text) in [("token", TOKEN), ("ca.crt", "")] {
        fs::write(account.path().join(name), text).expect("account");
    }
    let (requests, api) = api_server();
    let path = std::env::var("PATH").unwrap_or_default();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("checkout");
    let installer = Command::new(checkout.join("docs/kubernetes/node-installer"))
        .arg("containerd")
        .env("PATH", format!("{}:{path}", text(commands.path())))
        .envs([("NODE", "node-1"), ("API", &api), ("HOST", text(root)), ("TARBALL", text(&built(TARBALL)))])
        .env("ACCOUNT", account.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node-installer");

    let labels = next_labels(&requests);
    assert_eq!(
        (&labels["stockade.io/ready"], &labels["stockade.io/dev-kvm"]),
        (&"true".into(), &"ok".into())
    );
    let config = fs::read_to_string(root.join("etc/containerd/config.toml")).expect("config.toml");
    // By its path, which is none of those in which containerd looks for `io.containerd.stockade.v2`.
    let shim = "runtime_type = \"/var/usrlocal/bin/containerd-shim-stockade-v2\"";
    assert!(config.contains(shim), "{config}");
    // In the node's mount namespace: containerd is restarted, and a template made.
    let restarts = fs::read_to_string(commands.path().join("restarts")).expect("containerd was restarted");
    assert_eq!(
        restarts,
        "--target 1 --mount -- systemctl restart containerd\n\
         --target 1 --mount -- /usr/local/bin/stockade template build\n"
    );

    // The node's own directories are as they were.
    assert_eq!(fs::read_link(root.join("usr/local")).expect("a link"), Path::new(LOCAL));
    let mode = fs::metadata(root.join("usr/local")).expect("directory").permissions().mode();
    assert_eq!(mode & 0o7777, LOCAL_MODE);
    let seen = fs::read_to_string(seen).expect("curl was executed");
    assert!(seen.contains("PATCH") && !seen.contains(TOKEN), "{seen}");

    // What lies there runs containers by itself: it finds its kernel and the rest beside itself.
    let stockade = Stockade::new();
    let bundle = Bundle::script("echo from the tarball");
    let mut run = Command::new(root.join("usr/local/bin/stockade"));
    run.arg("--root").arg(stockade.root()).args(["run", "--bundle", text(bundle.path()), "node"]);
    assert_eq!(Outcome::of(&mut run, b"").success().stdout, "from the tarball\n");

    kill(Pid::from_raw(installer.id() as i32), Signal::SIGTERM).expect("SIGTERM");
    assert_eq!(next_labels(&requests), serde_json::json!({ "stockade.io/ready": null }));
    Outcome::wait(installer, "node-installer").success();
}

//! Sockets of the host that containers are connected to, where the configuration lists them.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle, chown_all};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host::Snapshot;
use stockade_tests::shell::Shell;

/// Where containers find the socket.
const INSIDE: &str = "/var/service.sock";

/// More than all buffers on the way hold.
const LENGTH: usize = 3_000_000;

/// Sockets of the host in a directory of their own.
struct Sockets(tempfile::TempDir);

impl Sockets {
    fn new() -> Self {
        Self(bundle::directory())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("directory").join(name)
    }

    /// Listens on a socket with this mode.
    fn listen(&self, name: &str, mode: u32) -> UnixListener {
        let listener = UnixListener::bind(self.path(name)).expect("listen");
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("chmod");
        // Where nobody comes, the test fails instead of waiting for ever.
        setsockopt(&listener, ReceiveTimeout, &TimeVal::minutes(2)).expect("limit");
        listener
    }

    /// A runtime whose configuration lists this.
    fn listed(&self, pattern: &str) -> Stockade {
        Stockade::with_config(&format!("host_sockets = [{:?}]\n", text(&self.path(pattern))))
    }
}

/// Mounts a socket of the host, and this machine's perl: busybox has no client for UNIX sockets.
fn mount(config: &mut Value, socket: &Path) {
    let bind = |source: &str, destination: &str, option: &str| json!({ "source": source, "destination": destination, "type": "none", "options": ["rbind", option] });
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(bind(text(socket), INSIDE, "rw"));
    mounts.extend(["/lib", "/lib64", "/usr"].map(|directory| bind(directory, directory, "ro")));
}

/// A command that runs a script of perl with the functions that it needs.
fn perl(script: &str) -> String {
    format!(
        r#"perl -MSocket -e '
            sub dial {{ my $s; socket($s, AF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un("{INSIDE}")) ? $s : die "$!\n" }}
            $| = 1; {script}' 2>&1"#
    )
}

/// A command that sends its input to the socket, and prints what comes back until the other side ends.
fn client() -> String {
    perl(
        "my $s = dial; my $child = fork;
         if (!$child) { while (sysread STDIN, my $b, 65536) { syswrite $s, $b or last } shutdown $s, 1; exit }
         while (sysread $s, my $b, 65536) { print $b } waitpid $child, 0",
    )
}

/// A command that leaves a connection open, and then says so.
fn hold() -> String {
    perl(r#"my $s = dial; syswrite $s, "here"; sysread $s, my $b, 1; print "held $b\n"; sleep"#)
}

/// The server's side of [`hold`].
fn held(listener: &UnixListener) -> UnixStream {
    let (mut client, _) = listener.accept().expect("accept");
    client.read_exact(&mut [0; 4]).expect("greeting");
    client.write_all(b"!").expect("answer");
    client
}

/// Reads all that a client sends, and sends it back.
fn echo(mut client: UnixStream) -> usize {
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("read");
    client.write_all(&received).expect("write");
    received.len()
}

#[track_caller]
fn assert_ended(mut client: UnixStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("bytes from nobody"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn a_listed_socket_answers_many_clients_at_once() {
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o660);
    chown(sockets.path("service.sock"), Some(0), Some(998)).expect("chown");
    let stockade = sockets.listed("*.sock");
    let before = Snapshot::take();
    let mut shell = Shell::start(&stockade, "c1", |config| mount(config, &sockets.path("service.sock")));
    assert_eq!(shell.ask(&format!("stat -c '%F %a %u %g' {INSIDE}")), "socket 660 0 998\n");

    // What one sends comes back to it, and the server hears the end of it before it says a word.
    shell.ask(&format!("for n in 1 2 3; do head -c {LENGTH} /dev/urandom > /tmp/$n; done"));
    let server = thread::spawn({
        let listener = listener.try_clone().expect("clone");
        move || {
            let clients = [0; 3].map(|_| listener.accept().expect("accept").0);
            clients.map(|client| thread::spawn(|| echo(client))).map(|server| server.join().expect("echo"))
        }
    });
    let client = client();
    shell.ask(&format!("for n in 1 2 3; do {client} < /tmp/$n > /tmp/back$n & done; wait"));
    assert_eq!(server.join().expect("server"), [LENGTH; 3]);
    assert_eq!(
        shell.ask("for n in 1 2 3; do cmp /tmp/$n /tmp/back$n && echo same; done"),
        "same\n".repeat(3)
    );

    // A connection that is open when the container ends is no reason to wait.
    shell.tell(&format!("{} & wait", hold()));
    let open = held(&listener);
    assert_eq!(shell.line(), "held !\n");
    stockade.run(&["kill", "--all", "c1", "KILL"]).success();
    assert_eq!(shell.end(), 137);
    assert_ended(open);
    before.assert_same_now();
}

#[test]
fn clients_that_come_and_go_leave_room_for_others() {
    const CLIENTS: usize = 200;
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o600);
    let stockade = sockets.listed("service.sock");
    let mut shell = Shell::start(&stockade, "c1", |config| mount(config, &sockets.path("service.sock")));
    let server = thread::spawn(move || {
        // They have gone for good, which the server hears although it has said nothing.
        (0..CLIENTS).for_each(|_| assert_ended(listener.accept().expect("accept").0));
        listener
    });
    assert_eq!(
        shell.ask(&perl(&format!(r#"for (1..{CLIENTS}) {{ my $s = dial; close $s }} print "done\n""#))),
        "done\n"
    );
    let listener = server.join().expect("server");

    // More at a time than are carried: the others wait for their turn.
    let many = perl(
        r#"my @all = map { dial } 1..100; for my $s (@all) { syswrite $s, "x"; shutdown $s, 1; sysread $s, my $b, 1; print $b } print "\n""#,
    );
    let server =
        thread::spawn(move || (0..100).map(|_| echo(listener.accept().expect("accept").0)).sum::<usize>());
    assert_eq!(shell.ask(&many), format!("{}\n", "x".repeat(100)));
    assert_eq!(server.join().expect("server"), 100);
    assert_eq!(shell.end(), 0);
}

#[test]
fn a_server_that_has_gone_is_the_end_of_the_connection_only() {
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o600);
    let stockade = sockets.listed("service.sock");
    let mut shell = Shell::start(&stockade, "c1", |config| mount(config, &sockets.path("service.sock")));
    shell.tell(&perl(r#"my $s = dial; print "connected\n"; print "ended\n" unless sysread $s, my $b, 1"#));
    let (served, _) = listener.accept().expect("accept");
    assert_eq!(shell.line(), "connected\n");
    drop(served);
    assert_eq!(shell.answer(), "ended\n");

    drop(listener);
    assert_eq!(shell.ask(&format!("echo hello | {}; echo $?", client())), "0\n");
    // As with any runtime, the mount is of the socket that has gone.
    fs::remove_file(sockets.path("service.sock")).expect("remove");
    let _again = sockets.listen("service.sock", 0o600);
    assert_eq!(shell.ask(&format!("echo hello | {}; echo $?", client())), "0\n");
    assert_eq!(shell.end(), 0);
}

#[test]
fn a_socket_that_is_not_listed_is_named_and_refuses() {
    let sockets = Sockets::new();
    let _listener = sockets.listen("service.sock", 0o666);
    let stockade = sockets.listed("another.sock");
    let bundle = Bundle::script(&perl("dial")).edit(|config| mount(config, &sockets.path("service.sock")));
    let log = bundle.path().join("log");
    let outcome = stockade.run(&["--log", text(&log), "run", "--bundle", text(bundle.path()), "c1"]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (111, "Connection refused\n"), "{outcome:#?}");
    let log = fs::read_to_string(log).expect("log");
    let index = bundle.config["mounts"].as_array().expect("mounts").len() - 4;
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("service.sock")).collect();
    let [warning] = warnings[..] else { panic!("one warning: {log}") };
    for word in [&format!("mounts[{index}].source"), "host_sockets", "config.toml"] {
        assert!(warning.contains(word), "no {word:?} in {warning}");
    }
}

#[test]
fn members_of_a_pod_have_sockets_of_their_own() {
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o600);
    let stockade = sockets.listed("service.sock");
    let before = Snapshot::take();
    let pause = Bundle::busybox(&["/bin/sleep", "1000"]);
    stockade.create(&pause, "pod");
    stockade.run(&["start", "pod"]).success();
    let member = |script: &str| {
        Bundle::script(script).edit(|config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": "pod",
            });
            mount(config, &sockets.path("service.sock"));
        })
    };
    let server = thread::spawn(move || {
        let length = echo(listener.accept().expect("accept").0);
        (length, listener)
    });
    let first = member(&format!("echo hello | {}", client()));
    assert_eq!(stockade.run_bundle(&first, "first").success().stdout, "hello\n");
    let (length, listener) = server.join().expect("server");
    assert_eq!(length, 6);

    // One that is deleted while it has a connection, and then another of the same name.
    let second = member(&hold());
    for _ in 0..2 {
        stockade.create(&second, "second");
        stockade.run(&["start", "second"]).success();
        let open = held(&listener);
        stockade.run(&["delete", "--force", "second"]).success();
        assert_ended(open);
    }
    stockade.run(&["delete", "--force", "pod"]).success();
    before.assert_same_now();
}

#[test]
fn a_container_with_mapped_users_owns_the_socket_of_its_root() {
    const FIRST: u32 = 100_000;
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o602);
    chown(sockets.path("service.sock"), Some(FIRST), Some(FIRST + 5)).expect("chown");
    let stockade = sockets.listed("service.sock");
    let script = format!("stat -c '%a %u %g' {INSIDE}; echo hello | {}", client());
    let bundle = Bundle::script(&script).edit(|config| {
        mount(config, &sockets.path("service.sock"));
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
        for list in ["uidMappings", "gidMappings"] {
            config["linux"][list] = json!([{ "containerID": 0, "hostID": FIRST, "size": 1000 }]);
        }
    });
    chown_all(&bundle.rootfs(), FIRST);
    let server = thread::spawn(move || echo(listener.accept().expect("accept").0));
    let outcome = stockade.run_bundle(&bundle, "mapped").success();
    assert_eq!(outcome.stdout, "602 0 5\nhello\n", "{outcome:#?}");
    assert_eq!(server.join().expect("server"), 6);
}

#[test]
fn a_container_without_proc_is_connected_too() {
    let sockets = Sockets::new();
    let listener = sockets.listen("service.sock", 0o600);
    let stockade = sockets.listed("service.sock");
    let bundle = Bundle::script(&format!("echo hello | {}", client())).edit(|config| {
        config["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "proc");
        mount(config, &sockets.path("service.sock"));
    });
    fs::remove_dir(bundle.rootfs().join("proc")).expect("no directory for it");
    let server = thread::spawn(move || echo(listener.accept().expect("accept").0));
    assert_eq!(stockade.run_bundle(&bundle, "c1").success().stdout, "hello\n");
    assert_eq!(server.join().expect("server"), 6);
}

#[test]
fn what_is_wrong_with_the_list_is_said_in_a_line() {
    let sockets = Sockets::new();
    let _listener = sockets.listen("service.sock", 0o600);
    let bundle = Bundle::busybox(&["/bin/true"]).edit(|config| mount(config, &sockets.path("service.sock")));
    let before = Snapshot::take();
    for (list, words) in [
        (r#"["run/a.sock"]"#, ["host_sockets", "run/a.sock", "absolute"]),
        (r#"["/run/**/a.sock"]"#, ["host_sockets", "/run/**/a.sock", "one name"]),
    ] {
        let stockade = Stockade::with_config(&format!("host_sockets = {list}\n"));
        stockade.run_bundle(&bundle, "c1").failure(1, &words);
    }
    before.assert_same_now();
}

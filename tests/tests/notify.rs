//! sd_notify(3): what a container says reaches the service manager that waits for the runtime.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};

/// Says to the socket that the environment names: the assignments of each argument, as one datagram.
const PERL: &str = r#"use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die $!;
connect(S, sockaddr_un($ENV{NOTIFY_SOCKET})) or die "$ENV{NOTIFY_SOCKET}: $!";
for (@ARGV) { send(S, $_, 0) or die $! }"#;

#[test]
fn a_container_tells_the_service_manager_that_it_is_ready() {
    let said = ["MAINPID=1\nSTATUS=beginning", "FDSTORE=1\nFDNAME=x", "READY=1\nMAINPID=9", "BARRIER=1"];
    let script = "perl -e \"$PERL\" -- \"$@\" && stat -c %a $NOTIFY_SOCKET && exec sleep 1000";
    let bundle = Bundle::script(script).edit(|config| {
        let process = &mut config["process"];
        process["args"]
            .as_array_mut()
            .expect("args")
            .extend(std::iter::once("sh").chain(said).map(Into::into));
        process["env"].as_array_mut().expect("env").push(format!("PERL={PERL}").into());
        process["user"] = json!({ "uid": 1000, "gid": 1000 });
        for directory in ["/usr", "/lib", "/lib64"] {
            let mount = json!({
                "destination": directory, "type": "bind", "source": directory, "options": ["rbind", "ro"]
            });
            config["mounts"].as_array_mut().expect("mounts").push(mount);
        }
    });
    let manager_path = bundle.path().join("manager.sock");
    let manager = UnixDatagram::bind(&manager_path).expect("bind");
    manager.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
    let mut stockade = Stockade::new();
    stockade.env.push(("NOTIFY_SOCKET".to_owned(), text(&manager_path).to_owned()));
    let relay = stockade.create(&bundle, "notify");
    stockade.run(&["start", "notify"]).success();
    let mut bytes = [0; 4096];
    let mut next = || {
        let length = manager.recv(&mut bytes).expect("nothing came from the container");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(next(), "STATUS=beginning");
    assert_eq!(next(), format!("READY=1\nMAINPID={relay}"), "what has no meaning here is left out");
    assert_eq!(stockade.status("notify"), "running");
    stockade.run(&["delete", "--force", "notify"]).success();

    // Nobody listens there any more: the container runs, without.
    drop(manager);
    let quiet = Bundle::script("echo socket $NOTIFY_SOCKET; test ! -e /run/notify");
    let run = ["--log-level", "warn", "run", "-b", text(quiet.path()), "quiet"];
    let outcome = stockade.run(&run).success();
    assert_eq!(outcome.stdout, "socket\n");
    assert!(outcome.stderr.contains("NOTIFY_SOCKET"), "{}", outcome.stderr);
}

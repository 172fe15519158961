//! podman's pods, on its own networks: netavark's bridge and published ports.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use stockade_tests::cli::text;
use stockade_tests::engine::Podman;
use stockade_tests::host;

/// Longest that one answer of a server in a pod may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A web server with one page.
const SERVER: &str = "mkdir /www; echo the page > /www/index.html; exec busybox httpd -f -p 80 -h /www";

/// What a server on this host's loopback interface or another address answers.
#[track_caller]
fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{address}: {e}"));
    answer
}

/// Waits in a container until the server in its pod answers.
#[track_caller]
fn wait_for_server(podman: &Podman, container: &str) {
    let script = "until busybox wget -q -O /dev/null http://localhost/; do sleep 0.2; done";
    podman.run(&["exec", container, "sh", "-c", script]).success();
}

#[test]
fn the_members_of_a_pod_share_its_network_and_publish_its_ports() {
    let podman = Podman::with_network();
    podman.run(&["pod", "create", "--name", "pod", "--network", "podman", "-p", "8080:80"]).success();
    podman.run(&["run", "-d", "--pod", "pod", "--name", "server", "busybox", "sh", "-c", SERVER]).success();
    podman.run(&["run", "-d", "--pod", "pod", "--name", "client", "busybox", "sleep", "1000000"]).success();
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    wait_for_server(&podman, "client");
    assert!(get("127.0.0.1:8080").ends_with("\r\n\r\nthe page\n"));
    let template = "{{(index .NetworkSettings.Networks \"podman\").IPAddress}}";
    let infra = podman.run(&["pod", "inspect", "--format", "{{.InfraContainerID}}", "pod"]).success();
    let address = podman.inspect(infra.stdout.trim(), template);
    assert!(get(&format!("{address}:80")).ends_with("\r\n\r\nthe page\n"));
    let interfaces = podman.run(&["exec", "server", "busybox", "ip", "addr", "show", "eth0"]).success();
    assert!(interfaces.stdout.contains(&format!("inet {address}/16")), "{interfaces:#?}");

    // Each its own processes, one name.
    let list = podman.run(&["exec", "client", "ps", "-o", "args"]).success();
    assert!(!list.stdout.contains("httpd"), "{list:#?}");
    assert_eq!(podman.run(&["exec", "client", "hostname"]).success().stdout, "pod\n");

    // One that comes later, and goes.
    let late =
        ["run", "--rm", "--pod", "pod", "busybox", "busybox", "wget", "-q", "-O", "-", "http://localhost/"];
    assert_eq!(podman.run(&late).success().stdout, "the page\n");
    podman.run(&["restart", "--time", "0", "server"]).success();
    wait_for_server(&podman, "client");
    assert!(get("127.0.0.1:8080").ends_with("the page\n"));

    // The pod stops with its members and starts again with them.
    podman.run(&["pod", "stop", "--time", "0", "pod"]).success();
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
    podman.run(&["pod", "start", "pod"]).success();
    wait_for_server(&podman, "client");
    podman.run(&["pod", "rm", "--force", "--time", "0", "pod"]).success();
    podman.assert_clean();
}

#[test]
fn a_pod_can_share_its_processes() {
    let podman = Podman::new();
    let share = ["pod", "create", "--name", "pod", "--network", "none", "--share", "pid,net,ipc,uts"];
    podman.run(&share).success();
    for name in ["one", "two"] {
        podman.run(&["run", "-d", "--pod", "pod", "--name", name, "busybox", "sleep", "1000000"]).success();
    }
    let list = podman.run(&["exec", "one", "ps", "-o", "pid,args"]).success();
    assert_eq!(list.stdout.matches("sleep 1000000").count(), 2, "{list:#?}");
    podman.run(&["kill", "two"]).success();
    podman.run(&["wait", "two"]).success();
    let list = podman.run(&["exec", "one", "ps", "-o", "pid,args"]).success();
    assert_eq!(list.stdout.matches("sleep 1000000").count(), 1, "{list:#?}");
    podman.run(&["pod", "rm", "--force", "--time", "0", "pod"]).success();
    podman.assert_clean();
}

#[test]
fn a_container_is_on_the_bridge_and_reaches_another() {
    let podman = Podman::with_network();
    let options =
        ["run", "-d", "--name", "server", "--network", "podman", "-p", "8081:80", "busybox", "sh", "-c"];
    podman.run(&[&options[..], &[SERVER]].concat()).success();
    wait_for_server(&podman, "server");
    assert!(get("127.0.0.1:8081").ends_with("the page\n"));
    let template = "{{(index .NetworkSettings.Networks \"podman\").IPAddress}}";
    let url = format!("http://{}/", podman.inspect("server", template));
    let fetch = ["run", "--rm", "--network", "podman", "busybox", "busybox", "wget", "-q", "-O", "-", &url];
    assert_eq!(podman.run(&fetch).success().stdout, "the page\n");
    podman.run(&["rm", "--force", "--time", "0", "server"]).success();
    names_are_found_in_the_first_moment(&podman);
    podman.assert_clean();
}

/// What a container sends first of all arrives: its question for a name, in both families at once.
fn names_are_found_in_the_first_moment(podman: &Podman) {
    podman.run(&["network", "create", "names"]).success();
    let server = ["run", "-d", "--name", "web", "--network", "names", "busybox", "sleep", "1000000"];
    podman.run(&server).success();
    let address = podman.inspect("web", "{{(index .NetworkSettings.Networks \"names\").IPAddress}}");
    for _ in 0..3 {
        let look_up = ["run", "--rm", "--network", "names", "busybox", "busybox", "nslookup", "web"];
        let found = podman.run(&look_up).success();
        assert!(found.stdout.contains(&format!("Address: {address}\n")), "{found:#?}");
    }
    podman.run(&["rm", "--force", "--time", "0", "web"]).success();
    podman.run(&["network", "rm", "names"]).success();
}

#[test]
fn play_kube_runs_two_containers_with_a_volume_between_them() {
    let podman = Podman::with_network();
    let file = podman.path().join("pod.yaml");
    let volume = "volumeMounts: [{ name: shared, mountPath: /shared }]";
    let image = "image: localhost/busybox, imagePullPolicy: Never";
    let writer = "echo from the writer > /shared/index.html; exec sleep 1000000";
    let server = "exec busybox httpd -f -p 80 -h /shared";
    let pod = format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: kube }}, spec: {{ restartPolicy: Never, \
         volumes: [{{ name: shared, emptyDir: {{}} }}], containers: [ \
         {{ name: writer, {image}, {volume}, command: [sh, -c, '{writer}'] }}, \
         {{ name: server, {image}, {volume}, command: [sh, -c, '{server}'], \
            ports: [{{ containerPort: 80, hostPort: 8082 }}] }} ] }} }}"
    );
    fs::write(&file, pod).expect("file");
    podman.run(&["play", "kube", "--network", "podman", text(&file)]).success();
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    wait_for_server(&podman, "kube-writer");
    assert!(get("127.0.0.1:8082").ends_with("from the writer\n"));
    podman.run(&["play", "kube", "--down", text(&file)]).success();
    podman.run(&["volume", "prune", "--force"]).success();
    podman.assert_clean();
}

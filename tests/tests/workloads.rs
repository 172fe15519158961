//! What people run in containers: Debian, a busybox system, servers, languages, containers in the container, systemd.
//!
//! Debian's programs come from the root file system that `tests/setup/debian` makes.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::workload::{LIMIT, Workload};

#[test]
fn debian_installs_a_package_adds_a_user_and_keeps_owners() {
    let lines = Workload::script(
        r"set -e
        . /etc/os-release; echo $ID; stat -c '%U:%G %a' /etc/shadow /usr/bin/passwd
        mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin
        printf '%s\n' 'Package: greeting' 'Version: 1.0' 'Architecture: all' 'Maintainer: me <me@localhost>' \
            'Description: greets' > /tmp/p/DEBIAN/control
        printf '#!/bin/sh\necho hello from $(id -un) in $PWD\n' > /tmp/p/usr/bin/greet
        chmod 755 /tmp/p/usr/bin/greet
        dpkg-deb --build /tmp/p /tmp/greeting.deb > /tmp/log
        apt-get install --yes /tmp/greeting.deb > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }
        dpkg-query -W -f '${Package} ${Version} ${Status}\n' greeting
        useradd --create-home --shell /bin/sh --uid 1234 worker
        su worker -c 'cd; greet; touch mine; stat -c %U:%G mine; cat /etc/shadow 2>/dev/null || echo denied'
        chown postgres:ssl-cert /home/worker/mine; ls -l /home/worker | tail -n 1 | cut -d ' ' -f 3,4",
    )
    .lines();
    assert_eq!(
        lines,
        [
            "debian",
            "root:shadow 640",
            "root:root 4755",
            "greeting 1.0 install ok installed",
            "hello from worker in /home/worker",
            "worker:worker",
            "denied",
            "postgres ssl-cert",
        ]
    );
}

/// An init of its own with an inittab and services, as in small distributions; `reboot` ends the container alone.
#[test]
fn a_busybox_system_boots_serves_and_powers_off() {
    let bundle = Bundle::busybox(&["/sbin/init"]).edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_BOOT"]);
        }
    });
    let rootfs = bundle.rootfs();
    for directory in ["sbin", "www", "usr", "usr/bin", "usr/sbin"] {
        std::fs::create_dir(rootfs.join(directory)).expect("directory");
    }
    symlink("../bin/busybox", rootfs.join("sbin/init")).expect("init");
    std::fs::write(rootfs.join("www/index.html"), "a page\n").expect("page");
    std::fs::write(
        rootfs.join("etc/inittab"),
        "::sysinit:/bin/busybox --install -s\n\
         ::sysinit:/bin/sh -c 'echo booted by $(cat /proc/1/comm) > /dev/shm/log'\n\
         ::respawn:/usr/sbin/httpd -f -p 127.0.0.1:80 -h /www\n\
         ::once:/bin/sh -c 'until wget -q -O - http://127.0.0.1/ >> /dev/shm/log; do :; done; \
         cat /dev/shm/log; poweroff'\n",
    )
    .expect("inittab");
    let outcome = Stockade::new().run_bundle(&bundle, "init");
    assert!(outcome.stdout.contains("booted by init\na page\n"), "{outcome:#?}");
    // The kernel tells a namespace's parent that it powered off by ending its PID 1 with SIGINT.
    assert_eq!(outcome.status, 128 + libc::SIGINT, "{outcome:#?}");
}

#[test]
fn node_runs_and_sees_its_memory_limit() {
    const LIMIT_MIB: u64 = 512;
    let script = "const limit = require('v8').getHeapStatistics().heap_size_limit; \
                  console.log([...'abc'].reverse().join('')); console.log(require('os').totalmem()); \
                  console.log(limit); \
                  require('fs').readFile('/sys/fs/cgroup/memory.max', 'utf8', (_, text) => console.log(text.trim()))";
    let lines = Workload::new(&["node", "-e", script])
        .edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT_MIB << 20 }))
        .lines();
    assert_eq!(lines[0], "cba", "{lines:?}");
    let [total, heap, limit] = [1, 2, 3].map(|line| lines[line].parse::<u64>().expect("number") >> 20);
    assert_eq!(limit, LIMIT_MIB, "{lines:?}");
    assert!(
        (LIMIT_MIB - 64..LIMIT_MIB + 256).contains(&total),
        "the machine is as large as the limit asks: {lines:?}"
    );
    assert!(heap < limit, "the heap fits: {lines:?}");
}

#[test]
fn nginx_serves_a_page_logs_to_its_output_and_ends_in_peace() {
    let workload = Workload::script(
        "ln -sf /dev/stdout /var/log/nginx/access.log; echo 'a page' > /var/www/html/index.html; \
         exec nginx -g 'daemon off; error_log /dev/stderr notice;'",
    );
    let stockade = Stockade::new();
    let mut nginx = workload.start(&stockade, "web");
    let mut errors = BufReader::new(nginx.stderr.take().expect("piped"));
    let mut log = String::new();
    // It says this when it listens.
    while !log.contains("start worker process ") {
        assert_ne!(errors.read_line(&mut log).expect("nginx's errors"), 0, "nginx has ended: {log}");
    }
    nginx.stderr = Some(errors.into_inner());

    let page =
        stockade.run(&["exec", "web", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/"]).success();
    assert_eq!(page.stdout, "a page\n");
    let worker = stockade.run(&["exec", "web", "pgrep", "-u", "www-data", "nginx"]).success();
    assert_ne!(worker.stdout, "", "workers run as www-data");
    stockade.run(&["kill", "web", "QUIT"]).success();
    let outcome = Outcome::wait(nginx, "run").success();
    assert!(outcome.stdout.contains("\"GET / HTTP/1.1\" 200 7"), "{outcome:#?}");
}

#[test]
fn postgresql_makes_a_cluster_and_answers_a_query() {
    let lines = Workload::script(
        r#"exec su postgres -c '
        set -e; export PATH=/usr/lib/postgresql/15/bin:$PATH; cd
        initdb --no-sync --auth trust data > log 2>&1 || { cat log; exit 1; }
        pg_ctl --pgdata data --log log --wait start > /dev/null || { cat log; exit 1; }
        psql --quiet --tuples-only --no-align --host 127.0.0.1 --command "
            create table squares as select n, n * n as square from generate_series(1, 1000) n;
            create index on squares(square);
            select current_user, sum(square) from squares where square > 250000;"
        pg_ctl --pgdata data --mode fast --wait stop > /dev/null
        grep -o "database system is shut down" log'"#,
    )
    .lines();
    // The sum of n² for n from 501 to 1000.
    let sum: u64 = (501..=1000_u64).map(|n| n * n).sum();
    assert_eq!(lines, [format!("postgres|{sum}"), "database system is shut down".into()]);
}

/// The guest is a machine of its own: whoever is root of all of it may run containers there, with limits and cgroups.
#[test]
fn podman_runs_a_container_in_a_privileged_container() {
    let lines = Workload::privileged(&["/bin/sh", "-c", INNER_PODMAN])
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            for destination in ["/var/lib/containers", "/run"] {
                mounts.push(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
            }
        })
        .lines();
    assert_eq!(
        lines,
        ["pid 1", "cgroup 0::/", "pids 64", "interfaces lo", "host inner", "status 7", "left 0"]
    );
}

const INNER_PODMAN: &str = r#"
    mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin/ && ln -s busybox /tmp/image/bin/sh
    podman() { command podman --cgroup-manager cgroupfs --events-backend none "$@" 2>> /tmp/log; }
    podman run --rm --network none --hostname inner --pids-limit 64 --rootfs /tmp/image:O /bin/sh -c '
        echo pid $$; echo cgroup $(busybox cat /proc/self/cgroup)
        echo pids $(busybox cat /sys/fs/cgroup/pids.max); echo interfaces $(busybox ls /sys/class/net)
        echo host $(busybox hostname); exit 7'
    echo status $?
    echo left $(podman ps --all --quiet | wc -l)
    cat /tmp/log >&2
"#;

/// With what engines give an image that has an init (`podman run --systemd always`).
#[test]
fn systemd_boots_runs_services_and_shuts_down() {
    // In a container, systemd takes its command line for the kernel's. What is masked takes long under emulation, or needs
    // privileges that such a container has not (podman's own services).
    let masked = [
        "systemd.mask=postgresql.service",
        "systemd.mask=podman.service",
        "systemd.mask=podman-restart.service",
        "systemd.mask=podman-auto-update.service",
    ];
    let workload = Workload::new(&[&["/sbin/init"], &masked[..]].concat()).edit(|config| {
        config["process"]["env"].as_array_mut().expect("env").push("container=oci".into());
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        for mount in mounts.iter_mut().filter(|mount| mount["type"] == "cgroup") {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        }
        for (destination, mode) in [("/run", "755"), ("/run/lock", "1777"), ("/tmp", "1777")] {
            let options = json!(["nosuid", "nodev", format!("mode={mode}")]);
            mounts.push(
                json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options }),
            );
        }
    });
    let manager_path = workload.bundle().path().join("manager.sock");
    let manager = UnixDatagram::bind(&manager_path).expect("bind");
    manager.set_read_timeout(Some(LIMIT)).expect("timeout");
    let mut stockade = Stockade::new();
    stockade.env.push(("NOTIFY_SOCKET".to_owned(), text(&manager_path).to_owned()));
    let system = workload.start(&stockade, "system");
    let mut bytes = [0; 4096];
    loop {
        let length = manager.recv(&mut bytes).expect("systemd does not say that it is ready");
        if String::from_utf8_lossy(&bytes[..length]).lines().any(|line| line == "READY=1") {
            break;
        }
    }

    let inside = |command: &str| stockade.run(&["exec", "system", "sh", "-c", command]);
    let state = inside("systemctl is-system-running || systemctl --failed --no-pager");
    assert_eq!(state.stdout, "running\n", "{state:#?}");
    let units = inside("systemctl is-active multi-user.target dbus.socket nginx.service").success();
    assert_eq!(units.stdout, "active\nactive\nactive\n");
    let cgroups =
        inside("cat /proc/1/cgroup; cat /sys/fs/cgroup/system.slice/nginx.service/pids.current").success();
    let (init, tasks) = cgroups.stdout.split_once('\n').expect("two lines");
    assert_eq!(init, "0::/init.scope");
    assert!(tasks.trim().parse::<u32>().expect("number") > 1, "{cgroups:#?}");
    let page =
        inside("busybox wget -q -O - http://127.0.0.1/ | grep -o 'Welcome to nginx' | head -n 1").success();
    assert_eq!(page.stdout, "Welcome to nginx\n");
    // An exec is in the cgroup of the init: the container's own has handed its controllers down.
    assert_eq!(inside("cat /proc/self/cgroup").success().stdout, "0::/init.scope\n");

    stockade.run(&["kill", "system", "RTMIN+3"]).success();
    Outcome::wait_for(system, "run", LIMIT).success();
}

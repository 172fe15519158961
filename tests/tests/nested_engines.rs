//! podman and Docker in a privileged container, as a CI job uses them: images are built and run, on scratch disks and on a volume.

use std::fs;

use serde_json::json;
use stockade_tests::bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::workload::Workload;

const SCRATCH: &str = "io.stockade.scratch";

/// Its layers add, hide and replace. The base is a tar, as there is no network to pull one from.
const CONTAINERFILE: &str = "\
FROM scratch
ADD image.tar /
RUN echo built > /old/built && busybox rm -r /old/file /gone
CMD [\"/bin/sh\", \"/check\"]
";

/// What a nested container says of its limits, its files and its network. The job serves a page on its side of the bridge.
const CHECK: &str = "\
echo limits $(busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)
echo files $(busybox ls /old) $(busybox ls -d /gone 2>&1)
busybox rm -r /old && busybox mkdir /old && busybox mv /check /old/check && echo changed $(busybox ls /old)
gateway=$(busybox ip route | busybox sed -n 's/^default via \\([^ ]*\\).*/\\1/p')
[ -z \"$gateway\" ] || busybox wget -q -O - http://$gateway/
";

const JOB: &str = r#"
    log=/tmp/log
    engine() { "$@" 2>> $log; echo "$1 $?"; }
    mounted() { echo mounted $(grep -c '/merged ' /proc/mounts); }
    trap 'cat $log >&2' EXIT

    # A cgroup hands controllers down only while no process is in it.
    mkdir /sys/fs/cgroup/job
    for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo $pid > /sys/fs/cgroup/job/cgroup.procs; done 2>> $log
    sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control

    cd /build
    mkdir -p image/bin image/old image/gone /www
    cp /bin/busybox image/bin/ && ln -s busybox image/bin/sh && touch image/old/file && cp check image/
    tar -C image -cf image.tar .
    echo a page > /www/index.html && busybox httpd -h /www

    echo podman on scratch
    podman build --network none --layers=false --tag made . >> $log 2>&1
    engine podman run --rm --memory 64m --pids-limit 50 made
    mounted

    echo podman on a volume
    podman() { command podman --root /volume/podman --storage-driver overlay "$@"; }
    podman import --change 'CMD ["/bin/sh", "/check"]' image.tar imported >> $log 2>&1
    engine podman run --rm --network none --memory 64m --pids-limit 50 imported
    mounted

    echo docker on scratch
    mkfifo /tmp/dockerd
    dockerd 2> /tmp/dockerd &
    exec 3< /tmp/dockerd
    while read -r line <&3; do
        echo "$line" >> $log
        case $line in *'API listen on'*) break ;; esac
    done
    cat <&3 >> $log &
    grep -o 'storage-driver=[^ ]*' $log
    DOCKER_BUILDKIT=0 docker build --network none --tag made . >> $log 2>&1
    engine docker run --rm --memory 64m --pids-limit 50 made
    mounted
"#;

#[test]
fn podman_and_docker_build_and_run_images_in_a_privileged_container() {
    let disks = bundle::directory();
    let stockade = Stockade::with_config(&format!(
        "allowed_annotations = [{SCRATCH:?}]\n[scratch]\ndirectory = {:?}\n",
        text(disks.path())
    ));
    let job = Workload::privileged_engines(&["/bin/sh", "-c", JOB]);
    let volume = job.bundle().path().join("volume");
    let build = job.bundle().rootfs().join("build");
    for directory in [&volume, &build] {
        fs::create_dir(directory).expect("directory");
    }
    fs::write(build.join("Dockerfile"), CONTAINERFILE).expect("Dockerfile");
    fs::write(build.join("check"), CHECK).expect("script");
    let rootfs = job.bundle().rootfs();
    let job = job.edit(|config| {
        config["annotations"] = json!({ SCRATCH: "/var/lib/containers:256m,/var/lib/docker:256m" });
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]
        }));
    });

    let before = host::Snapshot::take();
    let lines = job.lines_by(&stockade);
    before.assert_same_now();

    const LIMITS: &str = "limits 67108864 50";
    const BUILT: &str = "files built ls: /gone: No such file or directory";
    let expected = [
        &["podman on scratch", LIMITS, BUILT, "changed check", "a page", "podman 0", "mounted 0"][..],
        &["podman on a volume", LIMITS, "files file /gone", "changed check", "podman 0", "mounted 0"],
        &[
            "docker on scratch",
            "storage-driver=overlay2",
            LIMITS,
            BUILT,
            "changed check",
            "a page",
            "docker 0",
            "mounted 0",
        ],
    ];
    assert_eq!(lines, expected.concat());

    // What is on scratch, the host does not see; the volume's layers are its.
    for directory in ["containers", "docker"] {
        let seen = fs::read_dir(rootfs.join("var/lib").join(directory)).map_or(0, Iterator::count);
        assert_eq!(seen, 0, "/var/lib/{directory}");
    }
    assert!(volume.join("podman/overlay-layers").is_dir());
    assert_eq!(fs::read_dir(disks.path()).expect("disks").count(), 0);
}

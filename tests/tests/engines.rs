//! podman and containerd, as Debian ships them, with stockade as their runtime.

use std::fs;
use std::path::Path;

use stockade_tests::bundle::make_rootfs;
use stockade_tests::cli::text;
use stockade_tests::engine::{Containerd, Podman};
use stockade_tests::host;

fn rootfs() -> tempfile::TempDir {
    let folder = stockade_tests::bundle::folder();
    make_rootfs(folder.path());
    folder
}

#[test]
fn podman_run_prints_the_output_and_returns_the_status() {
    let rootfs = rootfs();
    for (script, status) in [("uname -r", 0), ("uname -r; exit 42", 42)] {
        let outcome = Podman::run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--rootfs",
            text(rootfs.path()),
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(outcome.status, status, "{outcome:#?}");
        assert!(outcome.stdout.trim_end().ends_with("-stockade"), "{outcome:#?}");
    }
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
}

#[test]
fn podman_explains_an_executable_that_is_not_there() {
    let rootfs = rootfs();
    let outcome =
        Podman::run(&["run", "--rm", "--network", "none", "--rootfs", text(rootfs.path()), "nowhere"]);
    assert_eq!(outcome.status, 127, "{outcome:#?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:#?}");
}

#[test]
fn podman_cp_changes_the_container_and_nothing_on_the_host() {
    let rootfs = rootfs();
    let source = tempfile::NamedTempFile::new().expect("file");
    fs::write(source.path(), "copied\n").expect("write");
    Podman::run(&[
        "run",
        "-d",
        "--name",
        "cp",
        "--network",
        "none",
        "--rootfs",
        text(rootfs.path()),
        "sleep",
        "1000",
    ])
    .success();
    Podman::run(&["cp", text(source.path()), "cp:/etc/stockade-copied"]).success();
    assert!(!Path::new("/etc/stockade-copied").exists(), "podman cp wrote to the host");
    assert_eq!(fs::read_to_string(rootfs.path().join("etc/stockade-copied")).expect("read"), "copied\n");
    let back = source.path().with_extension("back");
    Podman::run(&["cp", "cp:/etc/stockade-copied", text(&back)]).success();
    assert_eq!(fs::read_to_string(&back).expect("read"), "copied\n");
    fs::remove_file(back).expect("remove");
    Podman::run(&["rm", "-f", "-t", "0", "cp"]).success();
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
    // conmon may still be running podman's own cleanup, but then it ends.
    host::pids_named("conmon").into_iter().for_each(host::wait_for_end);
}

#[test]
fn ctr_run_prints_the_output_and_returns_the_status() {
    let containerd = Containerd::start();
    let rootfs = rootfs();
    for (script, status) in [("uname -r", 0), ("uname -r; exit 42", 42)] {
        let outcome = containerd.run_rootfs(rootfs.path(), "ctr", &["sh", "-c", script]);
        assert_eq!(outcome.status, status, "{outcome:#?}");
        assert!(outcome.stdout.trim_end().ends_with("-stockade"), "{outcome:#?}");
    }
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
}

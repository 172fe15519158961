//! containerd, its runc shim and `ctr`, as Debian ships them, with stockade as the shim's runtime binary.

use stockade_tests::bundle::make_rootfs;
use stockade_tests::engine::Containerd;

fn rootfs() -> tempfile::TempDir {
    let folder = stockade_tests::bundle::folder();
    make_rootfs(folder.path());
    folder
}

#[test]
fn run_prints_the_output_and_returns_the_status() {
    let containerd = Containerd::new();
    let rootfs = rootfs();
    for (script, status) in [("uname -r", 0), ("uname -r; exit 42", 42)] {
        let outcome = containerd.container(&["--rm"], rootfs.path(), "ctr", &["sh", "-c", script]);
        assert_eq!(outcome.status, status, "{outcome:#?}");
        assert!(outcome.stdout.trim_end().ends_with("-stockade"), "{outcome:#?}");
    }
    containerd.assert_clean();
}

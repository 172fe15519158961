//! A guest that drives the file server as no kernel does: `tests/hostile/guest/cases/files*.rs` has the attacks. What it may not
//! read has words in it that the guest looks for in every reply; what it may not write to is compared afterwards.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::hostile::oracle::{Oracle, SECRET, within};
use stockade_tests::hostile::script::Script;
use stockade_tests::hostile::{self, Hostile, assert_all_passed};
use tempfile::TempDir;

fn pod_bundle() -> Bundle {
    Bundle::busybox(&["/bin/sleep", "1000"])
        .edit(|config| config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" }))
}

fn join(config: &mut Value) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "pod",
    });
}

fn bind(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    config["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": destination, "type": "bind", "source": text(source), "options": options
    }));
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// What the attacking container has, and another one beside it.
struct Trees {
    bundle: Bundle,
    readonly: TempDir,
    volume: TempDir,
    other: Bundle,
}

impl Trees {
    fn new(oracle: &mut Oracle) -> Self {
        let trees = Self {
            bundle: hostile::bundle(),
            readonly: bundle::directory(),
            volume: bundle::directory(),
            other: hostile::bundle().edit(join),
        };
        let rootfs = trees.bundle.rootfs();
        write(&rootfs.join("i-am-rootfs"), "yes\n");
        for name in ["file", "scratch"] {
            write(&rootfs.join(name), "content\n");
        }
        for (directory, count) in [("directory", 0), ("many", 2000)] {
            fs::create_dir(rootfs.join(directory)).expect("directory");
            (0..count).for_each(|number| write(&rootfs.join(directory).join(number.to_string()), ""));
        }
        write(&rootfs.join("directory/file"), "content\n");
        // Relative paths that lead out of the bundle, and beside its root file system.
        let outside = trees.bundle.path().join("outside");
        fs::create_dir(&outside).expect("directory");
        write(&outside.join("secret"), SECRET);
        oracle.guard(&outside);
        let secret = oracle.secret();
        let up = format!("../../../../../../../..{}", secret.display());
        let new = secret.with_file_name("new").display().to_string();
        for (name, target) in [
            ("link-to-secret", text(&secret)),
            ("link-up-to-secret", &up),
            ("link-to-proc", "/proc"),
            ("link-to-core-pattern", "/proc/sys/kernel/core_pattern"),
            ("link-up", "../../.."),
            ("link-to-new", &new),
        ] {
            symlink(target, rootfs.join(name)).expect("link");
        }
        write(&trees.readonly.path().join("i-am-readonly"), "yes\n");
        fs::create_dir(trees.readonly.path().join("directory")).expect("directory");
        oracle.guard(trees.readonly.path());
        write(&trees.volume.path().join("i-am-volume"), "yes\n");
        write(&trees.volume.path().join("decoy"), SECRET);
        write(&trees.other.rootfs().join("i-am-other"), "yes\n");
        let (readonly, volume) = (trees.readonly.path().to_owned(), trees.volume.path().to_owned());
        let bundle = trees.bundle.edit(|config| {
            join(config);
            bind(config, &readonly, "/readonly", &["rbind", "ro"]);
            bind(config, &volume, "/volume", &["rbind", "rw"]);
            bind(config, Path::new("/sys"), "/host/sys", &["rbind", "ro"]);
        });
        Self { bundle, ..trees }
    }
}

/// What the VMMs and their file servers have open of these trees.
fn open_of(trees: &[&Path]) -> Vec<String> {
    let mut files = HashSet::new();
    trees.iter().for_each(|tree| inodes(tree, &mut files));
    let mut open = Vec::new();
    for pid in ["stockade-vmm", "stockade-files"].into_iter().flat_map(host::pids_named) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in entries.flatten().map(|entry| entry.path()) {
            // Where the file is, not what it is called, which depends on who looks.
            if fs::metadata(&link).is_ok_and(|data| files.contains(&(data.dev(), data.ino()))) {
                open.push(format!("{} {:?}", link.display(), fs::read_link(&link)));
            }
        }
    }
    open
}

fn inodes(tree: &Path, found: &mut HashSet<(u64, u64)>) {
    let data = fs::symlink_metadata(tree).expect("metadata");
    found.insert((data.dev(), data.ino()));
    if data.is_dir() {
        fs::read_dir(tree).expect("directory").for_each(|entry| inodes(&entry.expect("entry").path(), found));
    }
}

/// Runs a group of attacks in a pod that has another container too.
fn attack(group: &str, least: usize) {
    let hostile = Hostile::new(&Script::honest());
    let stockade = &hostile.stockade;
    let mut oracle = Oracle::new();
    let (pod, trees) = (pod_bundle(), Trees::new(&mut oracle));
    oracle.guard(&pod.rootfs());
    stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    stockade.create(&trees.other, "other");
    stockade.run(&["start", "other"]).success();

    let outcome = stockade.run_bundle(&trees.bundle, group);
    let state = oracle.assert_commands_end(stockade, group);
    assert_ne!(state.status, 0, "`run` has left it behind: {outcome:#?}");
    assert_eq!(stockade.status("other"), "running", "{outcome:#?}");
    let gone = [&trees.bundle.rootfs(), trees.readonly.path()];
    assert_eq!(open_of(&gone), [] as [String; 0], "descriptors are left of a container that is deleted");
    oracle.assert_commands_end(stockade, "other");
    oracle.assert_commands_end(stockade, "pod");
    oracle.assert_nothing_left();
    assert_all_passed(&outcome, least);
}

#[test]
fn names_nodes_handles_and_sizes() {
    attack("files", 25);
}

#[test]
fn links_and_trees() {
    attack("files-links", 18);
}

#[test]
fn requests_that_are_none() {
    attack("files-shape", 12);
}

/// What a guest writes before it has said that the container is created.
#[test]
fn a_read_only_root_is_never_written_to() {
    let hostile = Hostile::new(&Script::honest());
    let mut oracle = Oracle::new();
    let bundle = hostile::bundle().edit(|config| config["root"]["readonly"] = true.into());
    // What the container's mounts are put on is made by the runtime.
    for directory in ["dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup"] {
        let _ = fs::create_dir_all(bundle.rootfs().join(directory));
    }
    oracle.guard(&bundle.rootfs().join("etc"));
    let outcome = hostile.stockade.run_bundle(&bundle, "sealed");
    assert!(!bundle.rootfs().join("PWNED").exists(), "{outcome:#?}");
    oracle.assert_nothing_left();
    assert_all_passed(&outcome, 2);
}

/// Leaves no container behind, not even when the test fails.
struct Cleaned(Stockade);

impl Drop for Cleaned {
    fn drop(&mut self) {
        hostile::delete_all(&self.0);
    }
}

/// The static program that runs in an ordinary container.
fn tenant() -> std::path::PathBuf {
    stockade_tests::cli::built("x86_64-unknown-linux-gnu/release/hostile-tenant")
}

/// Two containers of a pod, each of a user without any capability: one makes the server close descriptors of files whose handles it
/// keeps, the other's then have their numbers.
#[test]
fn a_user_without_rights_does_not_close_descriptors_of_others() {
    let stockade = Cleaned(Stockade::new());
    let Cleaned(stockade) = &stockade;
    let oracle = Oracle::new();
    let (pod, volume) = (pod_bundle(), bundle::directory());
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    let member = |arguments: &[&str]| {
        let bundle = Bundle::busybox(arguments).edit(|config| {
            join(config);
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            config["process"]["capabilities"] = json!({});
            bind(config, volume.path(), "/volume", &["rbind", "rw"]);
            bind(config, Path::new("/sys"), "/host/sys", &["rbind", "ro"]);
        });
        fs::copy(tenant(), bundle.rootfs().join("bin/tenant")).expect("tenant");
        bundle
    };
    let closing = member(&["/bin/tenant", "close"]);
    fs::create_dir(closing.rootfs().join("links")).expect("directory");
    for number in 0..700 {
        let link = closing.rootfs().join("links").join(number.to_string());
        symlink("/proc/sys/kernel/core_pattern", link).expect("link");
    }
    let writing = member(&["/bin/tenant", "write"]);
    write(&writing.rootfs().join("target"), "untouched\n");
    fs::set_permissions(writing.rootfs().join("target"), fs::Permissions::from_mode(0o666)).expect("mode");

    stockade.create(&closing, "closing");
    stockade.run(&["start", "closing"]).success();
    host::wait_for_file(&volume.path().join("ready"));
    stockade.create(&writing, "writing");
    stockade.run(&["start", "writing"]).success();
    // Both report in the volume.
    write(&volume.path().join("go"), "");
    host::wait_for_file(&volume.path().join("written"));
    assert_eq!(
        fs::read_to_string(writing.rootfs().join("target")).expect("target"),
        "|/by-a-container %P\n",
        "it writes to its own file"
    );
    for id in ["writing", "closing", "pod"] {
        within(stockade, &["delete", "--force", id], stockade_tests::hostile::oracle::LIMIT).success();
    }
    oracle.assert_nothing_left();
}

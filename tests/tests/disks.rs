//! Block devices and images of the host as disks of the VM: device nodes and file systems in containers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::shell::Shell;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn succeed(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file with an empty ext4 file system in it.
struct Image(TempDir);

impl Image {
    fn new() -> Self {
        let image = Self(bundle::directory());
        let file = fs::File::create(image.path()).expect("image");
        file.set_len(16 * MIB).expect("size");
        succeed("mkfs.ext4", &["-q", "-F", text(&image.path())]);
        image
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("image")
    }

    /// What is in a file of it; it was unmounted as it should be.
    fn read(&self, file: &str) -> String {
        succeed("e2fsck", &["-n", "-f", text(&self.path())]);
        let features = succeed("dumpe2fs", &["-h", text(&self.path())]);
        assert!(!features.contains("needs_recovery"), "{features}");
        succeed("debugfs", &["-R", &format!("cat {file}"), text(&self.path())])
    }
}

/// A loop device, detached with the value.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        Self(succeed("losetup", &["--find", "--show", text(file)]).trim().to_owned())
    }

    fn numbers(&self) -> (u64, u64) {
        let rdev = fs::metadata(&self.0).expect("loop device").rdev();
        (libc::major(rdev).into(), libc::minor(rdev).into())
    }

    /// Gives it to a container as engines do: a node, and a rule that allows it.
    fn add(&self, config: &mut Value, access: &str) {
        let (major, minor) = self.numbers();
        config["linux"]["devices"] = json!([
            { "path": "/dev/xvda", "type": "b", "major": major, "minor": minor, "fileMode": 0o640, "uid": 0, "gid": 8 }
        ]);
        config["linux"]["resources"]["devices"]
            .as_array_mut()
            .expect("rules")
            .push(json!({ "allow": true, "type": "b", "major": major, "minor": minor, "access": access }));
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn mount(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    config["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": destination, "type": "ext4", "source": text(source), "options": options
    }));
}

fn join(config: &mut Value, sandbox: &str) {
    config["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
}

#[test]
fn the_file_system_in_an_image_is_mounted_in_the_guest_and_unmounted_before_the_end() {
    let image = Image::new();
    let stockade = Stockade::new();
    let bundle = Bundle::script("echo kept > /data/file; mkdir /data/directory; grep ' /data ' /proc/mounts")
        .edit(|config| mount(config, &image.path(), "/data", &["loop", "noatime"]));
    let outcome = stockade.run_bundle(&bundle, "image").success();
    assert!(outcome.stdout.contains(" /data ext4 rw,noatime"), "{outcome:#?}");
    assert_eq!(image.read("/file"), "kept\n");
    // Read-only, it can be used twice at the same time.
    let edit = |config: &mut Value| mount(config, &image.path(), "/data", &["ro"]);
    let mut reader = Shell::start(&stockade, "reader", edit);
    assert_eq!(
        reader.ask("cat /data/file; echo x 2>/dev/null > /data/file || echo refused"),
        "kept\nrefused\n"
    );
    let bundle = Bundle::script("cat /data/file").edit(edit);
    assert_eq!(stockade.run_bundle(&bundle, "other").success().stdout, "kept\n");
    let bundle = bundle.edit(|config| mount(config, &image.path(), "/data", &[]));
    stockade
        .run_bundle(&bundle, "writer")
        .failure(1, &["mounts[8].source", text(&image.path()), "another VM uses it"]);
    assert_eq!(reader.end(), 0);
}

#[test]
fn a_block_device_is_a_node_with_the_owner_and_mode_that_config_json_says() {
    let file = bundle::directory();
    let path = file.path().join("raw");
    fs::write(&path, vec![b'a'; MIB as usize]).expect("write");
    let device = Loop::new(&path);
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let script = "stat -c '%F %a %u %g' /dev/xvda; head -c 4 /dev/xvda; echo; \
                  echo written | dd of=/dev/xvda bs=512 seek=1 conv=notrunc 2>/dev/null; wc -c < /dev/xvda";
    let bundle = Bundle::script(script).edit(|config| device.add(config, "rwm"));
    let outcome = stockade.run_bundle(&bundle, "node").success();
    assert_eq!(outcome.stdout, format!("block special file 640 0 8\naaaa\n{MIB}\n"));
    succeed("sync", &[]);
    assert_eq!(&fs::read(&device.0).expect("device")[510..522], b"aawritten\naa");

    // Its rule says how it may be used, for the VM as well.
    let script = "head -c 4 /dev/xvda; echo; (echo x > /dev/xvda) 2>/dev/null || echo refused";
    let bundle = Bundle::script(script).edit(|config| {
        device.add(config, "r");
    });
    let outcome = stockade.run_bundle(&bundle, "node").success();
    assert_eq!(outcome.stdout, "aaaa\nrefused\n");
    before.assert_same_now();
}

#[test]
fn members_of_a_pod_get_disks_and_give_them_back() {
    let image = Image::new();
    let device = Loop::new(&image.path());
    let stockade = Stockade::new();
    let mut pod = Shell::start(&stockade, "pod", |_| {});
    let mut bundle = Bundle::script("cat /data/count 2>/dev/null; echo x >> /data/count").edit(|config| {
        join(config, "pod");
        mount(config, Path::new(&device.0), "/data", &[]);
    });
    // More often than there are slots.
    for round in 0..20 {
        let outcome = stockade.run_bundle(&bundle, "member").success();
        assert_eq!(outcome.stdout.lines().count(), round, "{outcome:#?}");
    }
    // A device node that is bind-mounted is the device.
    bundle = bundle.edit(|config| {
        config["mounts"].as_array_mut().expect("mounts").pop();
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/dev/disk", "type": "bind", "source": device.0, "options": ["bind", "ro"]
        }));
        config["process"]["args"] = json!(["/bin/sh", "-c", "dd if=/dev/disk bs=2 skip=540 count=1 2>/dev/null | md5sum; (echo > /dev/disk) 2>/dev/null || echo refused"]);
    });
    let outcome = stockade.run_bundle(&bundle, "member").success();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    // 0xEF53 at 1080: an ext4 file system.
    let magic = Command::new("sh").args(["-c", "printf '\\123\\357' | md5sum"]).output().expect("md5sum");
    assert_eq!(lines, [String::from_utf8_lossy(&magic.stdout).trim(), "refused"]);
    assert_eq!(pod.ask("ls /sys/block | grep -c '^vd'"), "0\n");
    assert_eq!(pod.end(), 0);
    drop(device);
    assert_eq!(image.read("/count").lines().count(), 20);
}

#[test]
fn what_is_mounted_on_the_host_or_asked_for_by_nobody_is_not_handed_over() {
    let image = Image::new();
    let device = Loop::new(&image.path());
    let point = bundle::directory();
    succeed("mount", &[&device.0, text(point.path())]);
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let bundle = Bundle::script("head -c 1 /dev/xvda").edit(|config| device.add(config, "rwm"));
    let outcome = stockade.run_bundle(&bundle, "taken");
    // A privileged container is given every device of the host.
    let bundle = bundle.edit(|config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    });
    let privileged = stockade.run_bundle(&bundle, "privileged");
    before.assert_same_now();
    succeed("umount", &[text(point.path())]);
    outcome.failure(1, &["linux.devices[0]", &device.0, "another VM uses it"]);
    assert_ne!(privileged.status, 0, "{privileged:#?}");
    assert!(privileged.stderr.contains("xvda"), "{privileged:#?}");
}

#[test]
fn the_root_of_a_user_namespace_has_a_file_system_mounted_for_it() {
    let image = Image::new();
    let bundle =
        Bundle::script("echo mine > /data/file; grep -c ' /data ext4 ' /proc/mounts").edit(|config| {
            mount(config, &image.path(), "/data", &[]);
            let linux = config["linux"].as_object_mut().expect("linux");
            linux["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
            let mapping = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
            linux.insert("uidMappings".into(), mapping.clone());
            linux.insert("gidMappings".into(), mapping);
        });
    let outcome = Stockade::new().run_bundle(&bundle, "user").success();
    assert_eq!(outcome.stdout, "1\n");
    assert_eq!(image.read("/file"), "mine\n");
}

//! Block devices and images of the host as disks of the VM: device nodes and file systems in containers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
        self.allow(config, access);
    }

    fn allow(&self, config: &mut Value, access: &str) {
        let (major, minor) = self.numbers();
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
    // A device node that is bind-mounted is the device, where a rule allows that.
    bundle = bundle.edit(|config| {
        device.allow(config, "rwm");
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

/// A pod's author has a container make a node of the host's disk in a volume, and has that mounted (`subPath`).
#[test]
fn a_node_that_a_container_has_made_is_not_the_host_s_device() {
    let file = bundle::directory();
    let path = file.path().join("secret");
    fs::write(&path, vec![b'a'; MIB as usize]).expect("write");
    let device = Loop::new(&path);
    let (major, minor) = device.numbers();
    let volume = bundle::directory();
    let bind = |source: &Path, destination: &str, how: &str| json!({ "destination": destination, "type": "bind", "source": text(source), "options": ["bind", how] });
    let stockade = Stockade::new();
    let before = host::Snapshot::take();
    let maker = Bundle::script(&format!("mknod /volume/disk b {major} {minor}")).edit(|config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "m" }]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(bind(volume.path(), "/volume", "rw"));
    });
    stockade.run_bundle(&maker, "maker").success();
    for how in ["ro", "rw"] {
        let reader = Bundle::script("head -c 4 /disk 2>/dev/null || echo refused").edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.push(bind(&volume.path().join("disk"), "/disk", how));
        });
        let run = ["--log-level", "warn", "run", "--bundle", text(reader.path()), "reader"];
        let outcome = stockade.run(&run).success();
        assert_eq!(outcome.stdout, "refused\n", "{how}");
        assert!(outcome.stderr.contains("is a node without a device in the VM"), "{}", outcome.stderr);
    }
    before.assert_same_now();
}

const SCRATCH: &str = "io.stockade.scratch";

/// A stockade whose containers may ask for 128 MiB of scratch disks, which are in this directory.
fn with_scratch(directory: &Path) -> Stockade {
    Stockade::with_config(&format!(
        "allowed_annotations = [{SCRATCH:?}]\n[scratch]\nmax_mib = 128\ndirectory = {:?}\n",
        text(directory)
    ))
}

fn map_ids(config: &mut Value, first: u32) {
    let linux = config["linux"].as_object_mut().expect("linux");
    linux["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
    linux.insert("uidMappings".into(), mapping.clone());
    linux.insert("gidMappings".into(), mapping);
}

#[test]
fn scratch_disks_take_what_the_container_writes_and_end_with_it() {
    let directory = bundle::directory();
    let stockade = with_scratch(directory.path());
    let mut rootfs = PathBuf::new();
    let mut shell = Shell::start_in(&stockade, "scratch", |bundle| {
        rootfs = bundle.rootfs();
        fs::create_dir(rootfs.join("cache")).expect("directory");
        fs::set_permissions(rootfs.join("cache"), PermissionsExt::from_mode(0o1770)).expect("mode");
        std::os::unix::fs::chown(rootfs.join("cache"), None, Some(8)).expect("owner");
        bundle.edit(|config| {
            config["annotations"] = json!({ SCRATCH: "/cache:32m,/:64m" });
        })
    });
    let before = fs::read_dir(&rootfs).expect("root").count();
    assert_eq!(
        shell.ask("awk '$2 == \"/\" || $2 == \"/cache\" { print $2, $3 }' /proc/mounts"),
        "/ overlay\n/cache ext4\n"
    );
    assert_eq!(shell.ask("stat -c '%a %u %g' /cache /"), "1770 0 8\n755 0 0\n");
    // What the image has can be changed, renamed and deleted; the host sees nothing of it.
    let script = "echo new > /new; mv /etc /conf; rm -r /var; test ! -e /etc; cat /new; ls -d /conf";
    assert_eq!(shell.ask(&format!("{script} 2>&1")), "new\n/conf\n");
    assert_eq!(fs::read_dir(&rootfs).expect("root").count(), before);
    assert!(rootfs.join("etc").is_dir() && rootfs.join("var").is_dir());
    // It is full when it is full, and what is deleted is the host's again.
    let held = || {
        let pid = host::pids_named("stockade-vmm")[0];
        let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
        let of_scratch = all.filter_map(|entry| {
            let entry = entry.expect("descriptor").path();
            fs::read_link(&entry).ok().filter(|target| target.starts_with(directory.path()))?;
            Some(fs::metadata(&entry).expect("disk").blocks() * 512)
        });
        of_scratch.collect::<Vec<_>>()
    };
    assert_eq!(held().len(), 2, "{:?}", held());
    let fill = "dd if=/dev/zero of=/cache/all bs=64k 2>&1 | grep -c 'No space left'; sync";
    assert_eq!(shell.ask(fill), "1\n");
    assert!(held().into_iter().max() > Some(24 * MIB), "{:?}", held());
    assert_eq!(shell.ask("rm /cache/all; sync"), "");
    assert!(held().into_iter().max() < Some(8 * MIB), "{:?}", held());
    assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 0, "the disks have no names");
    assert_eq!(shell.end(), 0);
    assert!(!rootfs.join("new").exists());

    // Not more than the administrator allows, and only where he does.
    let bundle = Bundle::script("touch /here").edit(|config| {
        config["annotations"] = json!({ SCRATCH: "/:1g" });
    });
    stockade.run_bundle(&bundle, "large").failure(1, &[SCRATCH, "1.0G", "scratch.max_mib"]);
    Stockade::new().run_bundle(&bundle, "unlisted").success();
    assert!(bundle.rootfs().join("here").exists());
}

#[test]
fn the_root_of_a_user_namespace_owns_its_scratch_disks() {
    let directory = bundle::directory();
    let stockade = Stockade::with_config(&format!(
        "[scratch]\ndefault = \"/:32m,/tmp:16m\"\ndirectory = {:?}\n",
        text(directory.path())
    ));
    let script = "echo a > /a; echo b > /tmp/b; stat -c '%u %g %n' / /a /tmp/b; rm -r /var 2>&1; echo $?";
    let bundle = Bundle::script(script).edit(|config| map_ids(config, 100_000));
    bundle::chown_all(&bundle.rootfs(), 100_000);
    let outcome = stockade.run_bundle(&bundle, "user").success();
    assert_eq!(outcome.stdout, "0 0 /\n0 0 /a\n0 0 /tmp/b\n0\n");
    assert!(!bundle.rootfs().join("a").exists() && bundle.rootfs().join("var").exists());
}

#[test]
fn the_root_of_a_user_namespace_has_a_file_system_mounted_for_it() {
    let image = Image::new();
    let bundle =
        Bundle::script("echo mine > /data/file; grep -c ' /data ext4 ' /proc/mounts").edit(|config| {
            mount(config, &image.path(), "/data", &[]);
            map_ids(config, 0);
        });
    let outcome = Stockade::new().run_bundle(&bundle, "user").success();
    assert_eq!(outcome.stdout, "1\n");
    assert_eq!(image.read("/file"), "mine\n");
}

//! `mounts`: every option and every kind of source, as a process in the container finds them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle, chown_all};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host::Snapshot;

fn mount(config: &mut Value, entry: Value) {
    config["mounts"].as_array_mut().expect("mounts").push(entry);
}

fn bind(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    mount(
        config,
        json!({ "destination": destination, "type": "bind", "source": source, "options": options }),
    );
}

/// A user namespace in which the IDs are the host's.
fn map_to_itself(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
    }
}

#[track_caller]
fn output(script: &str, edit: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::script(&format!("exec 2>&1; {script}")).edit(edit);
    let outcome = Stockade::new().run_bundle(&bundle, "mounts");
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{script}: {outcome:#?}");
    outcome.stdout
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}

#[test]
fn flags_and_recursive_flags_show_in_mountinfo() {
    let host = bundle::directory();
    let cases: [(&[&str], &str); 9] = [
        (&["rbind"], "rw,relatime"),
        (&["rbind", "rro"], "ro,relatime"),
        (&["rbind", "ro", "rrw"], "rw,relatime"),
        (&["rbind", "rnosuid", "rnodev", "rnoexec"], "rw,nosuid,nodev,noexec,relatime"),
        (&["rbind", "nosuid", "nodev", "noexec", "rsuid", "rdev", "rexec"], "rw,relatime"),
        (&["rbind", "rnoatime", "rnodiratime"], "rw,noatime,nodiratime"),
        (&["rbind", "noatime", "rstrictatime"], "rw"),
        (&["rbind", "rnoatime", "ratime", "rnodiratime", "rdiratime"], "rw,relatime"),
        (&["rbind", "rnosymfollow"], "rw,relatime,nosymfollow"),
    ];
    let out = output("awk '$5 ~ \"^/bind\" { print $5, $6 }' /proc/self/mountinfo", |config| {
        for (number, (options, _)) in cases.iter().enumerate() {
            bind(config, host.path(), &format!("/bind{number}"), options);
        }
    });
    let expected: Vec<_> =
        cases.iter().enumerate().map(|(number, (_, flags))| format!("/bind{number} {flags}")).collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_recursive_read_only_bind_is_so_below_too() {
    let host = bundle::directory();
    let below = host.path().join("below");
    fs::create_dir(&below).expect("mkdir");
    run("mount", &["-t", "tmpfs", "below", text(&below)]);
    let bundle = Bundle::script("exec 2>&1; touch /data/x; touch /data/below/x; true")
        .edit(|config| bind(config, host.path(), "/data", &["rbind", "rro"]));
    let outcome = Stockade::new().run_bundle(&bundle, "rro");
    let made = below.join("x").exists();
    run("umount", &[text(&below)]);
    assert!(!made, "written below a read-only mount");
    assert_eq!(outcome.stdout.matches("Read-only file system").count(), 2, "{outcome:#?}");
}

#[test]
fn a_plain_ro_is_of_the_mount_itself_and_flags_of_the_source_stay() {
    let host = bundle::directory();
    run("mount", &["-t", "tmpfs", "-o", "noexec,nosuid,nodev,noatime", "above", text(host.path())]);
    let below = host.path().join("a/below");
    fs::create_dir_all(&below).expect("mkdir");
    run("mount", &["-t", "tmpfs", "below", text(&below)]);
    for directory in [host.path(), below.as_path()] {
        fs::write(directory.join("true"), "#!/bin/sh\n").expect("write");
        fs::set_permissions(directory.join("true"), Permissions::from_mode(0o777)).expect("chmod");
    }
    let script = "touch /ro/x /ro/a/below/ro /rro/a/below/rro; /kept/true; echo $?; /exec/true; echo $?; \
                  /ro/a/below/true; echo $?; \
                  awk '$5 ~ \"^/(kept|exec|ro|rro)($|/)\" { print $5, $6 }' /proc/self/mountinfo";
    let edit = |config: &mut Value| {
        bind(config, host.path(), "/kept", &["rbind"]);
        bind(config, host.path(), "/exec", &["rbind", "exec"]);
        bind(config, host.path(), "/ro", &["rbind", "ro"]);
        bind(config, host.path(), "/rro", &["rbind", "rro"]);
    };
    let expected = "touch: /ro/x: Read-only file system\ntouch: /rro/a/below/rro: Read-only file system\n\
        /bin/sh: /kept/true: Permission denied\n126\n/bin/sh: /exec/true: Permission denied\n126\n0\n\
        /kept rw,nosuid,nodev,noexec,noatime\n/kept/a/below rw,relatime\n\
        /exec rw,nosuid,nodev,noexec,noatime\n/exec/a/below rw,relatime\n\
        /ro ro,nosuid,nodev,noexec,noatime\n/ro/a/below rw,relatime\n\
        /rro ro,nosuid,nodev,noexec,noatime\n/rro/a/below ro,relatime\n";
    let sorted = |out: &str| {
        let mut lines: Vec<_> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let plain = output(script, edit);
    let mapped = output(script, |config| {
        map_to_itself(config);
        edit(config);
    });
    let made = (below.join("ro").exists(), below.join("rro").exists());
    run("umount", &["-R", text(host.path())]);
    assert_eq!(sorted(&plain), sorted(expected), "{plain}");
    assert_eq!(sorted(&mapped), sorted(expected), "in a user namespace: {mapped}");
    assert_eq!(made, (true, false));
}

#[test]
fn destinations_and_what_they_cover_are_as_with_other_runtimes() {
    let host = bundle::directory();
    fs::write(host.path().join("x"), "").expect("write");
    fs::write(host.path().join("file"), "content\n").expect("write");
    let tmpfs = |destination: &str, options: &[&str]| {
        let options = [&["nosuid", "nodev"], options].concat();
        json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
    };
    let bundle = Bundle::script(
        "exec 2>&1; stat -c '%a %u:%g %n' /covered /new /own /up /none; ls -A /up; ls /data; cat /link /rel/file; readlink /elsewhere; \
         : <> /host/dev/ptmx && ls /host/dev/pts; \
         awk '$5 ~ \"^/(shared|new)$\" || $5 == \"/sys/firmware\" { print $5, $7 ~ \"shared\" }' /proc/self/mountinfo",
    )
    .edit(|config| {
        mount(config, tmpfs("/covered", &[]));
        mount(config, tmpfs("/new", &[]));
        mount(config, tmpfs("/own", &["mode=700"]));
        mount(config, tmpfs("/up", &["tmpcopyup"]));
        mount(config, tmpfs("/none", &["tmpcopyup"]));
        mount(config, tmpfs("/shared", &["shared"]));
        // Which does not make what is not there.
        bind(config, host.path(), "/var/none/../../data", &["rbind"]);
        bind(config, &host.path().join("file"), "/link", &["bind", "dest-nofollow"]);
        bind(config, &host.path().join("file"), "none/../rel/file", &["bind"]);
        bind(config, Path::new("/dev"), "/host/dev", &["rbind", "rprivate"]);
        config["linux"]["rootfsPropagation"] = "rprivate".into();
        config["linux"]["maskedPaths"] = json!(["/sys/firmware", "/sys//firmware/", "/sys/firmware"]);
        let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_MKNOD"]);
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.clone();
        }
    });
    let at = |name: &str| bundle.rootfs().join(name);
    for (name, mode) in [("covered", 0o700), ("own", 0o755), ("up", 0o1750)] {
        fs::create_dir(at(name)).expect("mkdir");
        fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("chmod");
        lchown(at(name), Some(7), Some(8)).expect("chown");
    }
    fs::write(at("up/copied"), "").expect("write");
    symlink("elsewhere", at("link")).expect("link");
    let outcome = Stockade::new().run_bundle(&bundle, "covers").success();
    assert_eq!(
        outcome.stdout,
        "700 0:0 /covered\n1777 0:0 /new\n700 0:0 /own\n1750 0:0 /up\n1777 0:0 /none\ncopied\nfile\nx\ncontent\ncontent\n\
         ptmx\n/new 0\n/shared 1\n/sys/firmware 0\n"
    );
    assert!(!at("var/none").exists() && !at("elsewhere").exists());
    // The destination is the root: what was there is not.
    let root = Bundle::script("cat /here; mount").edit(|config| {
        let other = bundle.rootfs();
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .insert(0, json!({ "destination": "/", "type": "bind", "source": other, "options": ["rbind"] }));
    });
    fs::write(at("here"), "another root\n").expect("write");
    let outcome = Stockade::new().run_bundle(&root, "root").success();
    assert!(
        outcome.stdout.starts_with("another root\n") && outcome.stdout.contains(" /proc "),
        "{outcome:#?}"
    );
}

#[test]
fn order_and_what_is_over_what_are_the_configs() {
    let host = bundle::directory();
    fs::create_dir_all(host.path().join("sub")).expect("mkdir");
    fs::write(host.path().join("file"), "host\n").expect("write");
    let script = "ls -A /data /data/sub; cat /data/file; \
                  awk '$5 == \"/over\" { print $NF != \"\", $6 }' /proc/self/mountinfo; \
                  stat -f -c %T /over; readlink /link; ls /target/in";
    let edit = |config: &mut Value| {
        bind(config, host.path(), "/data", &["bind"]);
        mount(config, json!({ "destination": "/data/sub", "type": "tmpfs", "source": "tmpfs" }));
        bind(config, Path::new("/etc/hostname"), "/data/sub/deep/er/name", &["bind", "ro"]);
        mount(config, json!({ "destination": "/over", "type": "proc", "source": "proc" }));
        mount(config, json!({ "destination": "/over", "type": "tmpfs", "source": "x", "options": ["ro"] }));
        // A link of an earlier mount's is followed like one of the image's.
        bind(config, host.path(), "/target/in/absent", &["rbind"]);
    };
    let expected =
        "/data:\nfile\nsub\n\n/data/sub:\ndeep\nhost\n1 rw,relatime\n1 ro,relatime\ntmpfs\nabsent\n";
    assert_eq!(output(script, edit), expected);
    let mapped = output(script, |config| {
        map_to_itself(config);
        edit(config);
    });
    assert_eq!(mapped, expected, "in a user namespace");
    assert!(fs::read_dir(host.path().join("sub")).expect("sub").next().is_none(), "the tmpfs covered it");
}

#[test]
fn a_mount_can_be_changed_by_a_later_one() {
    let host = bundle::directory();
    let out = output(
        "awk '$5 == \"/data\" || $5 == \"/scratch\" || $5 == \"/\" { print $5, $6 }' /proc/self/mountinfo | sort; \
         df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2; touch /data/x /x",
        |config| {
            bind(config, host.path(), "/data", &["rbind"]);
            let tmpfs =
                json!({ "destination": "/scratch", "type": "tmpfs", "source": "s", "options": ["size=1m"] });
            mount(config, tmpfs);
            let change = |destination: &str, options: &[&str]| json!({ "destination": destination, "type": "none", "source": "none", "options": options });
            mount(config, change("/data", &["remount", "noexec", "nosuid"]));
            mount(config, change("/scratch", &["remount", "size=2m", "noatime"]));
            mount(config, change("/scratch", &["remount", "bind", "nodev"]));
        },
    );
    assert_eq!(out, "/ rw,relatime\n/data rw,nosuid,noexec,relatime\n/scratch rw,nodev,noatime\n2048\n");
    let missing = Bundle::busybox(&["true"]).edit(|config| {
        mount(config, json!({ "destination": "/absent", "type": "none", "options": ["remount", "ro"] }));
    });
    Stockade::new().run_bundle(&missing, "absent").failure(1, &["mounts[7]", "/absent"]);
}

#[test]
fn sockets_pipes_and_links_can_be_sources() {
    let host = bundle::directory();
    let at = |name: &str| host.path().join(name);
    let _listener = UnixListener::bind(at("socket")).expect("socket");
    mkfifo(&at("fifo"), Mode::from_bits_truncate(0o666)).expect("fifo");
    fs::write(at("file"), "content\n").expect("file");
    symlink("/bin/busybox", at("link")).expect("link");
    symlink("file", at("near")).expect("link");
    let bundle = Bundle::script(
        "exec 2>&1; for f in /in/socket /in/fifo /in/copied /in/itself; do stat -c '%n %F' $f; done; \
         readlink /in/copied; readlink /in/itself; cat /in/followed; \
         (echo through > /in/fifo &); cat /in/fifo",
    )
    .edit(|config| {
        bind(config, &at("socket"), "/in/socket", &["bind"]);
        bind(config, &at("fifo"), "/in/fifo", &["rbind"]);
        bind(config, &at("link"), "/in/copied", &["bind", "copy-symlink"]);
        bind(config, &at("link"), "/in/itself", &["bind", "src-nofollow"]);
        bind(config, &at("near"), "/in/followed", &["bind"]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "sources").success();
    assert_eq!(
        outcome.stdout,
        "/in/socket socket\n/in/fifo fifo\n/in/copied symbolic link\n/in/itself symbolic link\n\
         /bin/busybox\n/bin/busybox\ncontent\nthrough\n"
    );
    let kind =
        |name: &str| fs::symlink_metadata(bundle.rootfs().join("in").join(name)).expect(name).file_type();
    assert!(kind("socket").is_file() && kind("fifo").is_file() && kind("itself").is_file());
    assert!(kind("copied").is_symlink() && at("fifo").metadata().expect("fifo").file_type().is_fifo());
}

#[test]
fn an_overlay_is_made_of_the_hosts_directories() {
    let host = bundle::directory();
    // What is below the layers must be a file system that takes an upper one.
    run("mount", &["-t", "tmpfs", "layers", text(host.path())]);
    for directory in ["low", "high", "upper", "work"] {
        fs::create_dir(host.path().join(directory)).expect("mkdir");
    }
    for (name, content) in [("low/a", "low\n"), ("low/b", "low\n"), ("high/b", "high\n")] {
        fs::write(host.path().join(name), content).expect("write");
    }
    let stockade = Stockade::new();
    let before = Snapshot::take();
    let at = |name: &str| format!("{}/{name}", host.path().display());
    let bundle = Bundle::script("cat /merged/a /merged/b; echo new > /merged/c; rm /merged/a; ls /merged").edit(|config| {
        let layers = format!("lowerdir={}:{}", at("high"), at("low"));
        let (upper, work) = (format!("upperdir={}", at("upper")), format!("workdir={}", at("work")));
        let options = [layers, upper, work];
        mount(config, json!({ "destination": "/merged", "type": "overlay", "source": "overlay", "options": options }));
    });
    let outcome = stockade.run_bundle(&bundle, "overlay");
    let c = fs::read_to_string(at("upper/c"));
    let kept = fs::read_to_string(at("low/a"));
    let bad = Bundle::busybox(&["true"]).edit(|config| {
        let options = ["lowerdir=/no/such/layer", "ro"];
        mount(config, json!({ "destination": "/merged", "type": "overlay", "options": options }));
    });
    let refused = stockade.run_bundle(&bad, "overlay");
    before.assert_same_now();
    run("umount", &[text(host.path())]);
    assert_eq!(outcome.success().stdout, "low\nhigh\nb\nc\n");
    assert_eq!((c.expect("upper/c"), kept.expect("low/a")), ("new\n".to_owned(), "low\n".to_owned()));
    refused.failure(1, &["mounts[7]", "/no/such/layer", "overlay"]);
}

#[test]
fn ids_of_a_bind_mount_are_mapped_by_the_host() {
    let host = bundle::directory();
    run("mount", &["-t", "tmpfs", "mapped", text(host.path())]);
    let below = host.path().join("below");
    fs::create_dir(&below).expect("mkdir");
    run("mount", &["-t", "tmpfs", "below", text(&below)]);
    for directory in [host.path(), &below] {
        fs::write(directory.join("file"), "").expect("write");
        lchown(directory.join("file"), Some(5), Some(6)).expect("chown");
        lchown(directory, Some(0), Some(0)).expect("chown");
    }
    let mapping = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 65536 }]);
    let script = "stat -c %u:%g /own/file /own/below/file /all/below/file; touch /all/below/made; \
                  stat -c %u:%g /all/below/made";
    let bundle = Bundle::script(script).edit(|config| {
        config["process"]["user"] = json!({ "uid": 2000, "gid": 3000 });
        let entry = |destination: &str, option: &str| {
            json!({ "destination": destination, "type": "bind", "source": host.path(), "options": ["rbind", option],
                    "uidMappings": mapping(2000), "gidMappings": mapping(3000) })
        };
        mount(config, entry("/own", "idmap"));
        mount(config, entry("/all", "ridmap"));
    });
    let stockade = Stockade::new();
    let outcome = stockade.run_bundle(&bundle, "idmap");
    // In a user namespace the files look as on the host.
    // Single files, too: containerd 2 has /etc/hostname and /etc/hosts so, where the image may have nothing or a file.
    let script = "stat -c %u:%g:%F /own/file /plain/file /etc/new /etc/passwd";
    let as_on_host = Bundle::script(script).edit(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = mapping(100_000);
        config["linux"]["gidMappings"] = mapping(100_000);
        bind(config, host.path(), "/own", &["bind", "idmap"]);
        bind(config, host.path(), "/plain", &["bind"]);
        for place in ["/etc/new", "/etc/passwd"] {
            bind(config, &host.path().join("file"), place, &["bind", "idmap"]);
        }
    });
    chown_all(&as_on_host.rootfs(), 100_000);
    let in_namespace = stockade.run_bundle(&as_on_host, "idmap");
    let made = fs::metadata(below.join("made")).map(|made| (made.uid(), made.gid()));
    run("umount", &["-R", text(host.path())]);
    assert_eq!(outcome.success().stdout, "2005:3006\n5:6\n2005:3006\n2000:3000\n");
    assert_eq!(made.expect("made"), (0, 0));
    let of_a_user = "5:6:regular empty file\n";
    let expected = format!("{of_a_user}65534:65534:regular empty file\n{of_a_user}{of_a_user}");
    assert_eq!(in_namespace.success().stdout, expected);
}

#[test]
fn an_image_that_changes_meanwhile_leads_nowhere_on_the_host() {
    let host = bundle::directory();
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        for number in 0..8 {
            let destination = format!("/swapped/{number}/made");
            mount(config, json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
            bind(config, Path::new("/etc/hostname"), &format!("/swapped/{number}/name"), &["bind"]);
        }
    });
    let (directory, link) = (bundle.rootfs().join("swapped"), bundle.rootfs().join("other"));
    fs::create_dir(&directory).expect("mkdir");
    symlink(host.path(), &link).expect("link");
    let stockade = Stockade::new();
    let before = Snapshot::take();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            while !done.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &directory, nix::fcntl::AT_FDCWD, &link, flags)
                    .expect("swap");
            }
        });
        for _ in 0..3 {
            // Whether it comes to be depends on who is faster; where it would be does not.
            stockade.run_bundle(&bundle, "swapped");
            stockade.run(&["delete", "--force", "swapped"]).success();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(fs::read_dir(host.path()).expect("directory").next().is_none(), "made outside of the image");
    before.assert_same_now();
}

#[test]
fn mounts_that_cannot_be_are_named() {
    let refused = |entry: Value, words: &[&str]| {
        let bundle = Bundle::busybox(&["true"]).edit(|config| mount(config, entry));
        let before = Snapshot::take();
        Stockade::new().run_bundle(&bundle, "refused").failure(1, words);
        before.assert_same_now();
    };
    let proc_bind = |options: Value| json!({ "destination": "/x", "source": "/proc", "options": options });
    let mapping = json!([{ "containerID": 0, "hostID": 5, "size": 1 }]);
    refused(json!({ "destination": "/x", "type": "nofs", "source": "x" }), &["mounts[7]", "type \"nofs\""]);
    refused(json!({ "destination": "/x" }), &["mounts[7].type", "missing"]);
    refused(proc_bind(json!(["bind", "idmap"])), &["mounts[7].options", "uidMappings"]);
    refused(proc_bind(json!(["bind", "idmap=uids=0-5-1"])), &["mounts[7].options", "idmap=uids=0-5-1"]);
    let mut one_sided = proc_bind(json!(["bind", "idmap"]));
    one_sided["uidMappings"] = mapping.clone();
    refused(one_sided.clone(), &["mounts[7].gidMappings", "missing"]);
    one_sided["gidMappings"] = mapping;
    refused(one_sided.clone(), &["mounts[7].source", "/proc", "IDs", "file system is proc"]);
    one_sided["uidMappings"][0]["size"] = json!(0);
    refused(one_sided.clone(), &["mounts[7].uidMappings[0]", "size 0"]);
    one_sided["uidMappings"][0]["size"] = json!(1);
    one_sided["type"] = "tmpfs".into();
    one_sided["options"] = json!(["idmap"]);
    refused(one_sided, &["mounts[7].options", "bind mount"]);
    refused(
        json!({ "destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=nonsense"] }),
        &["mounts[7]", "tmpfs", "/x"],
    );
    refused(
        json!({ "destination": "/etc/passwd/x", "type": "tmpfs", "source": "x" }),
        &["mounts[7]", "/etc/passwd/x"],
    );
}

#[test]
fn an_image_that_would_have_the_kernels_file_systems_elsewhere_is_refused() {
    let (linked, file) = (Bundle::busybox(&["true"]), Bundle::busybox(&["true"]));
    fs::remove_dir(linked.rootfs().join("proc")).expect("rmdir");
    symlink("tmp", linked.rootfs().join("proc")).expect("link");
    fs::remove_dir(file.rootfs().join("sys")).expect("rmdir");
    symlink("/etc", file.rootfs().join("sys")).expect("link");
    let stockade = Stockade::new();
    let before = Snapshot::take();
    stockade.run_bundle(&linked, "linked").failure(1, &["mounts[0]", "mount proc on /proc", "no directory"]);
    stockade.run_bundle(&file, "linked").failure(1, &["mounts[5]", "mount sysfs on /sys", "no directory"]);
    let both = Bundle::busybox(&["true"]).edit(|config| {
        bind(config, Path::new("/etc"), "/x", &["bind", "copy-symlink", "dest-nofollow"]);
    });
    stockade.run_bundle(&both, "both").failure(1, &["mounts[7].options", "copy-symlink", "dest-nofollow"]);
    before.assert_same_now();
}

//! The root file system and bind mounts: what the container does to them is on the host, and nothing else is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host;
use stockade_tests::shell::Shell;

fn bind(config: &mut Value, source: &str, destination: &str, options: &[&str]) {
    config["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": destination, "type": "bind", "source": source, "options": options
    }));
}

#[test]
fn directories_and_single_files_are_shared_both_ways() {
    let host = stockade_tests::bundle::directory();
    let (directory, file) = (host.path().join("directory"), host.path().join("hosts"));
    fs::create_dir(&directory).expect("mkdir");
    fs::write(directory.join("from-host"), "hello\n").expect("write");
    fs::write(&file, "one\n").expect("write");
    let bundle = Bundle::script(
        "cat /data/from-host /etc/hosts; echo two >> /etc/hosts; echo reply > /data/from-guest",
    )
    .edit(|config| {
        bind(config, text(&directory), "/data", &["rbind", "rw"]);
        bind(config, text(&file), "/etc/hosts", &["bind"]);
    });
    let outcome = Stockade::new().run_bundle(&bundle, "binds").success();
    assert_eq!(outcome.stdout, "hello\none\n");
    assert_eq!(fs::read_to_string(&file).expect("read"), "one\ntwo\n");
    assert_eq!(fs::read_to_string(directory.join("from-guest")).expect("read"), "reply\n");
}

/// podman makes resolv.conf before `create` and writes the name servers into it before `start`.
#[test]
fn a_file_that_is_completed_before_the_start_is_whole_for_the_first_program() {
    let host = stockade_tests::bundle::directory();
    let file = host.path().join("resolv.conf");
    fs::write(&file, "").expect("write");
    let bundle = Bundle::script("cat /etc/resolv.conf > /seen").edit(|config| {
        bind(config, text(&file), "/etc/resolv.conf", &["bind"]);
    });
    let stockade = Stockade::new();
    let relay = stockade.create(&bundle, "completed");
    fs::write(&file, "nameserver 10.89.0.1\n").expect("write");
    stockade.run(&["start", "completed"]).success();
    host::wait_for_end(relay);
    assert_eq!(fs::read_to_string(bundle.rootfs().join("seen")).expect("seen"), "nameserver 10.89.0.1\n");
    stockade.run(&["delete", "completed"]).success();
}

#[test]
fn a_read_only_bind_is_read_only_for_root_too() {
    let host = stockade_tests::bundle::directory();
    fs::write(host.path().join("file"), "kept\n").expect("write");
    let bundle = Bundle::script(
        "(echo x > /data/file || echo refused; mount -o remount,rw,bind /data; echo x > /data/file || echo refused) 2>/dev/null",
    )
    .edit(|config| {
        bind(config, text(host.path()), "/data", &["rbind", "ro"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        }
    });
    let outcome = Stockade::new().run_bundle(&bundle, "ro").success();
    assert_eq!(outcome.stdout, "refused\nrefused\n", "the second is the host kernel's refusal");
    assert_eq!(fs::read_to_string(host.path().join("file")).expect("read"), "kept\n");
}

#[test]
fn owners_modes_and_links_are_what_the_container_made() {
    let bundle = Bundle::script(
        "cd /tmp; echo text > file; chmod 4750 file; ln file hard; ln -s file soft; mkdir directory; \
         stat -c '%u %a %h' file; readlink soft; mv directory moved; rm hard",
    )
    .edit(|config| config["process"]["user"] = json!({ "uid": 1234, "gid": 4321 }));
    fs::set_permissions(bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    let outcome = Stockade::new().run_bundle(&bundle, "owners").success();
    assert_eq!(outcome.stdout, "1234 4750 2\nfile\n");
    let made = fs::metadata(bundle.rootfs().join("tmp/file")).expect("file on the host");
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777, made.nlink()), (1234, 4321, 0o4750, 1));
    assert!(bundle.rootfs().join("tmp/moved").is_dir());
    assert!(!bundle.rootfs().join("tmp/hard").exists());
}

#[test]
fn links_planted_in_the_image_lead_nowhere_on_the_host() {
    let host = stockade_tests::bundle::directory();
    fs::write(host.path().join("secret"), "secret\n").expect("write");
    let bundle = Bundle::script("cat /escape/secret /file 2>/dev/null; ls /mounted").edit(|config| {
        bind(config, "/usr/share/doc", "/escape-by-mount/inside", &["rbind", "ro"]);
    });
    symlink(host.path(), bundle.rootfs().join("escape")).expect("symlink");
    symlink(host.path().join("secret"), bundle.rootfs().join("file")).expect("symlink");
    symlink("../../../../../..", bundle.rootfs().join("escape-by-mount")).expect("symlink");
    fs::create_dir(bundle.rootfs().join("mounted")).expect("mkdir");
    let outcome = Stockade::new().run_bundle(&bundle, "links").success();
    assert_eq!(outcome.stdout, "");
    assert!(bundle.rootfs().join("inside").is_dir(), "the destination was resolved inside the root");
}

#[test]
fn mounts_below_a_source_come_along_and_none_shows_on_the_host() {
    let host = stockade_tests::bundle::directory();
    let inner = host.path().join("inner");
    fs::create_dir(&inner).expect("mkdir");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "below", text(&inner)]).status().expect("mount");
    assert!(mounted.success());
    fs::write(inner.join("deep"), "deep\n").expect("write");
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let bundle = Bundle::busybox(&["sleep", "1000"])
        .edit(|config| bind(config, text(host.path()), "/data", &["rbind"]));
    let stockade = Stockade::new();
    stockade.create(&bundle, "below");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"), before);
    // The caller can unmount its original while the container has its clone.
    let unmounted = Command::new("umount").arg(&inner).status().expect("umount");
    assert!(unmounted.success(), "the clone must not pin the original");
    stockade.run(&["delete", "--force", "below"]).success();
    let bundle = Bundle::script("cat /data/inner/deep").edit(|config| {
        bind(config, text(host.path()), "/data", &["rbind"]);
    });
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "below", text(&inner)]).status().expect("mount").success()
    );
    fs::write(inner.join("deep"), "deep\n").expect("write");
    let outcome = stockade.run_bundle(&bundle, "below");
    assert!(Command::new("umount").arg(&inner).status().expect("umount").success());
    assert_eq!(outcome.success().stdout, "deep\n");
}

#[test]
fn a_big_tree_survives_a_copy_through_the_guest() {
    let bundle = Bundle::script(
        "mkdir /tmp/tree; for i in $(seq 300); do mkdir -p /tmp/tree/$((i % 17)); seq $i > /tmp/tree/$((i % 17))/$i; done; \
         dd if=/dev/urandom of=/tmp/tree/big bs=1M count=16 2>/dev/null; find /tmp/tree -type f | sort | xargs md5sum | md5sum",
    );
    let outcome = Stockade::new().run_bundle(&bundle, "tree").success();
    let tree = bundle.rootfs().join("tmp/tree");
    // The names differ by the root's path only; md5sum prints them.
    let script = "cd \"$1\" && find tmp/tree -type f | sort | sed s,^,/, | while read f; do echo \"$(md5sum < .$f | cut -d' ' -f1)  $f\"; done | md5sum";
    let outside = Command::new("sh")
        .args(["-c", script, "sh", text(&bundle.rootfs())])
        .env("LC_ALL", "C")
        .output()
        .expect("sh");
    assert!(tree.join("big").exists());
    assert_eq!(outcome.stdout, String::from_utf8_lossy(&outside.stdout));
}

/// The guest's root waits for the container's files with a write; the host's kernel refuses it from the start.
#[test]
fn a_read_only_root_is_so_before_its_container_is_built() {
    let stockade = Stockade::with_config("memory_mib = 128\ndebug_shell = \"/bin/busybox\"\n");
    let pod = Bundle::busybox(&["sleep", "100000"]);
    stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    let attack = "(while :; do for d in /run/shares/*/rootfs; do echo pwned > $d/PWNED; done; done) > /dev/null 2>&1 & \
                  echo begun";
    let outcome = Outcome::of(&mut stockade.command(&["shell", "pod"]), attack.as_bytes());
    assert_eq!(outcome.stdout, "begun\n", "{outcome:#?}");
    let member = |readonly: bool| {
        Bundle::script("echo built; sleep 1").edit(|config| {
            config["root"]["readonly"] = readonly.into();
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod",
            });
        })
    };
    // The attack works where writing is allowed.
    let (open, closed) = (member(false), member(true));
    assert_eq!(stockade.run_bundle(&open, "open").success().stdout, "built\n");
    assert!(open.rootfs().join("PWNED").exists());
    for _ in 0..3 {
        assert_eq!(stockade.run_bundle(&closed, "closed").success().stdout, "built\n");
    }
    assert!(!closed.rootfs().join("PWNED").exists());
    stockade.run(&["delete", "--force", "pod"]).success();
}

/// An image from scratch has none of the directories that a container needs.
#[test]
fn what_a_read_only_root_lacks_is_made_by_the_host() {
    let host = stockade_tests::bundle::directory();
    fs::write(host.path().join("file"), "mounted\n").expect("write");
    let outside = host.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    let bundle = Bundle::script(
        "cat /etc/deep/file /data/file; pwd; echo x > /new || echo refused; ls /dev | grep -c 'null\\|console\\|ptmx'; \
         readlink /dev/ptmx; cd /link/into && echo linked",
    )
    .edit(|config| {
        config["root"]["readonly"] = true.into();
        config["process"]["cwd"] = "/work/here".into();
        // /dev is the image's.
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
        bind(config, text(&host.path().join("file")), "/etc/deep/file", &["bind", "ro"]);
        bind(config, text(host.path()), "/data", &["rbind", "ro"]);
        bind(config, text(host.path()), "/link/into", &["rbind", "ro"]);
    });
    for directory in ["dev", "etc", "proc", "sys", "tmp", "var", "root"] {
        fs::remove_dir_all(bundle.rootfs().join(directory)).expect("remove");
    }
    symlink(&outside, bundle.rootfs().join("link")).expect("link");
    let outcome = Stockade::new().run_bundle(&bundle, "scratch");
    assert_eq!(
        outcome.stdout, "mounted\nmounted\n/work/here\nrefused\n2\npts/ptmx\nlinked\n",
        "{outcome:#?}"
    );
    assert_eq!(
        fs::read_dir(&outside).expect("directory").count(),
        0,
        "the link leads to a place in the container"
    );
    // Where the file system itself is read-only, the agent says what is missing.
    let mounted = stockade_tests::bundle::directory();
    let tree = mounted.path();
    let flags = nix::mount::MsFlags::MS_BIND;
    let none = None::<&str>;
    let bare = Bundle::script("true").edit(|config| {
        config["root"] = json!({ "path": text(tree), "readonly": true });
    });
    fs::remove_dir_all(bare.rootfs().join("sys")).expect("remove");
    nix::mount::mount(Some(&bare.rootfs()), tree, none, flags, none).expect("bind");
    let readonly = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(none, tree, none, readonly, none).expect("remount");
    Stockade::new().run_bundle(&bare, "frozen").failure(1, &["/sys", "read-only file system"]);
    nix::mount::umount(tree).expect("unmount");
}

/// The guest keeps for a second what it has listed, if the directory has not changed shortly before.
#[test]
fn a_listing_that_was_read_a_moment_ago_hides_nothing() {
    let host = stockade_tests::bundle::directory();
    let at = |name: &str| host.path().join(name);
    // Nothing else makes the time of the last change an old one.
    let grow_old = || {
        let changed = fs::metadata(host.path()).expect("stat").ctime();
        let age = || SystemTime::UNIX_EPOCH.elapsed().expect("clock").as_secs() as i64 - changed;
        while age() < 3 {
            thread::sleep(Duration::from_millis(50));
        }
    };
    ["a", "b"].iter().for_each(|name| fs::write(at(name), "").expect("write"));
    let stockade = Stockade::new();
    let mut shell =
        Shell::start(&stockade, "lists", |config| bind(config, text(host.path()), "/v", &["rbind", "rw"]));
    grow_old();
    // What the container changes itself is there at once, for a process too that has the directory open.
    let own = "cd /v; ls; ls; touch c; ls; rm a; ls; mv b d; ls";
    assert_eq!(shell.ask(own).split_whitespace().collect::<String>(), "abababcbccd");
    grow_old();
    for (change, wanted) in [
        (&(|| fs::write(at("e"), "").expect("write")) as &dyn Fn(), "c d e"),
        (&(|| fs::rename(at("c"), at("f")).expect("rename")) as &dyn Fn(), "d e f"),
        (&(|| fs::remove_file(at("e")).expect("unlink")) as &dyn Fn(), "d f"),
    ] {
        let lists = "echo $(ls /v)";
        let before = shell.ask(&format!("{lists}; {lists}"));
        assert!(!before.contains(wanted), "{before}");
        change();
        let until = format!("until [ \"$({lists})\" = '{wanted}' ]; do :; done; {lists}");
        assert_eq!(shell.ask(&until), format!("{wanted}\n"));
        grow_old();
    }
    assert_eq!(shell.end(), 0);
}

#[test]
fn what_the_host_mounts_later_comes_and_goes_in_a_mount_that_follows_it() {
    let host = stockade_tests::bundle::directory();
    let later = host.path().join("later");
    fs::create_dir(&later).expect("mkdir");
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().expect(program);
        assert!(status.success(), "{program} {args:?}");
    };
    run("mount", &["--bind", text(host.path()), text(host.path())]);
    run("mount", &["--make-shared", text(host.path())]);
    let stockade = Stockade::new();
    let mut shell = Shell::start(&stockade, "follows", |config| {
        bind(config, text(host.path()), "/follows", &["rbind", "rslave"]);
        bind(config, text(host.path()), "/read", &["rbind", "ro", "rshared"]);
        bind(config, text(host.path()), "/stays", &["rbind", "rprivate"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_ADMIN"]);
    });
    // Known before, too.
    shell.ask("ls -R /follows /read /stays");
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "later", text(&later)]);
    fs::write(later.join("seen"), "from the host\n").expect("write");
    assert_eq!(shell.ask("until cat /follows/later/seen 2>/dev/null; do :; done"), "from the host\n");
    assert_eq!(shell.ask("echo reply > /follows/later/reply; cat /read/later/reply"), "reply\n");
    assert_eq!(fs::read_to_string(later.join("reply")).expect("reply"), "reply\n");
    assert_eq!(shell.ask("stat -f -c '%b %S' /follows/later"), "256 4096\n");
    let refused = shell.ask("echo x 2>&1 > /read/later/x; ls /stays/later");
    assert!(refused.contains("Read-only file system"), "{refused}");
    // What the container mounts stays there.
    shell.ask("mkdir /follows/own /read/own; mount -t tmpfs own /follows/own && touch /follows/own/file");
    assert!(host.path().join("own").is_dir() && !host.path().join("own/file").exists());
    // That the guest has been there does not keep the host from unmounting, but what it uses does.
    shell.ask("exec 3< /follows/later/seen");
    assert!(!Command::new("umount").arg(&later).output().expect("umount").status.success());
    shell.ask("exec 3<&-");
    assert_eq!(shell.ask("ls /follows/later /read/later > /dev/null; echo looked"), "looked\n");
    run("sh", &["-c", "until umount $0 2>/dev/null; do :; done", text(&later)]);
    shell.ask("while [ -e /follows/later/seen ]; do :; done");
    shell.end();
    run("umount", &[text(host.path())]);

    let log = host.path().join("log");
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        bind(config, "/tmp", "/shared", &["rbind", "ro", "rshared"]);
    });
    stockade.run(&["--log", text(&log), "run", "-b", text(bundle.path()), "warned"]).success();
    let log = fs::read_to_string(log).expect("log");
    for words in ["mounts[7].options: shared", "mounts[7].options: ro"] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

/// FS_IOC_ENABLE_VERITY with a signature of nearly 1 MiB is the longest request that a program can have the guest's kernel send.
#[test]
fn the_longest_ioctl_of_a_program_without_rights_leaves_the_pod_its_files() {
    let script = r#"perl -e 'my $signature = "x" x 1000000;
        my $wanted = pack("L4 Q L2 Q x88", 1, 1, 4096, 0, 0, length $signature, 0, unpack("Q", pack("p", $signature)));
        open(my $file, "<", "/bin/sh") or die;
        print ioctl($file, 0x40806685, $wanted) ? "done" : $!, "\n"'
        ls /usr/lib > /dev/null && echo "files are there""#;
    let bundle = Bundle::script(script).edit(|config| {
        config["process"]["user"] = json!({ "uid": 65534, "gid": 65534 });
        config["process"]["capabilities"] = json!({});
        for directory in ["/lib", "/lib64", "/usr"] {
            bind(config, directory, directory, &["rbind", "ro"]);
        }
    });
    let outcome = Stockade::new().run_bundle(&bundle, "ioctl").success();
    assert_eq!(outcome.stdout, "Inappropriate ioctl for device\nfiles are there\n");
}

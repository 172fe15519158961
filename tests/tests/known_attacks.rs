//! Attacks on other runtimes that have numbers: what each did there, and what holds here.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};
use stockade_tests::bundle::{Bundle, directory};
use stockade_tests::cli::{Outcome, Stockade, built, text};
use stockade_tests::host::Snapshot;
use stockade_tests::terminal::Terminal;

/// Small VMs.
const SMALL: &str = "memory_mib = 128\n";

/// What guest and host are made of: nobody in a container may change it.
const PROGRAMS: [&str; 4] = ["release/stockade", "release/stockade-vmm", "guest/vmlinux", "guest/initramfs"];

fn fingerprints() -> Vec<u64> {
    let fingerprint = |name: &&str| {
        let mut hasher = DefaultHasher::new();
        fs::read(built(name)).expect("a program").hash(&mut hasher);
        hasher.finish()
    };
    PROGRAMS.iter().map(fingerprint).collect()
}

fn bind(config: &mut Value, source: &Path, destination: &str) {
    config["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": destination, "type": "bind", "source": text(source), "options": ["rbind", "rw"]
    }));
}

fn give_capabilities(config: &mut Value, names: &[&str]) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(names);
    }
}

/// A container that sleeps, to be executed in.
fn sleeper(stockade: &Stockade, change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::busybox(&["sleep", "100000"]).edit(change);
    stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    bundle
}

fn shell(stockade: &Stockade, script: &str) -> Outcome {
    stockade.run(&["exec", "c", "sh", "-c", script])
}

/// runc: a container whose program is /proc/self/exe has the runtime execute itself, opens that through /proc/PID/exe, and
/// writes to it when it is not executed any more: root on the host at the next start. Here the process that becomes the
/// container's is the agent's in the guest. The host's programs are not in the VM, and the agent's own file, which always
/// runs, cannot be written to.
#[test]
fn cve_2019_5736_the_runtimes_program_is_overwritten() {
    let stockade = Stockade::with_config(SMALL);
    let before = (Snapshot::take(), fingerprints());
    let bundle =
        sleeper(&stockade, |config| give_capabilities(config, &["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]));
    symlink("/proc/self/exe", bundle.rootfs().join("bin/evil")).expect("link");
    let overwrite = "for i in $(seq 300); do for p in /proc/[0-9]*; do \
                     case \"$(readlink $p/exe)\" in */busybox | '') ;; *) \
                     (echo overwritten > $p/exe) 2> /dev/null && echo \"wrote to $p: $(readlink $p/exe)\" ;; esac; done; done";
    let attacker = stockade
        .command(&["exec", "c", "sh", "-c", overwrite])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("exec");
    for program in ["/proc/self/exe", "/bin/evil", "/proc/self/exe"] {
        let outcome = stockade.run(&["exec", "c", program]);
        assert_ne!(outcome.status, 0, "{outcome:#?}");
    }
    let outcome = Outcome::wait(attacker, "the attacker");
    assert_eq!(outcome.stdout, "", "{outcome:#?}");
    // It all still works.
    assert_eq!(shell(&stockade, "echo works").success().stdout, "works\n");
    stockade.run(&["delete", "--force", "c"]).success();
    assert_eq!(fingerprints(), before.1);
    before.0.assert_same_now();
}

/// runc: while it mounts beneath a volume, another container that has the volume swaps a directory for a link to /,
/// and the mount goes to the host's file system, from where the container sees all of it. Here the mount's place is
/// resolved beneath the root in the guest, to a descriptor; nothing outside of the container is there in the first
/// place.
#[test]
fn cve_2021_30465_a_mount_follows_a_link_that_is_swapped_in() {
    let stockade = Stockade::with_config(SMALL);
    let volume = directory();
    fs::create_dir(volume.path().join("place")).expect("directory");
    symlink("/../../../../..", volume.path().join("link")).expect("link");
    let before = Snapshot::take();
    // The directory may be called `link` by the time that it is looked at.
    let bundle = Bundle::script(
        "[ ! -e /vol/place/run/shares ] && [ ! -e /run/shares ] && [ ! -e /vol/link/run/shares ] || echo outside; \
         grep -c ' /vol/place/within \\| /vol/link/within \\| /within ' /proc/self/mountinfo",
    )
    .edit(|config| {
        bind(config, volume.path(), "/vol");
        bind(config, volume.path(), "/vol/place/within");
    });
    let (place, link) = (volume.path().join("place"), volume.path().join("link"));
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &place, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).expect("swap");
                // The machine has one CPU, which the attacked need too.
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let outcomes: Vec<Outcome> = (0..3).map(|_| stockade.run_bundle(&bundle, "c")).collect();
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("swapper");
    for outcome in outcomes {
        match outcome.status {
            0 => assert_eq!(outcome.stdout, "1\n", "{outcome:#?}"),
            // What was to be mounted on has gone in between.
            _ => assert!(
                outcome.stdout.is_empty() && outcome.stderr.contains("/vol/place/within"),
                "{outcome:#?}"
            ),
        }
    }
    before.assert_same_now();
}

/// runc: `exec --cap` makes capabilities inheritable, so that a program with inheritable capabilities in its file gets what
/// the container was not given. Here the inheritable set is empty, and with it the ambient one.
#[test]
fn cve_2022_29162_an_exec_has_inheritable_capabilities() {
    let stockade = Stockade::with_config(SMALL);
    let _bundle = sleeper(&stockade, |_| ());
    let read = "grep -E 'CapInh|CapAmb|CapEff' /proc/self/status";
    let sets = |options: &[&str]| {
        stockade.run(&[&["exec"], options, &["c", "sh", "-c", read]].concat()).success().stdout
    };
    let expected = |effective: u64| {
        let line = |name: &str, set: u64| format!("Cap{name}:\t{set:016x}\n");
        format!("{}{}{}", line("Inh", 0), line("Eff", effective), line("Amb", 0))
    };
    // AUDIT_WRITE, KILL and NET_BIND_SERVICE; and CHOWN.
    assert_eq!(sets(&[]), expected(0x2000_0420));
    assert_eq!(sets(&["--cap", "CAP_CHOWN"]), expected(0x2000_0421));
    assert_eq!(sets(&["--cap", "CAP_CHOWN", "--user", "1000:1000"]), expected(0));
    stockade.run(&["delete", "--force", "c"]).success();
}

/// runc: a descriptor of the host's /sys/fs/cgroup leaks into the container's process, and a working directory
/// /proc/self/fd/N is outside of the container. Here a working directory through a descriptor is refused, and what
/// leaked would be the guest's.
#[test]
fn cve_2024_21626_a_working_directory_is_a_leaked_descriptor() {
    let stockade = Stockade::with_config(SMALL);
    let before = Snapshot::take();
    for number in [3, 7] {
        let bundle = Bundle::script("pwd; ls -a ../../..").edit(|config| {
            config["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        });
        let outcome = stockade.run_bundle(&bundle, "leaked");
        outcome.failure(1, &["working directory", &format!("/proc/self/fd/{number}")]);
    }
    let _bundle = sleeper(&stockade, |_| ());
    shell(&stockade, "ln -s /proc/self/fd/7 /tmp/leak; ln -s /proc/self/fd /tmp/fds").success();
    let numbers = (0..24).map(|number| format!("/proc/self/fd/{number}"));
    let others =
        ["/tmp/leak", "/tmp/fds/8", "/proc/self/fd/9/../..", "/proc/1/root/proc/self/fd/5"].map(String::from);
    for path in numbers.chain(others) {
        let outcome = stockade.run(&["exec", "--cwd", &path, "c", "sh", "-c", "pwd; ls -d init run/shares"]);
        assert!(outcome.status != 0 && !outcome.stdout.contains("init"), "{path}: {outcome:#?}");
        assert!(!outcome.stdout.contains("shares"), "{path}: {outcome:#?}");
    }
    // Nothing is open in the container's process but its stdio.
    let open = stockade.run(&["exec", "c", "/bin/ls", "/proc/self/fd"]).success().stdout;
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "the last is ls's own");
    stockade.run(&["delete", "--force", "c"]).success();
    before.assert_same_now();
}

/// runc: masked files are covered with the container's /dev/null. Where that is a link of the image's, what it leads to is
/// mounted there, to be written to; where it is missing, nothing is masked. Here the device is the guest's own.
#[test]
fn cve_2025_31133_masked_paths_are_covered_with_the_images_null() {
    let stockade = Stockade::with_config(SMALL);
    let script = "for f in kcore keys timer_list interrupts; do [ -e /proc/$f ] || continue; \
                  stat -c '%t:%T' /proc/$f; head -c 20 /proc/$f | wc -c; done; ls /sys/firmware | wc -l; \
                  echo '|/evil' > /proc/keys; cat /proc/sys/kernel/core_pattern";
    let dev = directory();
    let bundle = |null: Option<&str>| {
        let _ = fs::remove_file(dev.path().join("null"));
        if let Some(target) = null {
            symlink(target, dev.path().join("null")).expect("link");
        }
        Bundle::script(script).edit(|config| {
            config["linux"]["maskedPaths"] = json!([
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/interrupts",
                "/sys/firmware",
                "/no"
            ]);
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| !mount["destination"].as_str().expect("path").starts_with("/dev"));
            bind(config, dev.path(), "/dev");
        })
    };
    for null in [None, Some("/proc/sys/kernel/core_pattern"), Some("/etc/passwd"), Some("null")] {
        let outcome = stockade.run_bundle(&bundle(null), "masked").success();
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let (masked, [firmware, pattern]) = lines.split_at(lines.len() - 2) else { panic!("{outcome:#?}") };
        assert!(masked.len() >= 4, "{outcome:#?}");
        assert!(masked.chunks(2).all(|pair| pair == ["1:3", "0"]), "{null:?}: {outcome:#?}");
        assert_eq!((*firmware, *pattern), ("0", "core"), "{null:?}: {outcome:#?}");
    }
}

/// runc: the terminal becomes /dev/console by its path below /dev/pts, and what the image has there is mounted instead,
/// before paths are masked. Here it is mounted by its descriptor, which is known to be of a devpts.
#[test]
fn cve_2025_52565_the_console_is_another_file() {
    let stockade = Stockade::with_config(SMALL);
    let before = Snapshot::take();
    let dev = directory();
    fs::create_dir(dev.path().join("pts")).expect("directory");
    for n in 0..4 {
        symlink("/proc/sys/kernel/core_pattern", dev.path().join(format!("pts/{n}"))).expect("link");
    }
    symlink("/etc/console-target", dev.path().join("console")).expect("link");
    let bundle = |has_devpts: bool| {
        Bundle::script("stat -L -c '%t' /dev/console; tty; cat /proc/sys/kernel/core_pattern").edit(
            |config| {
                config["process"]["terminal"] = true.into();
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                let devpts = mounts.iter().find(|mount| mount["type"] == "devpts").cloned();
                mounts.retain(|mount| !mount["destination"].as_str().expect("path").starts_with("/dev"));
                bind(config, dev.path(), "/dev");
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                mounts.extend(devpts.filter(|_| has_devpts));
            },
        )
    };
    let run = |bundle: &Bundle| {
        let mut terminal = Terminal::open(24, 80);
        let mut child = terminal.spawn(&mut stockade.command(&["run", "-b", text(bundle.path()), "console"]));
        let status = child.wait().expect("wait");
        (status.success(), terminal.rest())
    };
    let shown = bundle(true);
    let (success, seen) = run(&shown);
    // 88 is 136, the major number of pseudo-terminals.
    assert!(success && seen.contains("88\r\n/dev/pts/0\r\ncore\r\n"), "{seen}");
    // The link led to a place in the container.
    assert_eq!(fs::read(shown.rootfs().join("etc/console-target")).expect("made"), b"");
    // Without a devpts there is no terminal, whatever the image has as ptmx.
    for ptmx in ["/dev/null", "/etc/passwd", "/proc/sysrq-trigger"] {
        let _ = fs::remove_file(dev.path().join("pts/ptmx"));
        symlink(ptmx, dev.path().join("pts/ptmx")).expect("link");
        let (success, seen) = run(&bundle(false));
        assert!(!success && seen.contains("terminal"), "{ptmx}: {seen}");
    }
    before.assert_same_now();
}

/// runc: what it writes to files of /proc, labels and sysctls, goes to other files where the container's /proc is not one
/// (/proc/sysrq-trigger, core_pattern). Here settings are written to the guest's procfs, before the container's is mounted.
#[test]
fn cve_2025_52881_writes_to_procfs_are_led_elsewhere() {
    let stockade = Stockade::with_config(SMALL);
    let fake = directory();
    let (proc, victim) = (fake.path().join("proc"), fake.path().join("victim"));
    fs::write(&victim, "as it was").expect("victim");
    fs::create_dir_all(proc.join("sys/kernel")).expect("directories");
    fs::create_dir_all(proc.join("self/attr")).expect("directories");
    for file in ["sys/kernel/shm_rmid_forced", "self/oom_score_adj", "self/attr/exec", "self/timens_offsets"]
    {
        symlink("/fake/victim", proc.join(file)).expect("link");
    }
    let bundle =
        Bundle::script("cat /real/sys/kernel/shm_rmid_forced /real/self/oom_score_adj").edit(|config| {
            config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1" });
            config["process"]["oomScoreAdj"] = 123.into();
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/proc");
            mounts.push(json!({ "destination": "/real", "type": "proc", "source": "proc" }));
            bind(config, fake.path(), "/fake");
            bind(config, &proc, "/proc");
        });
    let outcome = stockade.run_bundle(&bundle, "fake").success();
    assert_eq!(outcome.stdout, "1\n123\n", "{outcome:#?}");
    assert_eq!(fs::read_to_string(&victim).expect("victim"), "as it was");
    // An exec writes before it joins the container, too.
    let bundle = bundle.edit(|config| config["process"]["args"] = json!(["sleep", "100000"]));
    stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    let seen = stockade.run(&["exec", "c", "/bin/cat", "/real/self/oom_score_adj"]).success().stdout;
    assert_eq!(seen, "123\n");
    assert_eq!(fs::read_to_string(&victim).expect("victim"), "as it was");
    stockade.run(&["delete", "--force", "c"]).success();
}

/// Kata Containers: a container with CAP_MKNOD makes a node of the guest's root disk, writes to it, and so is root in the VM.
/// Here the guest's root is in its memory and no device: there is no disk but those that a container is given, a node of
/// another's does not open, and what the host has of the guest's root is mapped privately.
#[test]
fn cve_2026_24834_the_guests_root_is_written_to_through_a_device() {
    let stockade = Stockade::with_config(SMALL);
    let before = (Snapshot::take(), fingerprints());
    let script = "ls /sys/block | grep -v '^ram\\|^loop' | busybox wc -l; grep -c pmem /proc/devices; \
                  n=0; for major in $(seq 1 9) 1 240 250 251 252 253 254 259; do for minor in 0 1 2 3; do \
                  rm -f /tmp/n; mknod /tmp/n b $major $minor; (echo evil > /tmp/n) 2> /dev/null && echo opened $major $minor; \
                  done; done; for minor in 1 2 4; do rm -f /tmp/n; mknod /tmp/n c 1 $minor; \
                  (echo evil > /tmp/n) 2> /dev/null && echo opened mem $minor; done; echo tried";
    let bundle = Bundle::script(script).edit(|config| {
        give_capabilities(config, &["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO"]);
    });
    let outcome = stockade.run_bundle(&bundle, "mknod").success();
    assert_eq!(outcome.stdout, "0\n0\ntried\n", "{outcome:#?}");
    // Whoever is allowed every device has the guest's memory, and nothing of the host's.
    let allowed = bundle.edit(|config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        config["process"]["args"][2] =
            "mknod /tmp/m c 1 1; dd if=/dev/zero of=/tmp/m bs=4096 count=1 seek=300; true".into();
    });
    stockade.run_bundle(&allowed, "mknod");
    assert_eq!(fingerprints(), before.1);
    let next = Bundle::script("echo boots");
    assert_eq!(stockade.run_bundle(&next, "next").success().stdout, "boots\n");
    before.0.assert_same_now();
}

/// Kata Containers: the guest's root sends FUSE_SYMLINK with an absolute name to virtiofsd, which makes the link on the host,
/// as its root. Here a name with a slash is no name (the hostile guest sends such requests itself); what a guest's root gets
/// through its kernel, in every directory that it is shown, stays in the container's own files.
#[test]
fn cve_2026_47243_the_guests_root_makes_links_on_the_host() {
    let stockade = Stockade::with_config(&format!("{SMALL}debug_shell = \"/bin/busybox\"\n"));
    let volume = directory();
    let secret = directory();
    fs::write(secret.path().join("file"), "secret").expect("file");
    let before = Snapshot::take();
    let bundle = sleeper(&stockade, |config| bind(config, volume.path(), "/vol"));
    let target = secret.path().join("planted");
    let script = format!(
        "cd /run/shares; for d in . * */rootfs */*; do (cd $d && ln -s /etc/passwd {target}; \
         ln -s {secret} out; mkdir -p ../../../..{target}; cat out/file; echo x > out/planted; \
         mknod node b 8 0; cat node | head -c 1) 2> /dev/null; done; echo tried",
        target = target.display(),
        secret = secret.path().display(),
    );
    let outcome = Outcome::of(&mut stockade.command(&["shell", "c"]), script.as_bytes());
    assert_eq!(outcome.stdout, "tried\n", "{outcome:#?}");
    assert_eq!(entries(secret.path()), [secret.path().join("file")]);
    stockade.run(&["delete", "--force", "c"]).success();
    assert_eq!(entries(secret.path()), [secret.path().join("file")]);
    drop(bundle);
    before.assert_same_now();
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path()).collect()
}

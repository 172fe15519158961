//! VMs that begin as clones of a template: that they differ, that they do what others do, and that nothing is used that is not
//! whole.

use std::collections::HashSet;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade};
use stockade_tests::host;

const STORE: &str = "/run/stockade-templates";

/// One size for all tests, and so one template.
const SMALL: &str = "memory_mib = 256\n";

/// Clones that are compared.
const CLONES: usize = 8;

/// What says that a VM has begun as a template.
const BEGINS: &str = "begins as a template";

fn stockade() -> Stockade {
    Stockade::with_config(SMALL)
}

/// There is a template; its directory.
fn template(stockade: &Stockade) -> PathBuf {
    stockade.run(&["template", "build"]).success();
    let all = templates();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

/// All that are finished.
fn templates() -> Vec<PathBuf> {
    let entries = fs::read_dir(STORE).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.join("about").exists() && !path.ends_with(".new")).collect()
}

/// Runs a container in a VM of its own, with the debug log on standard error.
fn run(stockade: &Stockade, script: &str) -> Outcome {
    let bundle = Bundle::script(script);
    let path = bundle.path().to_str().expect("a path").to_owned();
    stockade.run(&["--debug", "run", "--bundle", &path, "c"]).success()
}

#[track_caller]
fn assert_boots(outcome: &Outcome, reason: &str) {
    assert!(outcome.stderr.contains(reason), "{outcome:#?}");
    assert_eq!(outcome.stdout, "fine\n", "{outcome:#?}");
}

#[test]
fn clones_have_nothing_in_common_that_a_container_can_find() {
    let stockade = stockade();
    template(&stockade);
    let script = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
        head -c 16 /dev/urandom | md5sum
        grep stack /proc/self/maps
        grep vdso /proc/self/maps
        cat /proc/net/netlink > /dev/null; date +%s";
    let mut seen = HashSet::new();
    for clone in 0..CLONES {
        let before = now();
        let outcome = run(&stockade, script);
        assert!(outcome.stderr.contains(BEGINS), "{outcome:#?}");
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), 6, "{outcome:#?}");
        for line in &lines[..5] {
            let value = line.split_whitespace().next().expect("a word").to_owned();
            assert!(seen.insert(value), "clone {clone} has what another one had: {line}");
        }
        // The clock is the host's, and not that of the template.
        let seconds: u64 = lines[5].parse().expect("seconds");
        assert!((before - 1..=now() + 1).contains(&seconds), "{seconds} is not between {before} and now");
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs()
}

#[test]
fn a_clone_does_what_a_vm_does() {
    let stockade = stockade();
    template(&stockade);
    let before = host::Snapshot::take();
    // Its limit asks for less than the template has, and holds.
    let bundle = Bundle::busybox(&["sleep", "10000"])
        .edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
    let relay = stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    let exec = |script: &str| stockade.run(&["exec", "c", "sh", "-c", script]);
    let memory_max = || {
        let below = host::cgroup_of(relay).expect("a process");
        let file = Path::new("/sys/fs/cgroup").join(below.trim_start_matches('/')).join("memory.max");
        fs::read_to_string(file).expect("memory.max").trim().parse::<u64>().expect("a number") >> 20
    };
    let ram = || {
        let line = exec("grep MemTotal /proc/meminfo").success().stdout;
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("MemTotal") >> 10
    };
    assert_eq!(memory_max(), 64 + 1 + 96 + 128);
    assert!((200..=256).contains(&ram()), "{}", ram());
    assert_eq!(exec("cat /sys/fs/cgroup/memory.max").success().stdout, "67108864\n");
    exec("echo written > /file && cat /file").success();
    assert_eq!(fs::read_to_string(bundle.rootfs().join("file")).expect("the host's file"), "written\n");
    stockade.run(&["pause", "c"]).success();
    assert_eq!(stockade.status("c"), "paused");
    stockade.run(&["resume", "c"]).success();
    // It grows beyond the template, and gives that back.
    stockade.run(&["update", "--memory", "512m", "c"]).success();
    assert_eq!(memory_max(), 512 + 8 + 96 + 128);
    assert!((550..=616).contains(&ram()), "{}", ram());
    stockade.run(&["update", "--memory", "64m", "c"]).success();
    // What its kernel has put there stays.
    assert!(memory_max() < 256 + 128 + 64, "{}", memory_max());
    stockade.run(&["delete", "--force", "c"]).success();
    before.assert_same_now();
}

#[test]
fn what_is_not_whole_is_refused_with_the_reason_and_replaced() {
    let stockade = stockade();
    for (file, reason) in [("state", "its state has"), ("ram", "its RAM has")] {
        let path = template(&stockade).join(file);
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        let length = file.metadata().expect("its length").len();
        file.set_len(length - 1).expect("cut it by a byte");
        assert_boots(&run(&stockade, "echo fine"), reason);
        assert_eq!(templates(), Vec::<PathBuf>::new());
    }
    // Damaged inside, where no length tells.
    let path = template(&stockade).join("state");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("write");
    assert_boots(&run(&stockade, "echo fine"), "its state is damaged");
    // Made by another build.
    let path = template(&stockade).join("about");
    let about = fs::read_to_string(&path).expect("read");
    fs::write(&path, about.replace("kernel ", "kernel 0")).expect("write");
    let outcome = run(&stockade, "echo fine");
    assert_boots(&outcome, "");
    assert!(!outcome.stderr.contains(BEGINS), "{outcome:#?}");
    stockade.run(&["template", "remove", "--all"]).success();
    // A directory to which others can write is nobody's.
    template(&stockade);
    fs::set_permissions(STORE, Permissions::from_mode(0o777)).expect("chmod");
    assert_boots(&run(&stockade, "echo fine"), "not a directory of root's alone");
    fs::set_permissions(STORE, Permissions::from_mode(0o700)).expect("chmod");
    // Another configuration has no template, and none is used where they are off.
    for config in ["memory_mib = 384\n", "memory_mib = 256\nkernel_parameters = \"loglevel=3\"\n"] {
        assert!(!run(&Stockade::with_config(config), "echo fine").stderr.contains(BEGINS), "{config}");
    }
    let off = Stockade::with_config("memory_mib = 256\ntemplates = \"off\"\n");
    assert!(!run(&off, "echo fine").stderr.contains(BEGINS));
    assert!(run(&stockade, "echo fine").stderr.contains(BEGINS));
}

fn build(stockade: &Stockade) -> Child {
    let mut command = stockade.command(&["template", "build"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
}

#[test]
fn a_builder_that_is_killed_leaves_nothing_that_is_used() {
    let stockade = stockade();
    stockade.run(&["template", "remove", "--all"]).success();
    let new = Path::new(STORE).join(".new");
    // Once its VM is there, once that is on its way, and once its VMM is what is killed.
    for (file, kills_vmm) in [("ram", false), ("agent.sock", false), ("ram", true)] {
        // What the one before has left would be taken for this one's.
        let _ = fs::remove_dir_all(&new);
        let mut builder = build(&stockade);
        host::wait_for_file(&new);
        host::wait_for_file(&new.join(file));
        if kills_vmm {
            let vmm = loop {
                if let Some(vmm) = host::pids_named("stockade-vmm").first() {
                    break *vmm;
                }
                assert_eq!(builder.try_wait().expect("wait"), None, "no VMM was started");
            };
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(vmm), nix::sys::signal::Signal::SIGKILL)
                .expect("kill");
            let outcome = Outcome::wait(builder, "template build");
            outcome.failure(1, &["cannot make a template"]);
        } else {
            builder.kill().expect("kill");
            builder.wait().expect("wait");
            // Its VMM ends with it.
            host::pids_named("stockade-vmm").into_iter().for_each(host::wait_for_end);
        }
        assert_eq!(templates(), Vec::<PathBuf>::new());
        assert!(!run(&stockade, "echo fine").stderr.contains(BEGINS));
    }
    // Two at once make one.
    let builders = [build(&stockade), build(&stockade)];
    let outcomes = builders.map(|builder| Outcome::wait(builder, "template build").success().stdout);
    let made = outcomes.iter().filter(|stdout| stdout.contains("made")).count();
    let found = outcomes.iter().filter(|stdout| stdout.contains("there already")).count();
    assert_eq!((made, found), (1, 1), "{outcomes:?}");
    assert_eq!(templates().len(), 1);
    let listed = stockade.run(&["template", "list", "--format", "json"]).success().stdout;
    let name = serde_json::from_str::<serde_json::Value>(&listed).expect("JSON")[0]["name"].clone();
    let shown = stockade.run(&["template", "show", name.as_str().expect("a name")]).success().stdout;
    assert!(shown.contains("memory 256 MiB"), "{shown}");
    stockade.run(&["template", "remove", "elsewhere"]).failure(1, &["there is no template \"elsewhere\""]);
    assert!(run(&stockade, "echo fine").stderr.contains(BEGINS));
}

//! VMs that begin as clones of a template: that the first start has one made and nobody waits for it, that clones differ and do
//! what others do, and that nothing is used that is not whole.

#[path = "templates/killed.rs"]
mod killed;

use std::collections::HashSet;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade};
use stockade_tests::host;

const STORE: &str = "/run/stockade-templates";

/// Those of whose templates a test decides when they are made.
const SMALL: &str = "memory_mib = 256\ntemplates = \"prebuilt\"\n";

/// Where a start has them made.
const ON: &str = "memory_mib = 128\ntemplates = \"on\"\n";

/// The cgroup of who makes templates.
const GROUP: &str = "/sys/fs/cgroup/stockade-templates";

/// Clones that are compared, unless a variable of the environment says how many.
const CLONES: usize = 10;

/// What says that a VM has begun as a template.
const BEGINS: &str = "begins as a template";

/// What says that a start has one made.
const MADE: &str = "is made in the background";

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
    // The shell's own memory at the address that its auxiliary vector has for 16 random bytes, of which eight become the canary.
    let script = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
        head -c 16 /dev/urandom | md5sum
        grep stack /proc/self/maps
        grep vdso /proc/self/maps
        exec 3</proc/self/mem
        at=$(od -An -v -t u8 -w16 /proc/$$/auxv | awk '$1 == 25 { print $2 }')
        dd bs=1 skip=$at count=16 <&3 2>/dev/null | md5sum
        date +%s";
    let clones = std::env::var("STOCKADE_CLONES").map_or(CLONES, |number| number.parse().expect("a number"));
    let no_bytes = run(&stockade, "md5sum < /dev/null").stdout;
    let mut seen = HashSet::from([no_bytes.split_whitespace().next().expect("a word").to_owned()]);
    for clone in 0..clones {
        let before = now();
        let outcome = run(&stockade, script);
        assert!(outcome.stderr.contains(BEGINS), "{outcome:#?}");
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), 7, "{outcome:#?}");
        for line in &lines[..6] {
            let value = line.split_whitespace().next().expect("a word").to_owned();
            assert!(seen.insert(value), "clone {clone} has what another one had: {line}");
        }
        // The clock is the host's, and not that of the template.
        let seconds: u64 = lines[6].parse().expect("seconds");
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
    // Once it has started, none of its memory has to be in small pages.
    let smaps = format!("/proc/{}/smaps", stockade.vmm_pid(relay));
    // The kernel backs stacks so, too; guest memory is what is not dumped.
    let is_small = || {
        let flags = fs::read_to_string(&smaps).expect("smaps");
        flags.lines().any(|line| line.contains(" dd") && line.contains(" nh"))
    };
    let began = Instant::now();
    while is_small() {
        assert!(began.elapsed() < Duration::from_secs(60), "it still is");
    }
    stockade.run(&["delete", "--force", "c"]).success();
    before.assert_same_now();
}

#[test]
fn the_pages_that_every_start_writes_are_advice() {
    let stockade = stockade();
    let place = template(&stockade);
    let list = place.join("hot");
    let learned = fs::read_to_string(&list).expect("the pages");
    let stretches: Vec<(u32, u32)> = learned
        .lines()
        .map(|line| line.split_once(' ').map(|(first, count)| (first.parse(), count.parse())).expect("two"))
        .map(|(first, count)| (first.expect("a number"), count.expect("a number")))
        .collect();
    assert!(stretches.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "{learned}");
    let pages: u32 = stretches.iter().map(|(_, count)| count).sum();
    assert!((100..2048).contains(&pages), "{pages}");
    assert_eq!(host::pids_named("stockade-vmm"), Vec::<i32>::new(), "the rehearsal is over");
    // What the clone has of its own, in KiB.
    let own = || {
        let relay = stockade.create(&Bundle::busybox(&["sleep", "10000"]), "c");
        let path = format!("/proc/{}/smaps_rollup", stockade.vmm_pid(relay));
        let rollup = fs::read_to_string(path).expect("smaps_rollup");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("Anonymous");
        stockade.run(&["delete", "--force", "c"]).success();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    fs::remove_file(&list).expect("remove");
    let without = own();
    // Four MiB of the kernel's text, to which nobody writes.
    for hostile in ["4096 1024\n", "x", "0 4294967295\n", "4294967295 4294967295\n", "9 1\n9 1\n9 1\n"] {
        fs::write(&list, hostile).expect("write");
        fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).expect("chmod");
        let outcome = run(&stockade, "echo fine");
        assert!(outcome.stderr.contains(BEGINS) && outcome.stdout == "fine\n", "{hostile:?}: {outcome:#?}");
        let with = own();
        assert_eq!(with > without + 3500, hostile.starts_with("4096"), "{hostile:?}: {with} and {without}");
    }
    stockade.run(&["template", "remove", "--all"]).success();
}

/// What starts have had made, all waited for.
fn wait_for_builders() {
    builders().into_iter().for_each(host::wait_for_end);
}

/// Processes that make a template after a start.
fn builders() -> Vec<i32> {
    let is_one = |pid: &i32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("\0--background\0")
    };
    host::pids_named("stockade").into_iter().filter(is_one).collect()
}

/// The name of the template that this start has made.
#[track_caller]
fn wanted(outcome: &Outcome) -> PathBuf {
    let line = outcome.stderr.lines().find(|line| line.contains(MADE));
    let line = line.unwrap_or_else(|| panic!("no template is made: {outcome:#?}"));
    let name = line.split(" is made").next().and_then(|before| before.split(' ').next_back());
    Path::new(STORE).join(name.expect("a name"))
}

/// Makes a file seem an hour older than it is.
fn age(path: &Path) {
    let touched = Command::new("touch").args(["-d", "1 hour ago"]).arg(path).status().expect("touch");
    assert!(touched.success());
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(STORE).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn listed(stockade: &Stockade) -> Vec<Value> {
    let listed = stockade.run(&["template", "list", "--format", "json"]).success().stdout;
    serde_json::from_str(&listed).expect("JSON")
}

#[test]
fn the_first_start_has_the_template_made_and_the_second_begins_as_it() {
    let stockade = Stockade::with_config(ON);
    let tight = Stockade::with_config("memory_mib = 256\ntemplates = \"on\"\ntemplate_memory_mib = 40\n");
    stockade.run(&["template", "remove", "--all"]).success();
    let before = host::Snapshot::take();
    let bundles = ["a", "b"].map(|id| (id, Bundle::busybox(&["sleep", "10000"])));
    for (id, bundle) in &bundles {
        stockade.create(bundle, id);
    }
    // Whoever joins it goes no further.
    fs::create_dir(GROUP).expect("cgroup");
    let freeze = |value| fs::write(format!("{GROUP}/cgroup.freeze"), value).expect("cgroup.freeze");
    freeze("1");
    // Two at once make one. No start waits for a builder that does not go on, nor does who reads its output.
    let starts = bundles.each_ref().map(|(id, _)| {
        let mut start = stockade.command(&["--debug", "start", id]);
        start.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
    });
    let outcomes = starts.map(|start| Outcome::wait(start, "start").success());
    assert_eq!(templates(), Vec::<PathBuf>::new());
    let place = wanted(&outcomes[0]);
    assert_eq!(wanted(&outcomes[1]), place);
    host::wait_for_text(&Path::new(GROUP).join("cgroup.events"), "populated 1");
    let inside = fs::read_to_string(format!("{GROUP}/cgroup.procs")).expect("processes");
    let builder: i32 = inside.lines().next().and_then(|pid| pid.parse().ok()).expect("a process");
    // It has nothing of its starter's.
    for fd in fs::read_dir(format!("/proc/{builder}/fd")).expect("descriptors") {
        let target = fs::read_link(fd.expect("a descriptor").path()).unwrap_or_default();
        let target = target.display().to_string();
        assert!(!target.starts_with("pipe:"), "{target}");
    }
    let null = fs::read_link(format!("/proc/{builder}/fd/2")).expect("standard error");
    assert_eq!(null, Path::new("/dev/null"));
    assert_eq!(fs::read_link(format!("/proc/{builder}/cwd")).expect("its directory"), Path::new("/"));
    let session = nix::unistd::getsid(Some(Pid::from_raw(builder))).expect("its session");
    assert_ne!(session, nix::unistd::getsid(None).expect("ours"));
    let stat = fs::read_to_string(format!("/proc/{builder}/stat")).expect("stat");
    let nice = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(16));
    assert_eq!(nice, Some("19"), "{stat}");
    assert_eq!(fs::read_to_string(format!("/proc/{builder}/oom_score_adj")).expect("its score"), "1000\n");
    let limit = fs::read_to_string(format!("{GROUP}/memory.max")).expect("memory.max");
    assert!(limit.trim().parse::<u64>().is_ok(), "{limit}");
    // Nobody else waits for it.
    stockade.run(&["kill", "a", "KILL"]).success();
    stockade.run(&["delete", "--force", "a"]).success();
    stockade.run(&["delete", "--force", "b"]).success();
    assert_eq!(templates(), Vec::<PathBuf>::new());

    freeze("0");
    host::wait_for_file(&place);
    wait_for_builders();
    assert_eq!(names(), [place.file_name().expect("a name").to_str().expect("UTF-8"), "lock"]);
    let outcome = run(&stockade, "echo fine");
    assert!(outcome.stderr.contains(BEGINS) && !outcome.stderr.contains(MADE), "{outcome:#?}");
    // So does the sandbox of a small limit: its class is the same.
    let bundle = Bundle::busybox(&["sleep", "10000"])
        .edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20 }));
    let path = bundle.path().to_str().expect("a path");
    let mut create = stockade.command(&["--debug", "--log", "/tmp/log", "create", "--bundle", path, "kept"]);
    create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(create.status().expect("create").success());
    let log = fs::read_to_string("/tmp/log").expect("the log");
    assert!(log.contains(BEGINS), "{log}");
    fs::remove_file("/tmp/log").expect("remove");
    assert_eq!(listed(&stockade)[0]["inUse"], true);
    // What templates take is the cgroup's.
    let bytes = listed(&stockade)[0]["bytes"].as_u64().expect("bytes");
    let charged = fs::read_to_string(format!("{GROUP}/memory.current")).expect("memory.current");
    // The kernel counts in batches.
    let charged: u64 = charged.trim().parse().expect("a number");
    assert!(charged + (1 << 20) >= bytes, "{charged} of {bytes}");
    // One in use does not go to make room, and what has no room is not made.
    let refused = tight.run(&["template", "build"]).failure(1, &["there is no room", "VMs use"]);
    assert!(refused.stderr.contains("raise template_memory_mib"), "{refused:#?}");
    assert_eq!(templates(), std::slice::from_ref(&place));
    let failed = listed(&stockade)[1].clone();
    assert!(failed["failed"].as_str().expect("a reason").contains("there is no room"), "{failed}");
    // It is not tried again at once.
    assert!(!run(&tight, "echo fine").stderr.contains(MADE));
    stockade.run(&["delete", "--force", "kept"]).success();
    assert_eq!(listed(&stockade)[0]["inUse"], false);
    let made = tight.run(&["template", "build"]).success();
    assert!(made.stdout.starts_with("256m-"), "{made:#?}");
    assert_eq!(listed(&stockade).len(), 1, "the one that was used the longest ago has made room");
    stockade.run(&["template", "remove", "--all"]).success();
    before.assert_same_now();
}

/// Changes the fingerprint of the host's CPUs in a state file, and its checksum.
fn of_another_host(path: &Path) {
    const FRAME: usize = 24;
    let mut bytes = fs::read(path).expect("read");
    let mut at = FRAME;
    let skip = |bytes: &[u8], at: usize| {
        let length = bytes[at..].iter().position(|byte| byte & 0x80 == 0).expect("the end of a number") + 1;
        let low =
            bytes[at..at + length].iter().rev().fold(0_usize, |n, byte| n << 7 | usize::from(byte & 0x7f));
        (at + length, low)
    };
    // Its configuration: memory, CPUs, context ID, kernel parameters, most memory, no user, no template, no hot pages.
    (at, _) = skip(&bytes, at);
    at += 1;
    (at, _) = skip(&bytes, at);
    let (parameters, length) = skip(&bytes, at);
    (at, _) = skip(&bytes, parameters + length);
    at += 3;
    bytes[at] ^= 1;
    let sum = bytes[FRAME..]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    bytes[16..FRAME].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).expect("write");
}

/// Makes a file a byte shorter.
fn cut(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).expect("open");
    let length = file.metadata().expect("its length").len();
    file.set_len(length - 1).expect("cut it by a byte");
}

/// Damages a template.
type Damage = fn(&Path);

#[test]
fn what_is_not_whole_is_refused_with_the_reason_and_replaced() {
    let stockade = Stockade::with_config(ON);
    stockade.run(&["template", "remove", "--all"]).success();
    let place = template(&stockade);
    let cases: [(Damage, &str); 5] = [
        (|place| cut(&place.join("ram")), "its RAM has"),
        (|place| cut(&place.join("state")), "its state has"),
        (|place| of_another_host(&place.join("state")), "it was made for another machine, or on another one"),
        // Damaged inside, where no length tells.
        (
            |place| {
                let mut bytes = fs::read(place.join("state")).expect("read");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(place.join("state"), bytes).expect("write");
            },
            "its state is damaged",
        ),
        // Of another kernel.
        (
            |place| {
                let about = fs::read_to_string(place.join("about")).expect("read");
                fs::write(place.join("about"), about.replace("kernel ", "kernel 0")).expect("write");
            },
            "",
        ),
    ];
    let kept = tempfile::tempdir().expect("a directory");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
        assert!(copied.success());
    };
    copy(&place, &kept.path().join("whole"));
    let prebuilt = Stockade::with_config(&ON.replace("\"on\"", "\"prebuilt\""));
    for (index, (damage, reason)) in cases.into_iter().enumerate() {
        damage(&place);
        age(&place.join("about"));
        // One that is refused, and one that is not even looked into, are replaced; the others are refused likewise.
        let replaces = index == 0 || reason.is_empty();
        let outcome = run(if replaces { &stockade } else { &prebuilt }, "echo fine");
        assert_boots(&outcome, reason);
        assert_eq!(outcome.stderr.contains(BEGINS), !reason.is_empty(), "{outcome:#?}");
        if replaces {
            assert_eq!(wanted(&outcome), place);
            wait_for_builders();
            assert_eq!(templates(), std::slice::from_ref(&place), "another one is in its place");
            assert!(run(&stockade, "echo fine").stderr.contains(BEGINS));
        } else {
            assert_eq!(templates(), Vec::<PathBuf>::new());
            copy(&kept.path().join("whole"), &place);
        }
    }
    // The next would be as bad as one that has just been made: it has to wait.
    cut(&place.join("state"));
    let outcome = run(&stockade, "echo fine");
    assert_boots(&outcome, "its state has");
    assert!(!outcome.stderr.contains(MADE), "{outcome:#?}");
    let why = stockade.run(&["template", "list"]).success().stdout;
    assert!(why.contains("it was of no use: its state has"), "{why}");
    let check = stockade.run(&["check"]).stdout;
    assert!(check.contains("it was of no use"), "{check}");
    assert!(!run(&stockade, "echo fine").stderr.contains(MADE));
    // Links are not followed, even to the very files.
    copy(&kept.path().join("whole"), &place);
    let elsewhere = kept.path().join("whole/ram");
    fs::remove_file(place.join("ram")).expect("remove");
    std::os::unix::fs::symlink(&elsewhere, place.join("ram")).expect("link");
    assert!(!run(&prebuilt, "echo fine").stderr.contains(BEGINS));
    fs::remove_file(place.join("ram")).expect("remove");
    copy(&elsewhere, &place.join("ram"));
    assert!(run(&prebuilt, "echo fine").stderr.contains(BEGINS));
    // A directory to which others can write is nobody's.
    fs::set_permissions(STORE, Permissions::from_mode(0o777)).expect("chmod");
    let outcome = run(&stockade, "echo fine");
    assert_boots(&outcome, "not a directory of root's alone");
    assert!(!outcome.stderr.contains(MADE), "{outcome:#?}");
    fs::set_permissions(STORE, Permissions::from_mode(0o700)).expect("chmod");
    // Another configuration has no template, and none is used, or made, where they are off.
    let others = [
        "memory_mib = 384\ntemplates = \"prebuilt\"\n",
        "memory_mib = 128\ntemplates = \"off\"\n",
        "memory_mib = 128\ntemplates = \"prebuilt\"\nkernel_parameters = \"loglevel=3\"\n",
        "memory_mib = 192\ntemplates = \"on\"\ntemplate_classes_mib = [128]\n",
    ];
    for config in others {
        let outcome = run(&Stockade::with_config(config), "echo fine");
        assert!(!outcome.stderr.contains(BEGINS) && !outcome.stderr.contains(MADE), "{config}: {outcome:#?}");
    }
    assert!(run(&stockade, "echo fine").stderr.contains(BEGINS));
    // What no VM can have is refused before one is tried, and is no failure that is kept.
    stockade.run(&["template", "build", "--class", "12"]).failure(1, &["--class 12", "has 128 to "]);
    assert!(!stockade.run(&["template", "list"]).success().stdout.contains("12m-"));
    stockade.run(&["template", "remove", "--all"]).success();
}

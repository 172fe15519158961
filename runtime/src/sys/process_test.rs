use super::*;

#[test]
fn stat_survives_a_hostile_command_name() {
    let mut text = String::from("42 (a) Z 1 (b) S");
    for field in 4..=22 {
        text.push_str(&format!(" {field}"));
    }
    let stat = Stat::parse(&text).unwrap();
    assert_eq!(stat.state, b'S');
    assert_eq!((stat.cpu_time, stat.start_time), (14 + 15, 22));
}

#[test]
fn a_reference_names_one_process_only() {
    let own = ProcessRef::of(std::process::id() as i32).unwrap();
    assert!(own.is_alive());
    assert!(own.open().is_some());
    let reused = ProcessRef { start_time: own.start_time + 1, ..own };
    assert!(!reused.is_alive());
    assert!(reused.open().is_none());
}

#[test]
fn this_test_uses_something() {
    let own = ProcessRef::of(std::process::id() as i32).unwrap();
    let usage = own.usage().unwrap();
    assert!(usage.memory > 100_000 && usage.age < Duration::from_secs(3600), "{usage:?}");
    assert_eq!(ProcessRef { start_time: own.start_time + 1, ..own }.usage(), None);
}

#[test]
fn a_zombie_is_not_alive() {
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let pidfd = Pidfd::open(child.id() as i32).unwrap();
    assert!(pidfd.wait_end(Duration::from_secs(10)));
    let reference = ProcessRef::of(child.id() as i32).unwrap();
    assert!(!reference.is_alive());
    assert!(reference.open().is_none());
    assert!(reference.find().is_some());
    child.wait().unwrap();
    assert!(reference.find().is_none());
}

#[test]
fn who_shares_a_processor_waits_for_it() {
    let busy =
        || std::process::Command::new("taskset").args(["-c", "0", "sh", "-c", "while :; do :; done"]).spawn();
    let mut both = [busy().unwrap(), busy().unwrap()];
    let process = Pidfd::open(both[0].id() as i32).unwrap();
    let limit = crate::sys::deadline::Deadline::within(Duration::from_secs(60));
    while waited_for_processor(&process) < Duration::from_millis(20) && !limit.left().is_zero() {
        std::thread::yield_now();
    }
    let waited = waited_for_processor(&process);
    for child in &mut both {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(waited >= Duration::from_millis(20), "{waited:?}");
    assert_eq!(waited_for_processor(&process), Duration::ZERO, "it has ended");
}

#[test]
fn a_fork_ends_with_its_status_and_shows_a_command_line_of_its_own() {
    let body = || {
        // The later ones lie above or below those before.
        for count in [1, 300, 2, 40] {
            let words = vec![format!("word of {count}"); count];
            match set_command_line("forked", &words) {
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {}
                Err(_) => return 1,
                Ok(()) if fs::read("/proc/self/cmdline").unwrap() != (words.join("\0") + "\0").as_bytes() => {
                    return 2;
                }
                Ok(()) => {}
            }
        }
        7
    };
    // SAFETY: no other test runs meanwhile, and the body takes no lock.
    let child = unsafe { fork(body) }.unwrap();
    let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).unwrap();
    assert_eq!(ended, WaitStatus::Exited(nix::unistd::Pid::from_raw(child), 7));
}

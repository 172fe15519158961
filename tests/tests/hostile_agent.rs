//! A guest whose agent lies, drips, floods or says nothing: what it does is told in the script of each test, for containers whose
//! IDs name what is done to them. The host's commands end in time, name what is wrong, and leave nothing behind.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use stockade_protocol::agent::{ExitStatus, HelloReply, ProcessEntry, ProcessEvent, Ready, Response};
use stockade_tests::cli::{Outcome, text};
use stockade_tests::host;
use stockade_tests::hostile::lies::{drips, error, nasty, nonsense};
use stockade_tests::hostile::oracle::{LIMIT, Oracle, within};
use stockade_tests::hostile::pod::{Pod, assert_is_a_line, each, wait};
use stockade_tests::hostile::script::{Action, Moment, Script, Target, framed, ready};
use stockade_tests::hostile::{self, Hostile};

/// Answers that are none, to what is asked at a moment of which the cases' names tell.
fn nonsense_to(moment: &str) -> Vec<(String, Vec<Action>)> {
    nonsense().into_iter().map(|(name, actions)| (format!("{moment}-{name}"), actions)).collect()
}

/// Members that are answered so at this moment of their creation do not come into being, and one line says why.
fn none_is_created(moment: Moment, cases: Vec<(String, Vec<Action>)>) {
    let pod = Pod::new(Script::honest().on_each(&moment, &cases));
    each(cases, |name, _| {
        let outcome = pod.create(name);
        assert_ne!(outcome.status, 0, "{name}");
        assert_is_a_line(&outcome.stderr);
        pod.assert_rid_of(name);
    });
    pod.assert_clean();
}

#[test]
fn answers_to_create_that_are_none() {
    none_is_created(Moment::create(), nonsense_to("create"));
}

#[test]
fn answers_to_hellos_that_are_none() {
    let mut cases = nonsense_to("hello");
    cases.retain(|(name, _)| !matches!(&name[..], "hello-another" | "hello-nasty"));
    let refused = Action::answer(&HelloReply::Refused(error(nasty(60_000))));
    cases.push(("hello-refused".to_owned(), vec![refused]));
    none_is_created(Moment::process_hello(), cases);
}

#[test]
fn answers_to_start_that_are_none() {
    let cases = nonsense_to("start");
    let pod = Pod::new(Script::honest().on_each(&Moment::start(), &cases));
    each(cases, |name, _| {
        assert_eq!(pod.create(name).status, 0);
        let outcome = within(pod.stockade(), &["start", name], LIMIT);
        assert_ne!(outcome.status, 0, "{name}");
        assert_is_a_line(&outcome.stderr);
        pod.assert_rid_of(name);
    });
    pod.assert_clean();
}

/// Answers that never come, or byte by byte: `create` waits, but nothing else does, and it can be ended.
#[test]
fn answers_that_never_come_hold_up_no_other_command() {
    let cases: Vec<(String, (Moment, Vec<Action>))> = vec![
        ("create-silent".into(), (Moment::create(), Vec::new())),
        ("create-drips".into(), (Moment::create(), drips())),
        ("hello-silent".into(), (Moment::process_hello(), Vec::new())),
        ("hello-drips".into(), (Moment::stream_hello(), drips())),
    ];
    let script = cases.iter().fold(Script::honest(), |script, (name, (moment, actions))| {
        script.on(moment.clone(), name, actions.clone())
    });
    let pod = Pod::new(script);
    each(cases, |name, _| {
        let mut create = pod.begin_create(name);
        let directory = pod.stockade().root().join(name);
        host::wait_for_file(&directory);
        host::wait_for_file(&directory.join("state.json"));
        pod.assert_rid_of(name);
        assert_ne!(wait(&mut create, name), 0);
        pod.oracle.assert_commands_end(pod.stockade(), name);
    });
    pod.assert_clean();
}

/// Of a container that runs, every command asks something that is not answered, or byte by byte.
#[test]
fn a_running_container_whose_agent_says_nothing_more() {
    let moments = [
        Moment::state(),
        Moment::signal(),
        Moment::delete(),
        Moment::processes(),
        Moment::statistics(),
        Moment::update(),
        Moment::pause(),
        Moment::exec(),
    ];
    let mut script = Script::honest();
    for moment in moments {
        script = script.on(moment.clone(), "mute", []).on(moment, "drips", drips());
    }
    let pod = Pod::new(script);
    for id in ["mute", "drips"] {
        assert_eq!(pod.create(id).status, 0);
        pod.stockade().run(&["start", id]).success();
    }
    // All at once: none may wait for another either.
    let commands = ["mute", "drips"].into_iter().flat_map(|id| {
        [
            vec!["ps", id],
            vec!["events", "--stats", id],
            vec!["update", "--memory", "64m", id],
            vec!["pause", id],
            vec!["exec", id, "/bin/true"],
            vec!["kill", id, "USR1"],
            vec!["state", id],
            vec!["list"],
        ]
    });
    let running: Vec<_> = commands
        .map(|words| {
            let mut command = pod.stockade().command(&words);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            (words.join(" "), command.spawn().expect("stockade"))
        })
        .collect();
    for (name, child) in running {
        let outcome = Outcome::wait_for(child, &name, LIMIT + Duration::from_secs(10));
        let asks_nobody = name.starts_with("state") || name.starts_with("list");
        assert_eq!(outcome.status == 0, asks_nobody, "{name}: {outcome:#?}");
    }
    for id in ["mute", "drips"] {
        pod.assert_rid_of(id);
    }
    pod.assert_clean();
}

/// A VM whose agent drips on the only container that it has: `kill KILL` ends it.
#[test]
fn the_only_container_of_a_guest_that_drips() {
    let mut script = Script::honest();
    for moment in [Moment::state(), Moment::signal(), Moment::delete(), Moment::processes()] {
        script = script.on(moment, "alone", drips());
    }
    let hostile = Hostile::new(&script);
    let oracle = Oracle::new();
    let bundle = hostile::bundle();
    let relay = hostile.stockade.create(&bundle, "alone");
    hostile.stockade.run(&["start", "alone"]).success();
    within(&hostile.stockade, &["kill", "alone", "KILL"], LIMIT).success();
    host::wait_for_end(relay);
    assert_eq!(hostile.stockade.status("alone"), "stopped");
    oracle.assert_commands_end(&hostile.stockade, "alone");
    oracle.assert_nothing_left();
}

/// What is said of a process that has not been started, has ended already, or never was.
#[test]
fn ends_and_events_out_of_order() {
    let ended = |code| Action::event(&ProcessEvent::Ended(ExitStatus::Exited(code)));
    let started = Action::answer(&Response::Started);
    let to_process = |bytes: &[u8], times| Action::Send(Target::Process, bytes.to_vec(), times, 0);
    let notify = |length| framed(&ProcessEvent::Notify(vec![b'x'; length]));
    let cases: Vec<(String, Vec<Action>)> = [
        ("end-before-start", vec![ended(7), started.clone()]),
        ("end-and-no-start", vec![ended(7)]),
        ("end-twice", vec![started.clone(), ended(7), ended(8)]),
        (
            "end-by-no-signal",
            vec![started.clone(), Action::event(&ProcessEvent::Ended(ExitStatus::Signalled(255)))],
        ),
        ("event-garbage", vec![started.clone(), to_process(&[9, 0, 0, 0, 0xff, 1, 2, 3, 4, 5, 6, 7, 8], 1)]),
        ("event-too-long", vec![started.clone(), to_process(&[0xff; 64], 1)]),
        (
            "event-cut-off",
            vec![started.clone(), to_process(&[99, 0, 0, 0, 1], 1), Action::Close(Target::Process)],
        ),
        ("event-reset", vec![started.clone(), Action::Reset(Target::Process)]),
        ("notify-unasked", vec![started.clone(), to_process(&notify(100), 2000), ended(0)]),
        ("notify-too-long", vec![started.clone(), to_process(&notify(100_000), 1), ended(0)]),
        ("started-twice", vec![started.clone(), started.clone(), ended(0)]),
        ("stdout-reset", vec![started, Action::Reset(Target::Stdout), ended(3)]),
    ]
    .map(|(name, actions)| (name.to_owned(), actions))
    .into();
    let pod = Pod::new(Script::honest().on_each(&Moment::start(), &cases));
    each(cases, |name, _| {
        assert_eq!(pod.create(name).status, 0);
        within(pod.stockade(), &["start", name], LIMIT);
        pod.assert_rid_of(name);
    });
    pod.assert_clean();
}

/// Output without end, which nobody reads: the relay keeps no more of it than a pipe holds, and ends when it is told to.
#[test]
fn output_without_end() {
    let flood = Action::Send(Target::Stdout, vec![b'x'; 60_000], u32::MAX, 0);
    let script = Script::honest().on(Moment::start(), "floods", [Action::answer(&Response::Started), flood]);
    let pod = Pod::new(script);
    let mut run = pod
        .stockade()
        .command(&["run", "--bundle", text(pod.member.path()), "floods"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut output = run.stdout.take().expect("piped");
    let (done, finished) = mpsc::channel();
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    thread::spawn(move || {
        let mut piece = [0; 16 << 10];
        while counter.load(Ordering::SeqCst) < 1 << 20 {
            match output.read(&mut piece) {
                Ok(length @ 1..) => counter.fetch_add(length, Ordering::SeqCst),
                _ => break,
            };
        }
        let _ = done.send(output);
    });
    let output = finished.recv_timeout(4 * LIMIT);
    let read = read.load(Ordering::SeqCst);
    assert!(read >= 1 << 20, "{read} bytes of output within a minute");
    let output = output.expect("the reader has ended");
    let relay = pod.stockade().state("floods")["pid"].as_i64().expect("pid") as i32;
    let resident: u64 =
        host::status_field(relay, "VmRSS").trim_end_matches(" kB").trim().parse().expect("a number of KiB");
    assert!(resident < 32 << 10, "the relay has {resident} KiB");
    drop(output);
    pod.assert_rid_of("floods");
    wait(&mut run, "run");
    pod.assert_clean();
}

/// Figures and lists that nothing has.
#[test]
fn answers_that_are_absurd() {
    let entry = |pid, command: String| ProcessEntry {
        id: None,
        pid,
        parent: u32::MAX,
        uid: u32::MAX,
        terminal: Some(nasty(300)),
        started: u64::MAX,
        cpu_ms: u64::MAX,
        command,
    };
    let processes = |list: Vec<ProcessEntry>| vec![Action::answer(&Response::Processes(list))];
    let files = |list: &[(&str, String)]| {
        let list = list.iter().map(|(name, content)| ((*name).to_owned(), content.clone())).collect();
        vec![Action::answer(&Response::CgroupFiles(list))]
    };
    /// What the agent answers to what, and the command that asks it.
    type Lie = (Moment, Vec<Action>, Vec<&'static str>);
    let cases: Vec<(String, Lie)> = vec![
        (
            "ps-absurd".into(),
            (
                Moment::processes(),
                processes(vec![entry(0, nasty(400)), entry(u32::MAX, nasty(1))]),
                vec!["ps"],
            ),
        ),
        (
            "ps-too-many".into(),
            (
                Moment::processes(),
                processes((0..1500).map(|pid| entry(pid, String::new())).collect()),
                vec!["ps"],
            ),
        ),
        (
            "stats-huge".into(),
            (
                Moment::statistics(),
                files(&[
                    ("memory.current", "99999999999999999999999".into()),
                    ("cpu.stat", "usage_usec 18446744073709551615\nusage_usec -1\n".into()),
                ]),
                vec!["events", "--stats"],
            ),
        ),
        (
            "stats-nasty".into(),
            (
                Moment::statistics(),
                files(&[
                    ("memory.stat", nasty(60_000)),
                    ("../../etc/passwd", nasty(100)),
                    ("", String::new()),
                    ("memory.current", "\0".into()),
                ]),
                vec!["events", "--stats"],
            ),
        ),
        (
            "stats-many".into(),
            (
                Moment::statistics(),
                files(&vec![("io.stat", "8:0 rbytes=18446744073709551615 \n".repeat(9)); 400]),
                vec!["events", "--stats"],
            ),
        ),
        (
            "update-nasty".into(),
            (
                Moment::update(),
                vec![Action::answer(&Response::Error(error(nasty(9000))))],
                vec!["update", "--memory", "64m"],
            ),
        ),
        ("pause-other".into(), (Moment::pause(), vec![Action::answer(&Response::Resumed)], vec!["pause"])),
    ];
    let warnings = vec![nasty(100); 500];
    let warned = Response::Created { guest_pid: 0, warnings };
    let script = cases
        .iter()
        .fold(Script::honest(), |script, (name, (moment, actions, _))| {
            script.on(moment.clone(), name, actions.clone())
        })
        .on(Moment::create(), "warned", [Action::answer(&warned)]);
    let pod = Pod::new(script);
    each(cases, |name, (_, _, command)| {
        assert_eq!(pod.create(name).status, 0);
        pod.stockade().run(&["start", name]).success();
        let outcome = within(pod.stockade(), &[&command[..], &[name]].concat(), LIMIT);
        for output in [&outcome.stdout, &outcome.stderr] {
            assert!(!output.chars().any(|c| c.is_control() && c != '\n'), "{name}: {outcome:#?}");
        }
        pod.assert_rid_of(name);
    });
    let outcome = pod.create("warned");
    assert!(!outcome.stderr.chars().any(|c| c.is_control() && c != '\n'), "{outcome:#?}");
    pod.assert_rid_of("warned");
    pod.assert_clean();
}

/// How an agent reports that it listens, and that it is none.
#[test]
fn reports_that_are_none() {
    let report = |change: fn(&mut Ready)| {
        let mut ready = ready();
        change(&mut ready);
        vec![Action::answer(&ready)]
    };
    let honest = Action::answer(&ready());
    let mut cases: Vec<(String, (Vec<Action>, bool))> = vec![
        ("of-no-agent".into(), (report(|ready| ready.magic = *b"none"), false)),
        (
            "of-a-later-agent".into(),
            (report(|ready| (ready.oldest_version, ready.version) = (77, 78)), false),
        ),
        ("of-no-version".into(), (report(|ready| (ready.oldest_version, ready.version) = (1, 0)), false)),
        ("of-a-nasty-kernel".into(), (report(|ready| ready.kernel_release = nasty(200_000)), true)),
        (
            "after-a-flood".into(),
            (vec![Action::Connect(300, 1), Action::Connect(100, 2), honest.clone()], true),
        ),
        ("after-much-on-the-console".into(), (vec![Action::Console(1 << 17), honest.clone()], true)),
        ("and-more".into(), (vec![honest.clone(), honest.clone(), Action::raw(vec![0xff; 5000])], true)),
        ("and-a-crash".into(), (vec![honest, Action::Crash], false)),
    ];
    for (name, actions) in nonsense() {
        if !matches!(name, "another" | "nasty" | "closed" | "cut-off" | "reset") {
            cases.push((name.to_owned(), (actions, false)));
        }
    }
    each(cases, |name, (actions, works)| {
        let hostile = Hostile::new(&Script::honest().on(Moment::READY, "", actions));
        let oracle = Oracle::new();
        let bundle = hostile::bundle();
        let log = bundle.path().join("log");
        let mut create = hostile.stockade.command(&["create", "--bundle", text(bundle.path()), "reported"]);
        let mut create = hostile::logged(&mut create, &log);
        let status = wait(&mut create, name);
        let stderr = fs::read_to_string(&log).expect("log");
        assert_eq!(status == 0, works, "{name}: {stderr}");
        if !works {
            assert_is_a_line(&stderr);
        }
        oracle.assert_commands_end(&hostile.stockade, "reported");
        oracle.assert_nothing_left();
    });
}

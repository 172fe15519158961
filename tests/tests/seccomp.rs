//! `linux.seccomp`, as the processes of the container feel it.

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade};

/// Runs a script under a profile that allows what `syscalls` do not name.
fn run(script: &str, syscalls: Value, edit: impl FnOnce(&mut Value)) -> Outcome {
    let bundle = Bundle::script(script).edit(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": syscalls,
        });
        edit(config);
    });
    Stockade::new().run_bundle(&bundle, "seccomp")
}

#[test]
fn errno_log_and_argument_operators_hold_and_what_the_runtime_does_needs_no_allowance() {
    let chmod = |operator: &str, value: u32, two: u32, errno: i32| {
        json!({ "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": [
            { "index": 1, "value": value, "valueTwo": two, "op": operator }
        ]})
    };
    let outcome = run(
        "touch f; for mode in 600 644 4755 2755 1000 7; do chmod $mode f 2>&1 && echo $mode; done; \
         mkdir d 2>&1; uname -s; grep ^Seccomp /proc/self/status",
        json!([
            { "names": ["mkdir", "a_call_of_tomorrow"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV },
            { "names": ["uname"], "action": "SCMP_ACT_LOG" },
            chmod("SCMP_CMP_EQ", 0o600, 0, libc::ENOSYS),
            chmod("SCMP_CMP_MASKED_EQ", 0o4000, 0o4000, libc::EACCES),
            chmod("SCMP_CMP_LT", 0o10, 0, libc::EBUSY),
            // What the runtime itself does before the program runs.
            { "names": ["chdir", "setresuid", "setgroups", "capset", "prctl", "recvfrom", "sendmsg"],
              "action": "SCMP_ACT_ERRNO" },
        ]),
        |_| {},
    )
    .success();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "chmod: f: Function not implemented",
            "644",
            "chmod: f: Permission denied",
            "2755",
            "1000",
            "chmod: f: Device or resource busy",
            "mkdir: can't create directory 'd': Invalid cross-device link",
            "Linux",
            "Seccomp:\t2",
            "Seccomp_filters:\t1",
        ]
    );
}

#[test]
fn without_no_new_privs_the_filter_comes_last_too_and_leaves_no_capability() {
    for (uid, capabilities) in [(1000, "0000000000000000"), (0, "0000000020000420")] {
        let outcome = run(
            "mkdir /tmp/d 2>&1; grep -E '^(Uid|Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status",
            json!([{ "names": ["mkdir", "setresuid", "setgroups", "capset", "chdir", "prctl", "sendmsg", "recvfrom"],
                     "action": "SCMP_ACT_ERRNO" }]),
            |config| {
                config["process"]["noNewPrivileges"] = false.into();
                config["process"]["user"] = json!({ "uid": uid, "gid": uid });
            },
        )
        .success();
        let expected = format!(
            "mkdir: can't create directory '/tmp/d': Operation not permitted\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n\
             CapPrm:\t{capabilities}\nCapEff:\t{capabilities}\nCapBnd:\t0000000020000420\nNoNewPrivs:\t0\nSeccomp:\t2\n"
        );
        assert_eq!(outcome.stdout, expected);
    }
}

#[test]
fn an_exec_is_filtered_as_the_init_is() {
    let bundle = Bundle::busybox(&["sleep", "1000"]).edit(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV }],
        });
    });
    let stockade = Stockade::new();
    stockade.create(&bundle, "filtered");
    stockade.run(&["start", "filtered"]).success();
    let outcome = stockade.run(&["exec", "filtered", "mkdir", "/tmp/d"]);
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("Invalid cross-device link"), "{outcome:#?}");
    stockade.run(&["delete", "--force", "filtered"]).success();
}

#[test]
fn kill_ends_the_process_by_sigsys() {
    let outcome =
        run("mkdir d", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS" }]), |config| {
            config["process"]["args"] = json!(["mkdir", "d"]);
        });
    assert_eq!(outcome.status, 128 + libc::SIGSYS, "{outcome:#?}");
}

#[test]
fn a_listener_of_the_host_is_refused_by_name() {
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/listener.sock",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
    Stockade::new().run_bundle(&bundle, "listener").failure(1, &["linux.seccomp.listenerPath"]);
}

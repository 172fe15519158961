//! `stockade top`: one table for programs, a live one for people.

use std::process::Child;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;
use stockade_tests::shell::Shell;
use stockade_tests::terminal::Terminal;

const HEADING: [&str; 10] =
    ["ID", "STATUS", "VM-CPU%", "VM-MEM", "VM-READ/s", "VM-WRITE/s", "CPU%", "MEM", "LIMIT", "PIDS"];

fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_ascii_whitespace().collect()).collect()
}

#[test]
fn one_table_tells_what_each_running_container_uses() {
    let stockade = Stockade::new();
    assert_eq!(rows(&stockade.run(&["top"]).success().stdout), [HEADING]);
    let bundle = Bundle::busybox(&["true"]);
    let relay = stockade.create(&bundle, "ended");
    stockade.run(&["start", "ended"]).success();
    host::wait_for_end(relay);
    let mut shell = Shell::start(&stockade, "busy", |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
    });
    shell.ask("dd if=/dev/zero of=/dev/shm/file bs=1M count=8 2>/dev/null; sleep 1000 &");

    for args in [&["top"][..], &["top", "--once"]] {
        let outcome = stockade.run(args).success();
        assert!(!outcome.stdout.contains('\u{1b}'), "{outcome:#?}");
        let rows = rows(&outcome.stdout);
        assert_eq!((rows.len(), &rows[0][..]), (2, &HEADING[..]), "{outcome:#?}");
        let row = &rows[1];
        assert_eq!((row[0], row[1], row[8], row[9]), ("busy", "running", "64.0M", "2"));
        let number = |cell: &str| cell.trim_end_matches(['B', 'K', 'M', 'G']).parse::<f64>().expect("number");
        assert!(number(row[2]) > 0.0 && number(row[6]) > 0.0, "{row:?}");
        assert!(row[3].ends_with('M') && number(row[3]) > 16.0, "{row:?}");
        assert!(row[7].ends_with('M') && number(row[7]) > 8.0, "{row:?}");
    }

    // A VM that hangs is there, without what only its guest could tell.
    let relay = stockade.state("busy")["pid"].as_i64().expect("pid") as i32;
    let vmm = stockade.vmm_pid(relay);
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(vmm, libc::SIGSTOP) }, 0);
    let table = stockade.run(&["top"]).success().stdout;
    let row = &rows(&table)[1];
    assert_eq!((row[0], row[1], &row[6..]), ("busy", "unreachable", &["-", "-", "-", "-"][..]), "{table}");
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(vmm, libc::SIGCONT) }, 0);
    assert_eq!(shell.end(), 0);
}

fn leaves_the_terminal_as_it_was(
    terminal: &mut Terminal,
    mut top: Child,
    before: &nix::sys::termios::Termios,
) {
    assert!(top.wait().expect("wait").success());
    let last = terminal.expect("\u{1b}[?1049l");
    assert!(last.contains("\u{1b}[?25h"), "the cursor is back: {last:?}");
    assert_eq!(&terminal.settings(), before);
}

#[test]
fn the_live_table_is_drawn_again_until_the_user_leaves() {
    let stockade = Stockade::new();
    let shell = Shell::start(&stockade, "a-long-name-for-a-container", |_| {});
    let mut terminal = Terminal::open(24, 160);
    let before = terminal.settings();
    for leave in ["q", "\u{3}"] {
        let top = terminal.spawn(&mut stockade.command(&["top", "--interval", "200ms"]));
        let opening = terminal.expect("PIDS");
        assert!(opening.contains("\u{1b}[?1049h") && opening.contains("VM-CPU%"), "{opening:?}");
        assert_ne!(terminal.settings(), before, "keys are read one by one");
        terminal.expect("a-long-name-for-a-container");
        // The next one, in which a window that has become small holds less of it.
        terminal.expect("VM-CPU%");
        terminal.resize(24, 20);
        while terminal.expect("\u{1b}[J").contains("VM-CPU%") {}
        terminal.resize(24, 160);
        terminal.send(leave);
        leaves_the_terminal_as_it_was(&mut terminal, top, &before);
    }
    let top = terminal.spawn(&mut stockade.command(&["top", "--interval", "1h"]));
    terminal.expect("running");
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(top.id() as i32, libc::SIGTERM) }, 0);
    leaves_the_terminal_as_it_was(&mut terminal, top, &before);
    assert_eq!(shell.end(), 0);
}

use super::*;

#[test]
fn a_line_is_as_in_ps_ef() {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let process = ProcessEntry {
        id: None,
        pid: 7,
        parent: 1,
        uid: 1000,
        terminal: Some("pts/0".into()),
        started: 1_000_000 - 100,
        cpu_ms: 3_725_000,
        command: "sh -c \u{1b}[2Jx".into(),
    };
    let text = table(std::slice::from_ref(&process), now);
    let (heading, line) = text.split_once('\n').unwrap();
    let columns: Vec<_> = line.split_ascii_whitespace().collect();
    assert_eq!(columns[..4], ["1000", "7", "1", "99"]);
    assert_eq!(columns[5..], ["pts/0", "01:02:05", "sh", "-c", "\\u{1b}[2Jx"]);
    for (name, column) in [("PID", "7"), ("PPID", "1")] {
        let end = |line: &str, word: &str| line.find(&format!(" {word} ")).unwrap() + word.len();
        assert_eq!(end(heading, name), end(line, column), "{text}");
    }
    // A time from a guest may be anything.
    table(&[ProcessEntry { started: u64::MAX, cpu_ms: u64::MAX, ..process }], UNIX_EPOCH);
}

use super::*;
use anyhow::anyhow;

#[test]
fn a_cause_is_said_once() {
    let inner = std::io::Error::from(std::io::ErrorKind::NotFound);
    let text = inner.to_string();
    let outer =
        anyhow::Error::from(inner).context(format!("cannot open x: {text}")).context("while starting");
    assert_eq!(explain(&outer), format!("while starting: cannot open x: {text}"));
}

#[test]
fn a_line_stays_one_line() {
    assert_eq!(one_line(&explain(&anyhow!("a\nb\n"))), "a\\nb");
    assert_eq!(one_line("\x1b]0;título\x07"), "\\u{1b}]0;título\\u{7}");
}

#[test]
fn json_lines_are_json() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Log { file: Some(file.reopen().unwrap()), format: LogFormat::Json, most_verbose: Level::INFO };
    log.write("error", "it \"failed\"", &Map::new());
    let line: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
    assert_eq!((line["level"].as_str(), line["msg"].as_str()), (Some("error"), Some("it \"failed\"")));
    humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
}

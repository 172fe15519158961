use proptest::prelude::*;

use super::*;

const STATUS: &str = "Name:\tsh\nPPid:\t41\nUid:\t1000\t0\t0\t0\nNSpid:\t42\t7\t1\n";

fn stat(name: &str) -> String {
    format!("42 ({name}) S 41 42 42 34817 42 0 0 0 0 0 150 25 0 0 20 0 1 0 12345 0 0")
}

#[test]
fn a_process_is_read_field_by_field() {
    let info = ProcInfo::parse(STATUS, &stat("sh"), b"sh\0-c\0echo a b\0").unwrap();
    assert_eq!(info.pids, [42, 7, 1]);
    assert_eq!((info.pid_at(1), info.pid_at(3)), (Some(7), None));
    assert_eq!((info.parent, info.uid), (41, 1000));
    assert_eq!(info.terminal.as_deref(), Some("pts/1"));
    assert_eq!((info.started(1_000_000), info.cpu_ms()), (1_000_123, 1750));
    assert_eq!(info.command, "sh -c echo a b");
}

#[test]
fn a_name_may_imitate_the_rest_of_the_line() {
    let info = ProcInfo::parse(STATUS, &stat(") R 1 (x"), b"").unwrap();
    assert_eq!((info.cpu_ms(), info.command.as_str()), (1750, "[) R 1 (x]"));
}

#[test]
fn this_test_finds_itself() {
    let own = std::process::id();
    let info = ProcInfo::read(own as i32).unwrap();
    assert_eq!(info.pids.first(), Some(&own));
    assert_eq!(pids_of(own), info.pids);
    assert!(info.command.contains("stockade_agent"), "{}", info.command);
    assert!(info.started(boot_time_s()) > 1_500_000_000);
    assert_eq!(ProcInfo::read(i32::MAX), None);
}

proptest! {
    #[test]
    fn any_text_is_a_process_or_none(status: String, stat: String, arguments: Vec<u8>, name: String) {
        let _ = ProcInfo::parse(&status, &stat, &arguments);
        if let Some(info) = ProcInfo::parse(STATUS, &self::stat(&name), &arguments) {
            prop_assert!(info.command.len() <= COMMAND_LIMIT);
        }
    }
}

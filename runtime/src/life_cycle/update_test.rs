use super::*;

fn files(list: &[(&str, &str)]) -> CgroupFiles {
    CgroupFiles::new(list.iter().map(|(name, text)| (String::from(*name), String::from(*text))).collect())
}

fn guest(json: &str, files: &CgroupFiles) -> Vec<(String, String)> {
    let resources = serde_json::from_str(json).unwrap();
    lower::limits(&completed(&resources, files), &mut Vec::new()).unwrap().guest.values
}

#[test]
fn quota_and_period_leave_each_other_alone() {
    let files = files(&[("cpu.max", "50000 200000\n")]);
    let cpu_max = |value: &str| [("cpu.max".to_owned(), value.to_owned())];
    assert_eq!(guest(r#"{"cpu":{"quota":20000}}"#, &files), cpu_max("20000 200000"));
    assert_eq!(guest(r#"{"cpu":{"period":100000}}"#, &files), cpu_max("50000 100000"));
    assert_eq!(guest(r#"{"cpu":{"quota":-1,"period":1000}}"#, &files), cpu_max("max 1000"));
    assert_eq!(guest(r#"{"cpu":{"shares":1024}}"#, &files), [("cpu.weight".to_owned(), "100".to_owned())]);
    let unlimited = self::files(&[("cpu.max", "max 100000\n")]);
    assert_eq!(guest(r#"{"cpu":{"period":50000}}"#, &unlimited), cpu_max("max 50000"));
}

#[test]
fn swap_is_counted_above_the_limit_in_force() {
    let files = files(&[("memory.max", "67108864\n")]);
    let values = guest(r#"{"memory":{"swap":134217728}}"#, &files);
    assert!(values.contains(&("memory.swap.max".to_owned(), "67108864".to_owned())), "{values:?}");
    let values = guest(r#"{"memory":{"limit":-1}}"#, &files);
    assert!(values.contains(&("memory.swap.max".to_owned(), "max".to_owned())), "{values:?}");
}

#[test]
fn a_limit_must_fit_the_vm() {
    let check = |limit: u64, checked, files: &CgroupFiles| {
        let limits = Limits { memory: Some(limit), ..Limits::default() };
        check_memory(&limits, Some(256), checked, files).map_err(|error| error.to_string())
    };
    let used = files(&[("memory.current", "5000000"), ("memory.max", "536870912\n")]);
    assert_eq!(check(256 << 20, false, &used), Ok(()));
    assert!(check(257 << 20, false, &used).unwrap_err().contains("256 MiB"));
    assert_eq!(check(512 << 20, false, &used), Ok(()), "it is in force already");
    assert_eq!(check(1 << 20, false, &used), Ok(()));
    assert!(check(1 << 20, true, &used).unwrap_err().contains("5000000"));
}

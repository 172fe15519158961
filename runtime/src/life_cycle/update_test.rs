use super::*;

fn files(list: &[(&str, &str)]) -> CgroupFiles {
    CgroupFiles::new(list.iter().map(|(name, text)| (String::from(*name), String::from(*text))).collect())
}

fn guest(json: &str, files: &CgroupFiles) -> Vec<(String, String)> {
    let resources = serde_json::from_str(json).unwrap();
    lower::limits(&completed(&resources, files), &mut Vec::new()).unwrap().guest
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
fn a_checked_limit_is_not_below_what_is_used() {
    let check = |limit: u64, checked| {
        let demand = Demand { memory: Some(limit), cpus: None };
        let limits = Limits { demand, ..Limits::default() };
        check_memory(&limits, checked, &files(&[("memory.current", "5000000")]))
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(1 << 20, false), Ok(()));
    assert_eq!(check(8 << 20, true), Ok(()));
    assert!(check(1 << 20, true).unwrap_err().contains("5000000"));
}

#[test]
fn what_is_not_given_is_asked_of_the_vm_as_before() {
    let former = Demand { memory: Some(64 << 20), cpus: Some(500) };
    let after = |json: &str| {
        let resources = serde_json::from_str(json).unwrap();
        demand(&lower::limits(&resources, &mut Vec::new()).unwrap(), former)
    };
    assert_eq!(after("{}"), former);
    assert_eq!(after(r#"{"memory":{"limit":1048576}}"#), Demand { memory: Some(1 << 20), ..former });
    assert_eq!(after(r#"{"memory":{"limit":-1}}"#), Demand { memory: None, ..former });
    assert_eq!(after(r#"{"cpu":{"quota":150000,"period":100000}}"#), Demand { cpus: Some(1500), ..former });
    assert_eq!(after(r#"{"cpu":{"quota":-1}}"#), Demand { cpus: None, ..former });
}

use super::*;

fn pod(annotations: &[(&str, &str)]) -> Result<Pod, SpecError> {
    let map = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    lower(Some(&map))
}

#[test]
fn containerds_numbers_are_the_pods_limits() {
    let found = pod(&[
        (CONTAINERD_MEMORY, "536870912"),
        (CONTAINERD_QUOTA, "150000"),
        (CONTAINERD_PERIOD, "100000"),
        ("io.kubernetes.cri.sandbox-cpu-shares", "2"),
    ]);
    assert_eq!(
        found,
        Ok(Pod { demand: Demand { memory: Some(512 << 20), cpus: Some(1500) }, overhead: None })
    );
    assert_eq!(pod(&[(CONTAINERD_MEMORY, "0"), (CONTAINERD_QUOTA, "-1")]), Ok(Pod::default()));
    assert_eq!(pod(&[]), Ok(Pod::default()));
}

#[test]
fn crios_json_is_the_pods_limits_and_overhead() {
    let resources =
        r#"{"cpu_period":50000,"cpu_quota":100000,"cpu_shares":2,"memory_limit_in_bytes":1048576}"#;
    for index in 0..2 {
        let found = pod(&[
            (CRIO_RESOURCES[index], resources),
            (CRIO_OVERHEAD[index], r#"{"memory_limit_in_bytes":5}"#),
        ]);
        assert_eq!(
            found,
            Ok(Pod { demand: Demand { memory: Some(1 << 20), cpus: Some(2000) }, overhead: Some(5) })
        );
    }
    assert_eq!(pod(&[(CRIO_RESOURCES[0], "null"), (CRIO_OVERHEAD[0], "{}")]), Ok(Pod::default()));
}

#[test]
fn nonsense_is_named() {
    for (name, value) in [(CONTAINERD_MEMORY, "much"), (CRIO_RESOURCES[0], "{"), (CRIO_OVERHEAD[0], "5")] {
        let error = pod(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}

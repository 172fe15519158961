use super::*;

const CONTAINERD: (&str, &str) = ("io.kubernetes.cri.container-type", "sandbox");
const CRIO: (&str, &str) = ("io.kubernetes.cri-o.ContainerType", "sandbox");

fn pod(engine: (&str, &str), annotations: &[(&str, &str)]) -> Result<Pod, SpecError> {
    let all = annotations.iter().chain([&engine]);
    lower(Some(&all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()))
}

#[test]
fn containerds_numbers_are_the_pods_limits() {
    let found = pod(
        CONTAINERD,
        &[
            (CONTAINERD_MEMORY, "536870912"),
            (CONTAINERD_QUOTA, "150000"),
            (CONTAINERD_PERIOD, "100000"),
            ("io.kubernetes.cri.sandbox-cpu-shares", "2"),
        ],
    );
    assert_eq!(
        found,
        Ok(Pod { demand: Demand { memory: Some(512 << 20), cpus: Some(1500) }, overhead: None })
    );
    assert_eq!(pod(CONTAINERD, &[(CONTAINERD_MEMORY, "0"), (CONTAINERD_QUOTA, "-1")]), Ok(Pod::default()));
    assert_eq!(pod(CONTAINERD, &[]), Ok(Pod::default()));
}

#[test]
fn crios_json_is_the_pods_limits_and_overhead() {
    let resources =
        r#"{"cpu_period":50000,"cpu_quota":100000,"cpu_shares":2,"memory_limit_in_bytes":1048576}"#;
    for index in 0..2 {
        let found = pod(
            CRIO,
            &[(CRIO_RESOURCES[index], resources), (CRIO_OVERHEAD[index], r#"{"memory_limit_in_bytes":5}"#)],
        );
        assert_eq!(
            found,
            Ok(Pod { demand: Demand { memory: Some(1 << 20), cpus: Some(2000) }, overhead: Some(5) })
        );
    }
    assert_eq!(pod(CRIO, &[(CRIO_RESOURCES[0], "null"), (CRIO_OVERHEAD[0], "{}")]), Ok(Pod::default()));
}

#[test]
fn nonsense_is_named() {
    for (engine, name, value) in [
        (CONTAINERD, CONTAINERD_MEMORY, "much"),
        (CRIO, CRIO_RESOURCES[0], "{"),
        (CRIO, CRIO_OVERHEAD[0], "5"),
    ] {
        let error = pod(engine, &[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}

#[test]
fn only_the_keys_of_the_engine_count_that_has_written_the_role() {
    let of_crio = (CRIO_RESOURCES[0], r#"{"memory_limit_in_bytes":1048576}"#);
    let of_containerd = (CONTAINERD_MEMORY, "536870912");
    let memory = |engine| pod(engine, &[of_crio, of_containerd]).unwrap().demand.memory;
    assert_eq!(memory(CRIO), Some(1 << 20));
    assert_eq!(memory(CONTAINERD), Some(512 << 20));
    assert_eq!(memory(("io.kubernetes.docker.type", "podsandbox")), None);
    assert_eq!(memory(("io.kubernetes.pod.name", "p")), None);
    // Nor is what is not read a mistake.
    assert!(pod(CRIO, &[(CONTAINERD_MEMORY, "much")]).is_ok());
}

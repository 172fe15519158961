use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn usage(age_s: u32, cpu_s: u32, read: u64) -> Usage {
    let (age, cpu) = (SECOND * age_s, SECOND * cpu_s);
    Usage {
        id: "c".into(),
        status: "running",
        vm: Some(ProcessUsage { age, cpu, memory: 1, anonymous: 1, io: [read, 0] }),
        container: Some(ContainerUsage { age, cpu: cpu / 2, memory: 1, limit: None, pids: 1 }),
    }
}

#[test]
fn rates_are_of_the_time_between_two_measurements() {
    let (before, now) = (usage(10, 1, 1000), usage(12, 2, 5000));
    assert_eq!(now.vm_cpu(Some(&before)), Some(50.0));
    assert_eq!(now.container_cpu(Some(&before)), Some(25.0));
    assert_eq!(now.vm_io(Some(&before)), Some([2000, 0]));
}

#[test]
fn the_first_measurement_is_of_all_time() {
    let now = usage(10, 1, 1000);
    assert_eq!((now.vm_cpu(None), now.container_cpu(None)), (Some(10.0), Some(5.0)));
    assert_eq!(now.vm_io(None), Some([100, 0]));
}

#[test]
fn a_namesake_that_is_younger_has_its_own_past() {
    let (before, now) = (usage(100, 90, 1 << 40), usage(10, 1, 1000));
    assert_eq!(now.vm_cpu(Some(&before)), Some(10.0));
    assert_eq!(now.vm_io(Some(&before)), Some([100, 0]));
}

#[test]
fn a_guest_may_send_any_number() {
    let files = CgroupFiles::new(vec![
        ("cpu.stat".into(), format!("usage_usec {}\n", u64::MAX)),
        ("memory.max".into(), "max\n".into()),
    ]);
    let container = ContainerUsage::new(&files, Duration::ZERO);
    assert_eq!((container.memory, container.limit), (0, None));
    let now = Usage { container: Some(container), ..usage(0, 0, u64::MAX) };
    assert!(now.container_cpu(None).unwrap().is_finite());
    assert!(now.vm_cpu(Some(&usage(0, 0, 0))).unwrap().is_finite());
}

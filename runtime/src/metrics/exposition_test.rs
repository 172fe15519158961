use proptest::prelude::*;
use stockade_protocol::vmm::{Figures, ThreadTime};

use super::super::Subject;
use super::*;

fn sandbox(files: Vec<(String, String)>) -> Sandbox {
    let created = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
    Sandbox {
        subject: Subject { id: "pod".into(), created },
        stats: Some(Figures { guest_kib: 3, overhead_kib: 1, ..Figures::default() }),
        memory_mib: Some(2),
        threads: vec![ThreadTime { name: "vcpu\"0\n".into(), cpu_ms: 250 }],
        failures: vec![DeviceFailure { device: "fs".into(), cause: "no\nsense".into(), count: 2 }],
        interfaces: "Inter-|   Receive\n face |bytes\n  eth0: 10 2 0 1 0 0 0 0 20 3 0 4 0 0 0 0\n".into(),
        containers: Some(vec![("web".parse().unwrap(), CgroupFiles::new(files))]),
    }
}

fn file(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn every_family_is_described_once_and_has_a_sample_of_each_sandbox() {
    let files = vec![
        file(
            "cpu.stat",
            "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nthrottled_usec 500000\n",
        ),
        file("memory.current", "4096\n"),
        file("memory.max", "max\n"),
        file("memory.events", "oom 3\noom_kill 2\n"),
        file("pids.max", "7\n"),
        file("io.stat", "253:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n"),
        file(
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        ),
    ];
    let text = text(&[sandbox(files.clone()), sandbox(files)]);
    for line in [
        "# TYPE stockade_sandbox_up gauge",
        "stockade_sandbox_up{sandbox=\"pod\"} 1.0",
        "stockade_sandbox_start_time_seconds{sandbox=\"pod\"} 1.5",
        "stockade_sandbox_memory_bytes{sandbox=\"pod\"} 2097152.0",
        "stockade_guest_resident_bytes{sandbox=\"pod\"} 3072.0",
        "stockade_device_failures_total{sandbox=\"pod\",device=\"fs\",cause=\"no\\\\nsense\"} 2.0",
        "stockade_network_transmit_bytes_total{sandbox=\"pod\",interface=\"eth0\"} 20.0",
        "stockade_network_receive_drops_total{sandbox=\"pod\",interface=\"eth0\"} 1.0",
        "stockade_container_cpu_seconds_total{sandbox=\"pod\",container=\"web\",mode=\"user\"} 2.0",
        "stockade_container_memory_bytes{sandbox=\"pod\",container=\"web\"} 4096.0",
        "stockade_container_oom_kills_total{sandbox=\"pod\",container=\"web\"} 2.0",
        "stockade_container_io_written_bytes_total{sandbox=\"pod\",container=\"web\",device=\"253:0\"} 2.0",
        "stockade_container_pressure_seconds_total{sandbox=\"pod\",container=\"web\",resource=\"memory\",share=\"some\"} 1.5",
        "# UNIT stockade_container_cpu_seconds seconds",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert_eq!(text.matches("# TYPE stockade_container_memory_bytes gauge").count(), 1);
    assert_eq!(text.matches("stockade_container_processes_limit{").count(), 2);
    assert!(!text.contains("memory_limit"), "no limit, no sample:\n{text}");
    assert!(text.ends_with("# EOF\n"));
}

proptest! {
    /// Whatever a guest sends, each line is a comment or one sample.
    #[test]
    fn a_guest_cannot_write_lines_of_its_own(
        name in "cpu\\.stat|io\\.stat|memory\\.events|memory\\.max|cpu\\.pressure|pids\\.current",
        content in "\\PC*|[a-z_=0-9: .\n\"{}\\\\]{0,300}",
    ) {
        for line in text(&[sandbox(vec![(name, content)])]).lines() {
            let is_sample = line.strip_prefix("stockade_").is_some_and(|rest| {
                rest.rsplit_once(' ').is_some_and(|(name, value)| {
                    name.contains("{sandbox=\"pod\"") && name.ends_with('}') && value.parse::<f64>().is_ok_and(f64::is_finite)
                })
            });
            prop_assert!(is_sample || line.starts_with("# "), "{line}");
        }
    }
}

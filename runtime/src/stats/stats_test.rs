use serde_json::{Value, json};

use super::*;

fn stats(list: &[(&str, &str)]) -> Value {
    let files = list.iter().map(|(name, text)| (String::from(*name), String::from(*text))).collect();
    serde_json::to_value(Stats::new(&CgroupFiles::new(files))).unwrap()
}

/// What runc 1.1 prints of a container without limits, and the memory events that later versions add.
#[test]
fn the_form_is_runcs() {
    let found = stats(&[
        (
            "cpu.stat",
            "usage_usec 228472\nuser_usec 83080\nsystem_usec 145391\nnr_periods 0\nnr_throttled 0\n",
        ),
        ("memory.current", "1953792\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1355776\nfile 163840\n"),
        ("memory.swap.current", "0\n"),
        ("memory.swap.max", "max\n"),
        ("pids.current", "5\n"),
        ("pids.max", "max\n"),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.events", "max 0\n"),
    ]);
    let expected = json!({
        "cpu": { "usage": { "total": 228_472_000, "kernel": 145_391_000, "user": 83_080_000 }, "throttling": {} },
        "cpuset": {
            "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
            "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0
        },
        "memory": {
            "cache": 163_840,
            "usage": { "limit": u64::MAX, "usage": 1_953_792, "failcnt": 0 },
            "swap": { "limit": u64::MAX, "usage": 1_953_792, "failcnt": 0 },
            "kernel": { "limit": 0, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": { "anon": 1_355_776, "file": 163_840 },
            "event_count": {}
        },
        "pids": { "current": 5 },
        "blkio": {},
        "hugetlb": { "2MB": { "failcnt": 0 } },
        "intel_rdt": {},
        "network_interfaces": null
    });
    assert_eq!(found, expected);
}

#[test]
fn what_there_is_beyond_that_is_translated() {
    let found = stats(&[
        ("cpu.stat", "nr_periods 9\nnr_throttled 2\nthrottled_usec 7\n"),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        ("cpuset.cpus.effective", "0-1\n"),
        ("memory.current", "10\n"),
        ("memory.max", "100\n"),
        ("memory.peak", "60\n"),
        ("memory.events", "low 0\nmax 4\noom_kill 1\n"),
        ("memory.swap.current", "1\n"),
        ("memory.swap.max", "50\n"),
        ("pids.max", "20\n"),
        ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4\n"),
    ]);
    assert_eq!(
        found["cpu"]["throttling"],
        json!({ "periods": 9, "throttledPeriods": 2, "throttledTime": 7000 })
    );
    assert_eq!(
        found["cpu"]["psi"]["some"],
        json!({ "avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 42 })
    );
    assert_eq!(found["cpuset"]["cpus"], json!([0, 1]));
    assert_eq!(found["memory"]["usage"], json!({ "limit": 100, "usage": 10, "max": 60, "failcnt": 4 }));
    assert_eq!(found["memory"]["swap"], json!({ "limit": 150, "usage": 11, "failcnt": 0 }));
    assert_eq!(found["memory"]["event_count"], json!({ "max": 4, "oom_kill": 1 }));
    assert_eq!(found["pids"]["limit"], 20);
    let read = json!({ "major": 8, "minor": 16, "op": "Read", "value": 1 });
    assert_eq!(found["blkio"]["ioServiceBytesRecursive"][0], read);
    let writes = json!({ "major": 8, "minor": 16, "op": "Write", "value": 4 });
    assert_eq!(found["blkio"]["ioServicedRecursive"][1], writes);
}

#[test]
fn a_guest_that_sends_nothing_has_used_nothing() {
    assert_eq!(stats(&[])["memory"]["usage"], json!({ "limit": 0, "failcnt": 0 }));
}

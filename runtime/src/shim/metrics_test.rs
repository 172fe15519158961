use prost::Message;

use super::*;

fn metrics(files: &[(&str, &str)]) -> Metrics {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let any = of(&CgroupFiles::new(files));
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    Metrics::decode(&*any.value).expect("what was encoded")
}

#[test]
fn files_become_the_message() {
    let found = metrics(&[
        ("cpu.stat", "usage_usec 7\nuser_usec 3\nsystem_usec 4\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1024\ninactive_file 512\n"),
        ("memory.events", "oom 2\noom_kill 1\n"),
        ("pids.current", "2\n"),
        ("pids.max", "100\n"),
        ("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n254:16 rbytes=6\n"),
        (
            "io.pressure",
            "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8\n",
        ),
    ]);
    let cpu = found.cpu.expect("cpu");
    assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (7, 3, 4));
    let memory = found.memory.expect("memory");
    assert_eq!((memory.usage, memory.usage_limit), (4096, u64::MAX));
    assert_eq!((memory.anon, memory.inactive_file), (1024, 512));
    assert_eq!(found.pids, Some(Pids { current: 2, limit: 100 }));
    assert_eq!(found.memory_events.expect("events").oom_kill, 1);
    let io = found.io.expect("io");
    assert_eq!(io.usage.len(), 2);
    assert_eq!((io.usage[0].wios, io.usage[1].minor, io.usage[1].rbytes), (4, 16, 6));
    assert_eq!(io.psi.expect("psi").full.expect("full").total, 8);
}

#[test]
fn a_guest_that_lies_gets_zeros() {
    let devices: String = (0..1000).map(|minor| format!("8:{minor} rbytes=1\n")).collect();
    let found = metrics(&[
        ("cpu.stat", "usage_usec -1\n\u{1b}[2J 5\n"),
        ("memory.current", "lots"),
        ("io.stat", &devices),
    ]);
    assert_eq!(found.cpu.expect("cpu").usage_usec, 0);
    assert_eq!(found.memory.expect("memory").usage, 0);
    assert_eq!(found.io.expect("io").usage.len(), MAX_DEVICES);
}

use super::{ThreadTime, resident, thread_time, threads};

#[test]
fn guest_memory_is_counted_apart() {
    let smaps = "\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Size:               2048 kB
Rss:                 100 kB
7f0000200000-7f0000300000 rw-p 00200000 00:17 4    /vmlinux
Rss:                  40 kB
7f0000300000-7f0000400000 rw-p 00000000 00:00 0
Rss:                   7 kB
";
    let guest = 0x7f00_0000_0000..0x7f00_0030_0000;
    assert_eq!(resident(smaps.as_bytes(), &[guest]).unwrap(), (140, 7));
}

#[test]
fn a_size_that_is_no_number_is_an_error() {
    assert!(resident("Rss: many kB\n".as_bytes(), &[]).is_err());
}

#[test]
fn the_time_of_a_thread_is_that_of_both_modes_whatever_its_name() {
    let stat = "7 (vcpu) (0) R 1 7 7 0 -1 4194304 1 2 3 4 150 25 0 0 20 0 5 0 100 0 0";
    let expected = ThreadTime { name: "vcpu) (0".into(), cpu_ms: 1750 };
    assert_eq!(thread_time(stat), Some(expected));
    assert_eq!(thread_time("7 (x) R 1"), None);
    assert!(threads().unwrap().iter().any(|thread| !thread.name.is_empty()));
}

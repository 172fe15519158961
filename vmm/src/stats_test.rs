use super::{private, resident};

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
fn what_only_the_file_server_has_is_its_own() {
    let rollup = "\
55d000000000-7ffd00000000 ---p 00000000 00:00 0    [rollup]
Rss:                 900 kB
Shared_Clean:        500 kB
Private_Clean:        30 kB
Private_Dirty:       370 kB
";
    assert_eq!(private(rollup.as_bytes()).unwrap(), 400);
}

#[test]
fn a_size_that_is_no_number_is_an_error() {
    assert!(resident("Rss: many kB\n".as_bytes(), &[]).is_err());
}

use super::resident;

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

use proptest::prelude::*;

use super::*;

fn files(list: &[(&str, &str)]) -> CgroupFiles {
    CgroupFiles::new(list.iter().map(|(name, text)| (String::from(*name), String::from(*text))).collect())
}

#[test]
fn numbers_and_limits_are_read() {
    let files = files(&[("memory.current", "4096\n"), ("memory.max", "max\n"), ("pids.max", "7\n")]);
    assert_eq!(files.number("memory.current"), Some(4096));
    assert_eq!((files.number("memory.max"), files.limit("memory.max")), (None, Some(u64::MAX)));
    assert_eq!((files.limit("pids.max"), files.limit("none")), (Some(7), None));
}

#[test]
fn keyed_lines_pressure_and_io_are_read() {
    let files = files(&[
        ("cpu.stat", "usage_usec 12\nuser_usec 5\nodd\nnot number\n"),
        (
            "cpu.pressure",
            "some avg10=0.50 avg60=1.25 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        ),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 rbytes=7\nx rbytes=1\n"),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.rsvd.max", "0\n"),
        ("cpuset.cpus.effective", "0-2,7\n"),
    ]);
    assert_eq!((files.of("cpu.stat", "usage_usec"), files.of("cpu.stat", "odd")), (12, 0));
    let [some, full] = files.pressure("cpu.pressure").unwrap();
    assert_eq!((some.averages, some.total_us, full.total_us), ([0.5, 1.25, 0.0], 99, 3));
    assert_eq!(files.pressure("io.pressure"), None);
    let io = files.io();
    assert_eq!(io.len(), 7);
    assert_eq!(io[6], IoEntry { major: 253, minor: 1, key: "rbytes".into(), value: 7 });
    assert_eq!(files.huge_page_sizes(), ["2MB"]);
    assert_eq!(files.set("cpuset.cpus.effective"), [0, 1, 2, 7]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_harm(text in "\\PC*|[0-9a-z =.,:\\-\n]{0,200}") {
        let files = files(&[("f", &text), ("io.stat", &text), ("hugetlb.current", &text)]);
        files.limit("f");
        prop_assert!(files.keyed("f").keys().all(|key| key.is_ascii()));
        files.io();
        files.huge_page_sizes();
        prop_assert!(files.set("f").len() <= 8192);
        if let Some(lines) = files.pressure("f") {
            prop_assert!(lines.iter().flat_map(|line| line.averages).all(f64::is_finite));
        }
    }

    #[test]
    fn what_the_kernel_writes_is_read_back(pairs in prop::collection::btree_map("[a-z_]{1,12}", any::<u64>(), 0..20)) {
        let text: String = pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        let files = files(&[("memory.stat", &text)]);
        let read = files.keyed("memory.stat");
        prop_assert_eq!(read.len(), pairs.len());
        prop_assert!(pairs.iter().all(|(key, value)| read.get(key.as_str()) == Some(value)));
    }
}

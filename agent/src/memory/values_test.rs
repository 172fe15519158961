use super::*;

/// What the kernel had when it derived these at a boot with 256 MiB: 60,099 pages.
const BOOT: Memory = Memory { pages: 60_099 };

fn derived(name: &str, memory: Memory) -> String {
    let value = VALUES.iter().chain([&CONNTRACK]).find(|value| value.name == name).unwrap();
    (value.of)(memory)
}

#[test]
fn formulas_are_the_kernels() {
    // Read in a guest of 256 MiB.
    for (name, booted) in [
        ("fs/epoll/max_user_watches", 53_515),
        ("fs/inotify/max_user_watches", 8192),
        ("fs/fanotify/max_user_marks", 8192),
        ("user/max_user_namespaces", 937),
        ("net/ipv4/tcp_max_orphans", 1024),
        ("net/ipv4/tcp_max_tw_buckets", 1024),
        ("net/ipv4/tcp_max_syn_backlog", 128),
        ("net/ipv4/inet_peer_threshold", 12_834),
        ("net/netfilter/nf_conntrack_max", 2048),
        ("net/netfilter/nf_conntrack_buckets", 2048),
    ] {
        let of: i64 = derived(name, BOOT).parse().unwrap();
        assert!((of - booted).abs() * 200 <= booted, "{name}: {of} instead of {booted}");
    }
    for (name, booted) in [
        ("net/ipv4/tcp_mem", [2784, 3714, 5568]),
        ("net/ipv4/udp_mem", [5571, 7428, 11_142]),
        ("net/ipv4/tcp_rmem", [4096, 131_072, 1_901_728]),
        ("net/ipv4/tcp_wmem", [4096, 16_384, 1_901_728]),
    ] {
        let of = derived(name, BOOT);
        for (of, booted) in of.split(' ').map(|of| of.parse::<i64>().unwrap()).zip(booted) {
            assert!((of - booted).abs() * 200 <= booted, "{name}: {of} instead of {booted}");
        }
    }
}

/// What it had at a boot with 4 GiB, and what it derived then: read in a machine that booted so.
#[test]
fn formulas_are_the_kernels_with_4_gib() {
    let booted = Memory { pages: 1_009_900 };
    for (name, read) in [
        ("fs/epoll/max_user_watches", vec![899_272]),
        ("fs/inotify/max_user_watches", vec![31_917]),
        ("fs/fanotify/max_user_marks", vec![34_017]),
        ("user/max_user_namespaces", vec![15_778]),
        ("net/ipv4/tcp_mem", vec![46_548, 62_065, 93_096]),
        ("net/ipv4/udp_mem", vec![93_096, 124_130, 186_192]),
        ("net/ipv4/tcp_max_orphans", vec![16_384]),
        ("net/ipv4/tcp_max_tw_buckets", vec![16_384]),
        ("net/ipv4/tcp_max_syn_backlog", vec![256]),
        ("net/ipv4/tcp_rmem", vec![4096, 131_072, 6_291_456]),
        ("net/ipv4/tcp_wmem", vec![4096, 16_384, 4_194_304]),
        ("net/ipv4/inet_peer_threshold", vec![65_664]),
        ("net/netfilter/nf_conntrack_max", vec![65_536]),
        ("net/netfilter/nf_conntrack_buckets", vec![65_536]),
        ("net/netfilter/nf_conntrack_expect_max", vec![1024]),
        ("vm/user_reserve_kbytes", vec![126_060]),
    ] {
        let of = derived(name, booted);
        let of: Vec<i64> = of.split(' ').map(|of| of.parse().unwrap()).collect();
        assert_eq!(of.len(), read.len(), "{name}");
        for (of, read) in of.iter().zip(read) {
            assert!((of - read).abs() * 400 <= read, "{name}: {of} instead of {read}");
        }
    }
}

#[test]
fn values_follow_memory() {
    let large = Memory { pages: 4 * GIB - 12_000 };
    for value in VALUES.iter().chain([&CONNTRACK]) {
        let last = |text: String| text.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let (small, large) = (last((value.of)(BOOT)), last((value.of)(large)));
        assert!(
            small < large || value.name == "kernel/threads-max",
            "{}: {small} becomes {large}",
            value.name
        );
    }
    assert_eq!(derived("net/netfilter/nf_conntrack_buckets", large), "65536");
    assert_eq!(derived("net/ipv4/tcp_max_orphans", large), "16384");
}

#[test]
fn a_node_raises_replaces_or_forbids() {
    let find = |name| VALUES.iter().find(|value| value.name == name).unwrap();
    let watches = find("fs/inotify/max_user_watches");
    assert_eq!(watches.with(BOOT, Some("524288")), "524288");
    assert_eq!(watches.with(BOOT, Some("10")), "8192");
    assert_eq!(find("user/max_user_namespaces").with(BOOT, Some("0")), "0");
    assert_eq!(find("net/ipv4/tcp_rmem").with(BOOT, Some("1 2 3")), "1 2 3");
    let orphans = find("net/ipv4/tcp_max_orphans");
    assert_eq!(orphans.with(BOOT, Some("7")), (orphans.of)(BOOT));
}

//! `net.*` of a network namespace, as the CNI plugin `tuning`, an engine or the node's administrator has set it.

use std::path::Path;

use crate::node::Directory;

/// The directory of these sysctls for the calling thread's network namespace.
const NET: &str = "/proc/sys/net";

/// Names below `net/` with the values that a guest has by itself. The first one resets others, and so comes first.
const NAMESPACE: [(&str, &str); 72] = [
    ("ipv4/ip_forward", "0"),
    ("core/optmem_max", "131072"),
    ("core/somaxconn", "4096"),
    ("ipv4/fib_multipath_hash_policy", "0"),
    ("ipv4/fib_multipath_use_neigh", "0"),
    ("ipv4/fwmark_reflect", "0"),
    ("ipv4/icmp_echo_ignore_all", "0"),
    ("ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("ipv4/icmp_ratelimit", "1000"),
    ("ipv4/icmp_ratemask", "6168"),
    ("ipv4/igmp_max_memberships", "20"),
    ("ipv4/igmp_max_msf", "10"),
    ("ipv4/ip_default_ttl", "64"),
    ("ipv4/ip_forward_use_pmtu", "0"),
    ("ipv4/ip_local_port_range", "32768 60999"),
    ("ipv4/ip_local_reserved_ports", ""),
    ("ipv4/ip_no_pmtu_disc", "0"),
    ("ipv4/ip_nonlocal_bind", "0"),
    ("ipv4/ip_unprivileged_port_start", "1024"),
    ("ipv4/ping_group_range", "1 0"),
    ("ipv4/tcp_abort_on_overflow", "0"),
    ("ipv4/tcp_adv_win_scale", "1"),
    ("ipv4/tcp_autocorking", "1"),
    ("ipv4/tcp_base_mss", "1024"),
    ("ipv4/tcp_congestion_control", "cubic"),
    ("ipv4/tcp_dsack", "1"),
    ("ipv4/tcp_early_retrans", "3"),
    ("ipv4/tcp_ecn", "2"),
    ("ipv4/tcp_ecn_fallback", "1"),
    ("ipv4/tcp_fastopen", "1"),
    ("ipv4/tcp_fastopen_blackhole_timeout_sec", "0"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_frto", "2"),
    ("ipv4/tcp_fwmark_accept", "0"),
    ("ipv4/tcp_keepalive_intvl", "75"),
    ("ipv4/tcp_keepalive_probes", "9"),
    ("ipv4/tcp_keepalive_time", "7200"),
    ("ipv4/tcp_limit_output_bytes", "1048576"),
    ("ipv4/tcp_max_reordering", "300"),
    ("ipv4/tcp_min_snd_mss", "48"),
    ("ipv4/tcp_moderate_rcvbuf", "1"),
    ("ipv4/tcp_mtu_probing", "0"),
    ("ipv4/tcp_no_metrics_save", "0"),
    ("ipv4/tcp_notsent_lowat", "4294967295"),
    ("ipv4/tcp_orphan_retries", "0"),
    ("ipv4/tcp_recovery", "1"),
    ("ipv4/tcp_reordering", "3"),
    ("ipv4/tcp_retries1", "3"),
    ("ipv4/tcp_retries2", "15"),
    ("ipv4/tcp_rfc1337", "0"),
    // The values of a host with a GiB or more; a guest's own values follow from its memory.
    ("ipv4/tcp_rmem", "4096 131072 6291456"),
    ("ipv4/tcp_sack", "1"),
    ("ipv4/tcp_shrink_window", "0"),
    ("ipv4/tcp_slow_start_after_idle", "1"),
    ("ipv4/tcp_stdurg", "0"),
    ("ipv4/tcp_syn_linear_timeouts", "4"),
    ("ipv4/tcp_syn_retries", "6"),
    ("ipv4/tcp_synack_retries", "5"),
    ("ipv4/tcp_syncookies", "1"),
    ("ipv4/tcp_thin_linear_timeouts", "0"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_tw_reuse", "2"),
    ("ipv4/tcp_window_scaling", "1"),
    ("ipv4/tcp_wmem", "4096 16384 4194304"),
    ("ipv4/udp_rmem_min", "4096"),
    ("ipv4/udp_wmem_min", "4096"),
    ("ipv6/auto_flowlabels", "1"),
    ("ipv6/bindv6only", "0"),
    ("ipv6/flowlabel_reflect", "0"),
    ("ipv6/icmp/echo_ignore_all", "0"),
    ("ipv6/icmp/ratelimit", "1000"),
    ("ipv6/ip_nonlocal_bind", "0"),
];

/// Names of interfaces' settings, with the values that `all`, `default` and an interface have by themselves.
const INTERFACE: [(&str, &str, [&str; 3]); 30] = [
    ("ipv4", "forwarding", ["0", "0", "0"]),
    ("ipv4", "accept_local", ["0", "0", "0"]),
    ("ipv4", "accept_redirects", ["1", "1", "1"]),
    ("ipv4", "accept_source_route", ["0", "1", "1"]),
    ("ipv4", "arp_accept", ["0", "0", "0"]),
    ("ipv4", "arp_announce", ["0", "0", "0"]),
    ("ipv4", "arp_filter", ["0", "0", "0"]),
    ("ipv4", "arp_ignore", ["0", "0", "0"]),
    ("ipv4", "arp_notify", ["0", "0", "0"]),
    ("ipv4", "log_martians", ["0", "0", "0"]),
    ("ipv4", "promote_secondaries", ["0", "0", "0"]),
    ("ipv4", "proxy_arp", ["0", "0", "0"]),
    ("ipv4", "route_localnet", ["0", "0", "0"]),
    ("ipv4", "rp_filter", ["0", "0", "0"]),
    ("ipv4", "secure_redirects", ["1", "1", "1"]),
    ("ipv4", "send_redirects", ["1", "1", "1"]),
    ("ipv4", "src_valid_mark", ["0", "0", "0"]),
    ("ipv6", "forwarding", ["0", "0", "0"]),
    ("ipv6", "disable_ipv6", ["0", "0", "0"]),
    ("ipv6", "accept_dad", ["0", "1", "1"]),
    ("ipv6", "accept_ra", ["1", "1", "1"]),
    ("ipv6", "accept_redirects", ["1", "1", "1"]),
    ("ipv6", "accept_source_route", ["0", "0", "0"]),
    ("ipv6", "autoconf", ["1", "1", "1"]),
    ("ipv6", "dad_transmits", ["1", "1", "1"]),
    ("ipv6", "hop_limit", ["64", "64", "64"]),
    ("ipv6", "keep_addr_on_down", ["0", "0", "0"]),
    ("ipv6", "ndisc_notify", ["0", "0", "0"]),
    ("ipv6", "proxy_ndp", ["0", "0", "0"]),
    ("ipv6", "use_tempaddr", ["0", "0", "0"]),
];

/// The names that stand for all interfaces and for new ones.
const FOR_ALL: [&str; 2] = ["all", "default"];

/// Paths below /proc/sys with their values.
pub type Sysctls = Vec<(String, String)>;

/// The settings of the calling thread's network namespace that differ from a guest's own, in the order in which they
/// are to be set.
pub fn of_namespace() -> Sysctls {
    let Ok(net) = Directory::open(Path::new(NET)) else { return Sysctls::new() };
    let mut found = Sysctls::new();
    let mut take = |name: String, guest: &str| {
        if let Some(value) = net.read(&name).filter(|value| value != guest) {
            found.push((format!("net/{name}"), value));
        }
    };
    for (name, guest) in NAMESPACE {
        take(name.to_owned(), guest);
    }
    for (index, interface) in FOR_ALL.into_iter().enumerate() {
        for (family, name, guest) in INTERFACE {
            take(format!("{family}/conf/{interface}/{name}"), guest[index]);
        }
    }
    found.extend(backlogs(&net));
    found
}

/// As [`of_namespace`], for these interfaces.
pub fn of_interfaces<'a>(interfaces: impl Iterator<Item = &'a str>) -> Sysctls {
    let Ok(net) = Directory::open(Path::new(NET)) else { return Sysctls::new() };
    let mut found = Sysctls::new();
    for interface in interfaces {
        for (family, name, guest) in INTERFACE {
            let name = format!("{family}/conf/{interface}/{name}");
            if let Some(value) = net.read(&name).filter(|value| value != guest[2]) {
                found.push((format!("net/{name}"), value));
            }
        }
    }
    found
}

/// Two settings that the kernel derives from the size of one table in every new namespace. If their ratio is the
/// kernel's, nobody has set them, and the guest keeps its own.
fn backlogs(net: &Directory) -> Sysctls {
    const NAMES: [&str; 2] = ["ipv4/tcp_max_tw_buckets", "ipv4/tcp_max_syn_backlog"];
    let [buckets, backlog] = NAMES.map(|name| net.read(name).and_then(|value| value.parse::<u32>().ok()));
    let (Some(buckets), Some(backlog)) = (buckets, backlog) else { return Sysctls::new() };
    if buckets.is_power_of_two() && backlog == (buckets / 64).max(128) {
        return Sysctls::new();
    }
    NAMES
        .into_iter()
        .zip([buckets, backlog])
        .map(|(name, value)| (format!("net/{name}"), value.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_set_is_the_guests_own() {
        let both = |buckets: &str, backlog: &str| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("ipv4")).unwrap();
            std::fs::write(directory.path().join("ipv4/tcp_max_tw_buckets"), buckets).unwrap();
            std::fs::write(directory.path().join("ipv4/tcp_max_syn_backlog"), backlog).unwrap();
            backlogs(&Directory::open(directory.path()).unwrap())
        };
        assert!(both("32768\n", "512\n").is_empty());
        assert!(both("1024\n", "128\n").is_empty());
        assert_eq!(both("32768\n", "4096\n").len(), 2);
        assert_eq!(both("5000\n", "128\n")[0], ("net/ipv4/tcp_max_tw_buckets".to_owned(), "5000".to_owned()));
    }

    #[test]
    fn the_threads_own_namespace_is_read() {
        // Whatever it has: the first names are in every namespace.
        let net = Directory::open(Path::new(NET)).unwrap();
        assert!(net.read("ipv4/ip_forward").is_some());
        assert!(net.read("core/somaxconn").is_some());
    }
}

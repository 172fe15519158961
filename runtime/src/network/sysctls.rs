//! `net.*` of a network namespace, as the CNI plugin `tuning`, an engine or the node's administrator has set it.

use std::path::Path;

use crate::node::Directory;

/// The directory of these sysctls for the calling thread's network namespace.
const NET: &str = "/proc/sys/net";

/// Names below `net/` with the values that a guest has by itself. The first one resets others, and so comes first.
const NAMESPACE: &[(&str, &str)] = &[
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
    ("ipv4/fib_multipath_hash_fields", "7"),
    ("ipv4/icmp_errors_use_inbound_ifaddr", "0"),
    ("ipv4/icmp_ignore_bogus_error_responses", "1"),
    ("ipv4/icmp_msgs_burst", "50"),
    ("ipv4/icmp_msgs_per_sec", "1000"),
    ("ipv4/igmp_link_local_mcast_reports", "1"),
    ("ipv4/igmp_qrv", "2"),
    ("ipv4/ip_autobind_reuse", "0"),
    ("ipv4/ip_dynaddr", "0"),
    ("ipv4/ip_early_demux", "1"),
    ("ipv4/ipfrag_high_thresh", "4194304"),
    ("ipv4/ipfrag_low_thresh", "3145728"),
    ("ipv4/ipfrag_max_dist", "64"),
    ("ipv4/ipfrag_time", "30"),
    ("ipv4/tcp_app_win", "31"),
    ("ipv4/tcp_challenge_ack_limit", "2147483647"),
    ("ipv4/tcp_comp_sack_delay_ns", "1000000"),
    ("ipv4/tcp_comp_sack_nr", "44"),
    ("ipv4/tcp_comp_sack_slack_ns", "100000"),
    ("ipv4/tcp_early_demux", "1"),
    ("ipv4/tcp_fastopen_key", "00000000-00000000-00000000-00000000"),
    ("ipv4/tcp_invalid_ratelimit", "500"),
    ("ipv4/tcp_min_rtt_wlen", "300"),
    ("ipv4/tcp_min_tso_segs", "2"),
    ("ipv4/tcp_mtu_probe_floor", "48"),
    ("ipv4/tcp_no_ssthresh_metrics_save", "1"),
    ("ipv4/tcp_pacing_ca_ratio", "120"),
    ("ipv4/tcp_pacing_ss_ratio", "200"),
    ("ipv4/tcp_pingpong_thresh", "1"),
    ("ipv4/tcp_probe_interval", "600"),
    ("ipv4/tcp_probe_threshold", "8"),
    ("ipv4/tcp_reflect_tos", "0"),
    ("ipv4/tcp_rto_min_us", "200000"),
    ("ipv4/tcp_tso_rtt_log", "9"),
    ("ipv4/tcp_tso_win_divisor", "3"),
    ("ipv4/udp_early_demux", "1"),
    ("ipv6/anycast_src_echo_reply", "0"),
    ("ipv6/fib_multipath_hash_fields", "7"),
    ("ipv6/fib_multipath_hash_policy", "0"),
    ("ipv6/flowlabel_consistency", "1"),
    ("ipv6/flowlabel_state_ranges", "0"),
    ("ipv6/fwmark_reflect", "0"),
    ("ipv6/icmp/echo_ignore_anycast", "0"),
    ("ipv6/icmp/echo_ignore_multicast", "0"),
    ("ipv6/icmp/ratemask", "0-1,3-127"),
    ("ipv6/ip6frag_high_thresh", "4194304"),
    ("ipv6/ip6frag_low_thresh", "3145728"),
    ("ipv6/ip6frag_time", "60"),
    ("ipv6/max_dst_opts_number", "8"),
    ("ipv6/max_hbh_opts_number", "8"),
    ("netfilter/nf_conntrack_acct", "0"),
    ("netfilter/nf_conntrack_generic_timeout", "600"),
    ("netfilter/nf_conntrack_icmp_timeout", "30"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
    ("netfilter/nf_conntrack_tcp_loose", "1"),
    ("netfilter/nf_conntrack_tcp_max_retrans", "3"),
    ("netfilter/nf_conntrack_tcp_timeout_close", "10"),
    ("netfilter/nf_conntrack_tcp_timeout_close_wait", "60"),
    ("netfilter/nf_conntrack_tcp_timeout_established", "432000"),
    ("netfilter/nf_conntrack_tcp_timeout_fin_wait", "120"),
    ("netfilter/nf_conntrack_tcp_timeout_last_ack", "30"),
    ("netfilter/nf_conntrack_tcp_timeout_max_retrans", "300"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_recv", "60"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "120"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "120"),
    ("netfilter/nf_conntrack_tcp_timeout_unacknowledged", "300"),
    ("netfilter/nf_conntrack_udp_timeout", "30"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "120"),
    ("unix/max_dgram_qlen", "10"),
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

/// Names of an interface's settings for its neighbours, with the values that it has by itself.
const NEIGHBOURS: [(&str, &str); 10] = [
    ("app_solicit", "0"),
    ("base_reachable_time_ms", "30000"),
    ("delay_first_probe_time", "5"),
    ("gc_stale_time", "60"),
    ("mcast_resolicit", "0"),
    ("mcast_solicit", "3"),
    ("proxy_qlen", "64"),
    ("retrans_time_ms", "1000"),
    ("ucast_solicit", "3"),
    ("unres_qlen_bytes", "212992"),
];

/// The interface that every namespace has, and the value with which it differs from others by itself.
const LOOPBACK: &str = "lo";
const NOT_FOR_LOOPBACK: &str = "-1";

/// The names that stand for all interfaces and for new ones.
const FOR_ALL: [&str; 2] = ["all", "default"];

/// Paths below /proc/sys with their values.
pub type Sysctls = Vec<(String, String)>;

/// The settings of the calling thread's network namespace that differ from a guest's own, in the order in which they
/// are to be set.
pub fn of_namespace() -> Sysctls {
    let Ok(net) = Directory::open(Path::new(NET)) else { return Sysctls::new() };
    let names = NAMESPACE.iter().map(|(name, guest)| ((*name).to_owned(), *guest));
    let mut found: Sysctls = differing(&net, names).collect();
    for (index, interface) in FOR_ALL.into_iter().enumerate() {
        let name = |(family, name, guest): (&str, &str, [&'static str; 3])| {
            (format!("{family}/conf/{interface}/{name}"), guest[index])
        };
        found.extend(differing(&net, INTERFACE.into_iter().map(name)));
    }
    found.extend(of_interface(&net, LOOPBACK).filter(|(_, value)| value != NOT_FOR_LOOPBACK));
    found.extend(backlogs(&net));
    found
}

/// As [`of_namespace`], for these interfaces.
pub fn of_interfaces<'a>(interfaces: impl Iterator<Item = &'a str>) -> Sysctls {
    let Ok(net) = Directory::open(Path::new(NET)) else { return Sysctls::new() };
    let mut found = Sysctls::new();
    for interface in interfaces {
        found.extend(of_interface(&net, interface));
        let of_neighbours = ["ipv4", "ipv6"].into_iter().flat_map(|family| {
            NEIGHBOURS.map(|(name, guest)| (format!("{family}/neigh/{interface}/{name}"), guest))
        });
        found.extend(differing(&net, of_neighbours));
    }
    found
}

fn of_interface(net: &Directory, interface: &str) -> impl Iterator<Item = (String, String)> {
    let names = INTERFACE
        .into_iter()
        .map(move |(family, name, guest)| (format!("{family}/conf/{interface}/{name}"), guest[2]));
    differing(net, names)
}

/// Those of the names below `net/` that have another value than a guest's.
fn differing<'a>(
    net: &Directory,
    names: impl Iterator<Item = (String, &'a str)>,
) -> impl Iterator<Item = (String, String)> {
    names.filter_map(move |(name, guest)| {
        let value = net.read(&name).filter(|value| value != guest)?;
        Some((format!("net/{name}"), value))
    })
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

//! Which settings of the host's kernel a guest's kernel gets.

/// How a setting is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The guest combines it with the value that follows from its memory.
    Follows,
    /// It is sent if it differs from this value, which a guest has by itself.
    Differs(&'static str),
    /// It is sent if it is larger than this value, which a guest has by itself.
    Raises(i64),
    /// It is always sent; a host that does not have it counts as one that has this value.
    Always(&'static str),
}

use Kind::{Always, Differs, Follows, Raises};

/// The pattern that a guest has by itself.
pub const CORE_PATTERN: &str = "core";

/// Settings of the whole kernel, as paths below /proc/sys.
///
/// These settings are left out: those that concern the host alone (writeback, swap, panics, NUMA, logging), those that
/// weaken the guest's kernel (unprivileged BPF, kptr_restrict, dmesg_restrict, dumps of set-user-ID programs), and
/// those of an IPC namespace, which begin afresh in every container.
pub const KERNEL: [(&str, Kind); 62] = [
    ("fs/aio-max-nr", Differs("65536")),
    ("fs/epoll/max_user_watches", Follows),
    ("fs/fanotify/max_queued_events", Differs("16384")),
    ("fs/fanotify/max_user_groups", Differs("128")),
    ("fs/fanotify/max_user_marks", Follows),
    ("fs/inotify/max_queued_events", Differs("16384")),
    ("fs/inotify/max_user_instances", Differs("128")),
    ("fs/inotify/max_user_watches", Follows),
    ("fs/lease-break-time", Differs("45")),
    ("fs/leases-enable", Differs("1")),
    ("fs/mount-max", Differs("100000")),
    ("fs/nr_open", Raises(1_048_576)),
    ("fs/pipe-max-size", Differs("1048576")),
    ("fs/pipe-user-pages-hard", Differs("0")),
    ("fs/pipe-user-pages-soft", Differs("16384")),
    ("fs/protected_fifos", Differs("0")),
    ("fs/protected_hardlinks", Differs("1")),
    ("fs/protected_regular", Differs("0")),
    ("fs/protected_symlinks", Differs("1")),
    ("kernel/core_uses_pid", Differs("0")),
    ("kernel/domainname", Differs("(none)")),
    // These apply to containers without their own UTS namespace.
    ("kernel/hostname", Differs("(none)")),
    ("kernel/io_uring_disabled", Differs("0")),
    ("kernel/keys/maxbytes", Differs("20000")),
    ("kernel/keys/maxkeys", Differs("200")),
    ("kernel/keys/root_maxbytes", Differs("25000000")),
    ("kernel/keys/root_maxkeys", Differs("1000000")),
    ("kernel/perf_event_max_stack", Differs("127")),
    ("kernel/perf_event_mlock_kb", Differs("516")),
    ("kernel/perf_event_paranoid", Differs("2")),
    ("kernel/pid_max", Differs("32768")),
    ("kernel/pty/max", Differs("4096")),
    ("kernel/randomize_va_space", Differs("2")),
    ("kernel/sched_rr_timeslice_ms", Differs("100")),
    ("kernel/sched_rt_runtime_us", Differs("950000")),
    ("kernel/threads-max", Follows),
    ("kernel/unprivileged_userns_clone", Differs("1")),
    ("kernel/yama/ptrace_scope", Always("1")),
    ("net/core/busy_poll", Differs("0")),
    ("net/core/busy_read", Differs("0")),
    ("net/core/netdev_max_backlog", Differs("1000")),
    ("net/core/rmem_default", Differs("212992")),
    ("net/core/rmem_max", Differs("212992")),
    ("net/core/wmem_default", Differs("212992")),
    ("net/core/wmem_max", Differs("212992")),
    ("net/ipv4/neigh/default/gc_thresh1", Differs("128")),
    ("net/ipv4/neigh/default/gc_thresh2", Differs("512")),
    ("net/ipv4/neigh/default/gc_thresh3", Differs("1024")),
    ("net/ipv6/neigh/default/gc_thresh1", Differs("128")),
    ("net/ipv6/neigh/default/gc_thresh2", Differs("512")),
    ("net/ipv6/neigh/default/gc_thresh3", Differs("1024")),
    ("user/max_cgroup_namespaces", Follows),
    ("user/max_ipc_namespaces", Follows),
    ("user/max_mnt_namespaces", Follows),
    ("user/max_net_namespaces", Follows),
    ("user/max_pid_namespaces", Follows),
    ("user/max_time_namespaces", Follows),
    ("user/max_user_namespaces", Follows),
    ("user/max_uts_namespaces", Follows),
    ("vm/legacy_va_layout", Differs("0")),
    ("vm/max_map_count", Differs("65530")),
    ("vm/unprivileged_userfaultfd", Differs("0")),
];

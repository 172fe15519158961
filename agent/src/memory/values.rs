//! Values that the kernel derives from the memory once, at boot: the kernel's formulas (Linux 6.12), for the memory
//! that the guest has now. docs/settings.md has the same table for readers.

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Pages of a MiB and of a GiB.
const MIB: u64 = 256;
const GIB: u64 = 1024 * MIB;

/// sizeof(struct epitem) + sizeof(struct eppoll_entry): EP_ITEM_COST of fs/eventpoll.c.
const EPOLL_ITEM: u64 = 184;

/// sizeof(struct inode) of this kernel, and of what inotify adds to two of them: INOTIFY_WATCH_COST of
/// fs/notify/inotify/inotify_user.c.
const INODE: u64 = 608;
const INOTIFY_WATCH: u64 = 2 * INODE + 80;

/// sizeof(struct inet_peer), in whole cache lines.
const INET_PEER: u64 = 192;

/// 8 kernel stacks of 16 KiB, in pages: what a thread may cost (kernel/fork.c, set_max_threads).
const THREAD_PAGES: u64 = 32;

/// Smallest limit of threads. With less, a guest would have fewer threads than PIDs, which is a limit that hosts do not
/// have.
const MIN_THREADS: u64 = 32_768;

/// The memory of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Number of pages that the kernel manages: `totalram_pages()`.
    pub pages: u64,
}

impl Memory {
    /// The present memory, by /proc/meminfo.
    pub fn now() -> Self {
        // SAFETY: sysinfo is plain integers, for which zero is a value.
        let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the structure that it is given, and refuses nothing else.
        let _ = unsafe { libc::sysinfo(&raw mut info) };
        Self { pages: info.totalram * u64::from(info.mem_unit) / PAGE }
    }

    fn bytes(self) -> u64 {
        self.pages * PAGE
    }

    /// Whether the kernel would use transparent huge pages: mm/huge_memory.c, hugepage_init.
    pub fn has_huge_pages(self) -> bool {
        self.pages >= 512 * MIB
    }

    /// Kibibytes that the kernel keeps free without transparent huge pages: mm/page_alloc.c, calculate_min_free_kbytes.
    pub fn least_free_kib(self) -> u64 {
        (self.pages * 4 * 16).isqrt().clamp(128, 262_144)
    }

    /// `nr_free_buffer_pages()` at boot: the pages above the high watermarks, which khugepaged has raised by then
    /// (mm/khugepaged.c, set_recommended_min_free_kbytes).
    fn buffer_pages(self) -> u64 {
        let zones = if self.pages > 3 * GIB { 2 } else { 1 };
        let for_huge_pages = (zones * 11 * 512).min(self.pages / 20);
        let least = self.least_free_kib() / 4;
        let least = if self.has_huge_pages() { least.max(for_huge_pages) } else { least };
        self.pages - (least + 2 * (least / 4).max(self.pages / 1000)).min(self.pages)
    }

    /// Slots of the table "TCP established" (net/ipv4/tcp.c, tcp_init): one for each 128 KiB. The table itself keeps
    /// its size.
    fn tcp_slots(self) -> u64 {
        (self.pages.next_multiple_of(MIB) / 32).next_power_of_two().min(512 * 1024)
    }

    /// net/netfilter/nf_conntrack_core.c, nf_conntrack_init_start.
    fn conntrack_slots(self) -> u64 {
        match self.pages {
            pages if pages > 4 * GIB => 262_144,
            pages if pages > GIB => 65_536,
            _ => (self.bytes() / 16_384 / 8).max(1024).next_multiple_of(512),
        }
    }

    fn namespaces(self) -> u64 {
        self.pages / THREAD_PAGES / 2
    }
}

/// How a value of the node is combined with the value that follows from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The node's value is ignored, because the value limits memory of the guest.
    Ignored,
    /// The larger value holds: both only prevent one user from using up what others need.
    Raises,
    /// The larger value holds, except that 0 on the node turns something off.
    RaisesOrForbids,
    /// The node's value holds if somebody has set it.
    Replaces,
}

/// A value that follows memory.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Its path below /proc/sys.
    pub name: &'static str,
    /// How the node's value is combined with it.
    pub node: Node,
    /// The kernel's formula.
    pub of: fn(Memory) -> String,
}

const fn value(name: &'static str, node: Node, of: fn(Memory) -> String) -> Value {
    Value { name, node, of }
}

/// The values for low, pressure and high, as in tcp_init_mem and udp_init.
fn pressure(pages: u64) -> String {
    let limit = pages.max(128);
    format!("{} {limit} {}", limit / 4 * 3, limit / 4 * 3 * 2)
}

/// Largest number of bytes of one socket's buffer: 1/128 of the memory.
fn socket_share(memory: Memory) -> u64 {
    memory.buffer_pages() * PAGE / 128
}

/// All values except [`CONNTRACK`].
pub const VALUES: [Value; 25] = [
    value("kernel/threads-max", Node::Raises, |m| (m.pages / THREAD_PAGES).max(MIN_THREADS).to_string()),
    value("fs/epoll/max_user_watches", Node::Raises, |m| (m.pages / 25 * PAGE / EPOLL_ITEM).to_string()),
    value("fs/inotify/max_user_watches", Node::Raises, |m| {
        (m.pages / 100 * PAGE / INOTIFY_WATCH).clamp(8192, 1_048_576).to_string()
    }),
    value("fs/fanotify/max_user_marks", Node::Raises, |m| {
        (m.pages / 100 * PAGE / (2 * INODE)).clamp(8192, 1_048_576).to_string()
    }),
    value("user/max_user_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_pid_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_uts_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_ipc_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_net_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_mnt_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_cgroup_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("user/max_time_namespaces", Node::RaisesOrForbids, |m| m.namespaces().to_string()),
    value("net/ipv4/tcp_mem", Node::Ignored, |m| pressure(m.buffer_pages() / 16)),
    value("net/ipv4/udp_mem", Node::Ignored, |m| pressure(m.buffer_pages() / 8)),
    value("net/ipv4/tcp_max_orphans", Node::Ignored, |m| (m.tcp_slots() / 2).to_string()),
    value("net/ipv4/tcp_max_tw_buckets", Node::Replaces, |m| (m.tcp_slots() / 2).to_string()),
    value("net/ipv4/tcp_max_syn_backlog", Node::Replaces, |m| (m.tcp_slots() / 128).max(128).to_string()),
    value("net/ipv4/tcp_rmem", Node::Replaces, |m| {
        format!("4096 131072 {}", socket_share(m).clamp(131_072, 6 << 20))
    }),
    value("net/ipv4/tcp_wmem", Node::Replaces, |m| {
        format!("4096 16384 {}", socket_share(m).clamp(65_536, 4 << 20))
    }),
    value("net/ipv4/inet_peer_threshold", Node::Ignored, |m| {
        (m.bytes() / (100 * INET_PEER)).clamp(4096, 65_664).to_string()
    }),
    value("net/ipv4/vs/sync_qlen_max", Node::Ignored, |m| (m.buffer_pages() / 32).to_string()),
    value("net/netfilter/nf_conntrack_max", Node::Ignored, |m| m.conntrack_slots().to_string()),
    value("net/netfilter/nf_conntrack_expect_max", Node::Ignored, |m| {
        ((m.conntrack_slots() / 256).max(1) * 4).to_string()
    }),
    // As without huge pages: the kernel would keep 22 MiB of each zone free for them, which the limits of containers do not
    // provide for.
    value("vm/min_free_kbytes", Node::Ignored, |m| m.least_free_kib().to_string()),
    value("vm/user_reserve_kbytes", Node::Ignored, |m| (m.pages * 4 / 32).min(1 << 17).to_string()),
];

/// The table of tracked connections. The kernel takes its memory when it is set, so it is set only if a container may
/// set up connection tracking.
pub const CONNTRACK: Value =
    value("net/netfilter/nf_conntrack_buckets", Node::Ignored, |m| m.conntrack_slots().to_string());

impl Value {
    /// The value for a guest with this memory, on a node with this setting.
    pub fn with(&self, memory: Memory, node: Option<&str>) -> String {
        let derived = (self.of)(memory);
        let Some(node) = node else { return derived };
        let larger = |node: &str| match (node.parse::<u64>(), derived.parse::<u64>()) {
            (Ok(node), Ok(derived)) => node.max(derived).to_string(),
            _ => derived.clone(),
        };
        match self.node {
            Node::Ignored => derived,
            Node::Replaces => node.to_owned(),
            Node::RaisesOrForbids if node == "0" => node.to_owned(),
            Node::Raises | Node::RaisesOrForbids => larger(node),
        }
    }
}

#[cfg(test)]
#[path = "values_test.rs"]
mod tests;

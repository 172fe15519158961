//! `stockade update`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::life_cycle::{self, Handle};
use crate::options::Globals;
use crate::text::bytes;

/// Largest file with resources that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Change the limits of a container.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade update --memory 512m --pids-limit 100 web
  stockade update --resources resources.json web

The limits hold in the container's VM; weights and CPU sets also hold for the VM on the host. A memory limit cannot \
exceed the VM's RAM, which is set when the container is created.")]
pub struct Update {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// File with linux.resources in the form of config.json, or - for standard input; other options then have no effect
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitOptions,
    /// Refused: Intel RDT is not applied to containers
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Refused: Intel RDT is not applied to containers
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// No effect: the kernel's memory counts as the container's
    #[arg(long, value_name = "BYTES")]
    kernel_memory: Option<String>,
    /// No effect: the kernel's memory counts as the container's
    #[arg(long, value_name = "BYTES")]
    kernel_memory_tcp: Option<String>,
}

/// Options that change one limit each.
#[derive(Debug, Args)]
struct LimitOptions {
    /// Weight of input and output, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time per period, in microseconds; -1 means no limit
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Unused CPU time that may be saved and used later, in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// CPU shares, relative to other containers; the default is 1024
    #[arg(long, value_name = "SHARES", alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// No effect: cgroup v2 has no limit for real-time tasks
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// No effect: cgroup v2 has no limit for real-time tasks
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs of the host on which the VM may run, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes of the host from which the VM gets memory, such as 0
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// 1: the container runs only when nothing else wants to run; 0: it runs as usual
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Memory limit, such as 512m; -1 means no limit other than the VM's RAM
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse_limit, allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Memory that the kernel takes from the container last, when it is short of memory
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse_limit, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1 means no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse_limit, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Largest number of processes; -1 means no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
}

impl Update {
    /// Changes the limits.
    ///
    /// # Errors
    /// What is wrong with a limit, or why it cannot be changed; in that case all limits stay as they were.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::lock(globals, &self.id)?;
        handle.relay()?;
        let refused =
            [("--l3-cache-schema", &self.l3_cache_schema), ("--mem-bw-schema", &self.mem_bw_schema)];
        if let Some((name, _)) = refused.iter().find(|(_, given)| given.is_some()) {
            anyhow::bail!("{name}: Intel RDT is not applied to containers");
        }
        self.mention_unused();
        let resources = match &self.resources {
            Some(path) => {
                tracing::debug!("with --resources other options have no effect");
                read(path).with_context(|| format!("--resources {}", path.display()))?
            }
            None => self.limits.resources(),
        };
        life_cycle::update(&handle, &resources)
    }

    fn mention_unused(&self) {
        let unused =
            [("--kernel-memory", &self.kernel_memory), ("--kernel-memory-tcp", &self.kernel_memory_tcp)];
        for (name, _) in unused.iter().filter(|(_, given)| given.is_some()) {
            tracing::debug!("{name} has no effect");
        }
    }
}

impl LimitOptions {
    fn resources(self) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory).set_reservation(self.memory_reservation).set_swap(self.memory_swap);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share)
            .set_quota(self.cpu_quota)
            .set_period(self.cpu_period)
            .set_burst(self.cpu_burst)
            .set_idle(self.cpu_idle)
            .set_realtime_runtime(self.cpu_rt_runtime)
            .set_realtime_period(self.cpu_rt_period)
            .set_cpus(self.cpuset_cpus)
            .set_mems(self.cpuset_mems);
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(self.blkio_weight);
        let pids = self.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        });
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(Some(block_io)).set_pids(pids);
        resources
    }
}

fn read(path: &Path) -> anyhow::Result<LinuxResources> {
    let mut text = Vec::new();
    let source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    source.take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        anyhow::bail!("it is longer than {LIMIT} bytes");
    }
    Ok(serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text))?)
}

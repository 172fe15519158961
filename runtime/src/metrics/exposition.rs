//! The families of metrics, and their text.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use stockade_protocol::vmm::DeviceFailure;

use super::Sandbox;
use crate::stats::CgroupFiles;
use crate::text::table::printable;

/// Largest number of devices of a container whose I/O is shown: a guest could name any number.
const MAX_DEVICES: usize = 64;

/// The prefix of every name.
const PREFIX: &str = "stockade";

type Labels = Vec<(&'static str, String)>;

/// The text of the metrics of these sandboxes.
pub fn text(sandboxes: &[Sandbox]) -> String {
    let mut families = Families::default();
    sandboxes.iter().for_each(|sandbox| families.add_sandbox(sandbox));
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(families));
    let mut text = String::new();
    // Writing to a String cannot fail, and no family has a form that the encoder lacks.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, f64)>,
}

/// Families in the order in which their first sample came.
#[derive(Debug, Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, (name, unit, kind, help): Kind, labels: &Labels, value: f64) {
        let index = self.0.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.0.push(Family { name, help, unit: unit.map(|unit| unit()), kind, samples: Vec::new() });
            self.0.len() - 1
        });
        self.0[index].samples.push((labels.clone(), value));
    }

    fn add_sandbox(&mut self, sandbox: &Sandbox) {
        let subject = &sandbox.subject;
        let labels: Labels = vec![("sandbox", subject.id.clone())];
        let answers = sandbox.stats.is_some() && sandbox.containers.is_some();
        self.add(UP, &labels, f64::from(u8::from(answers)));
        let created = subject.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.add(START_TIME, &labels, created.as_secs_f64());
        if let Some(mib) = sandbox.memory_mib {
            self.add(MEMORY, &labels, f64::from(mib) * f64::from(1 << 20));
        }
        if let Some(stats) = &sandbox.stats {
            self.add(GUEST_RESIDENT, &labels, stats.guest_kib as f64 * 1024.0);
            self.add(VMM_RESIDENT, &labels, stats.overhead_kib as f64 * 1024.0);
        }
        for thread in &sandbox.threads {
            let labels = with(&labels, "thread", printable(&thread.name));
            self.add(VMM_CPU, &labels, thread.cpu_ms as f64 / 1e3);
        }
        for DeviceFailure { device, cause, count } in sandbox.failures.iter().take(MAX_DEVICES) {
            let labels = with(&labels, "device", printable(device));
            let labels = with(&labels, "cause", printable(cause));
            self.add(DEVICE_FAILURES, &labels, f64::from(*count));
        }
        for line in sandbox.interfaces.lines() {
            let Some((name, counters)) = line.split_once(':') else { continue };
            let labels = with(&labels, "interface", name.trim().to_owned());
            let counters: Vec<u64> =
                counters.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            // The order of /proc/net/dev: eight counters of what came, and then of what went.
            let columns = [
                (NETWORK_RECEIVED, 0),
                (NETWORK_RECEIVED_PACKETS, 1),
                (NETWORK_RECEIVE_DROPS, 3),
                (NETWORK_SENT, 8),
                (NETWORK_SENT_PACKETS, 9),
                (NETWORK_SEND_DROPS, 11),
            ];
            for (family, column) in columns {
                if let Some(count) = counters.get(column) {
                    self.add(family, &labels, *count as f64);
                }
            }
        }
        for (id, files) in sandbox.containers.iter().flatten() {
            self.add_container(&with(&labels, "container", id.to_string()), files);
        }
    }

    fn add_container(&mut self, labels: &Labels, files: &CgroupFiles) {
        let seconds = |us: u64| us as f64 / 1e6;
        let cpu = files.keyed("cpu.stat");
        for (mode, key) in [("user", "user_usec"), ("system", "system_usec")] {
            if let Some(us) = cpu.get(key) {
                self.add(CPU, &with(labels, "mode", mode.to_owned()), seconds(*us));
            }
        }
        if let Some(us) = cpu.get("throttled_usec") {
            self.add(CPU_THROTTLED, labels, seconds(*us));
        }
        let sizes = [
            (CONTAINER_MEMORY, "memory.current"),
            (CONTAINER_MEMORY_LIMIT, "memory.max"),
            (CONTAINER_MEMORY_PEAK, "memory.peak"),
            (CONTAINER_SWAP, "memory.swap.current"),
            (PROCESSES, "pids.current"),
            (PROCESSES_LIMIT, "pids.max"),
        ];
        for (family, file) in sizes {
            // Without a limit there is no sample.
            if let Some(number) = files.number(file) {
                self.add(family, labels, number as f64);
            }
        }
        if let Some(kills) = files.keyed("memory.events").get("oom_kill") {
            self.add(OOM_KILLS, labels, *kills as f64);
        }
        for io in files.io().into_iter().take(4 * MAX_DEVICES) {
            let family = match io.key.as_str() {
                "rbytes" => IO_READ,
                "wbytes" => IO_WRITTEN,
                "rios" => IO_READS,
                "wios" => IO_WRITES,
                _ => continue,
            };
            let device = format!("{}:{}", io.major, io.minor);
            self.add(family, &with(labels, "device", device), io.value as f64);
        }
        for resource in ["cpu", "memory", "io"] {
            let Some(shares) = files.pressure(&format!("{resource}.pressure")) else { continue };
            for (share, pressure) in ["some", "full"].into_iter().zip(shares) {
                let labels = with(labels, "resource", resource.to_owned());
                self.add(PRESSURE, &with(&labels, "share", share.to_owned()), seconds(pressure.total_us));
            }
        }
    }
}

fn with(labels: &Labels, name: &'static str, value: String) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

/// Name, unit, type, help.
type Kind = (&'static str, Option<fn() -> Unit>, MetricType, &'static str);

const fn gauge(name: &'static str, unit: Option<fn() -> Unit>, help: &'static str) -> Kind {
    (name, unit, MetricType::Gauge, help)
}

const fn counter(name: &'static str, unit: Option<fn() -> Unit>, help: &'static str) -> Kind {
    (name, unit, MetricType::Counter, help)
}

const BYTES: Option<fn() -> Unit> = Some(|| Unit::Bytes);
const SECONDS: Option<fn() -> Unit> = Some(|| Unit::Seconds);

const UP: Kind = gauge("sandbox_up", None, "Whether the sandbox's VMM and agent answer");
const START_TIME: Kind = gauge("sandbox_start_time", SECONDS, "When the sandbox was created, as UNIX time");
const MEMORY: Kind = gauge("sandbox_memory", BYTES, "RAM of the VM, whether in use or not");
const GUEST_RESIDENT: Kind = gauge("guest_resident", BYTES, "RAM of the VM that the host has backed");
const VMM_RESIDENT: Kind =
    gauge("vmm_resident", BYTES, "Resident memory of the VMM and its file server besides the VM's RAM");
const VMM_CPU: Kind = counter(
    "vmm_cpu",
    SECONDS,
    "CPU time of the VMM's threads and of its file server; a vCPU's includes the guest's",
);
const DEVICE_FAILURES: Kind = counter(
    "device_failures",
    None,
    "How often a device of the VM has failed, with the cause of the last failure",
);
const NETWORK_RECEIVED: Kind = counter(
    "network_receive",
    BYTES,
    "Bytes that came by an interface of the sandbox's network namespace on the host",
);
const NETWORK_RECEIVED_PACKETS: Kind =
    counter("network_receive_packets", None, "Packets that came by an interface");
const NETWORK_RECEIVE_DROPS: Kind =
    counter("network_receive_drops", None, "Packets that came by an interface and were dropped");
const NETWORK_SENT: Kind = counter("network_transmit", BYTES, "Bytes that were sent by an interface");
const NETWORK_SENT_PACKETS: Kind =
    counter("network_transmit_packets", None, "Packets that were sent by an interface");
const NETWORK_SEND_DROPS: Kind =
    counter("network_transmit_drops", None, "Packets that were dropped before an interface sent them");
const CPU: Kind = counter("container_cpu", SECONDS, "CPU time of the container's processes in the guest");
const CPU_THROTTLED: Kind =
    counter("container_cpu_throttled", SECONDS, "Time in which the container's CPU limit held it back");
const CONTAINER_MEMORY: Kind = gauge("container_memory", BYTES, "Memory of the container, caches included");
const CONTAINER_MEMORY_LIMIT: Kind =
    gauge("container_memory_limit", BYTES, "Memory limit of the container, if it has one");
const CONTAINER_MEMORY_PEAK: Kind =
    gauge("container_memory_peak", BYTES, "Largest memory of the container so far");
const CONTAINER_SWAP: Kind = gauge("container_swap", BYTES, "Swapped memory of the container");
const OOM_KILLS: Kind = counter("container_oom_kills", None, "Processes that were killed for want of memory");
const PROCESSES: Kind = gauge("container_processes", None, "Processes and threads of the container");
const PROCESSES_LIMIT: Kind =
    gauge("container_processes_limit", None, "Limit of the container's processes and threads, if it has one");
const IO_READ: Kind = counter("container_io_read", BYTES, "Bytes read from a block device of the guest");
const IO_WRITTEN: Kind =
    counter("container_io_written", BYTES, "Bytes written to a block device of the guest");
const IO_READS: Kind = counter("container_io_reads", None, "Read operations on a block device of the guest");
const IO_WRITES: Kind =
    counter("container_io_writes", None, "Write operations on a block device of the guest");
const PRESSURE: Kind = counter(
    "container_pressure",
    SECONDS,
    "Time in which some or all processes of the container waited for a resource",
);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, value) in &family.samples {
                let mut sample = metric.encode_family(labels)?;
                match family.kind {
                    MetricType::Counter => {
                        sample.encode_counter(value, None::<&Exemplar<Labels, f64>>)?;
                    }
                    _ => sample.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "exposition_test.rs"]
mod tests;

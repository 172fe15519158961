//! What is run and compared: one bundle, under stockade, under runtimes of the host's kernel, and its kernel in QEMU.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{built, text};

use crate::io::{Costs, Io, SCRATCH};
use crate::measure::{Between, Run, output_rate};
use crate::network::{Figures, Network};
use crate::{pod, stage};

/// What the container writes whose output rate is measured, in bytes.
const FLOOD_BYTES: u64 = 32 << 20;

/// Sizes of the microVM.
#[derive(Clone, Copy)]
pub enum Sizes {
    /// 128 MiB.
    Small,
    /// What `stockade run` takes without a limit.
    Default,
    /// 128 MiB, as a clone of a template.
    SmallClone,
    /// The same for what it takes without a limit.
    DefaultClone,
}

/// TSC readings of one `stockade run`, counted from its exec.
pub struct Stockade {
    /// The runtime starts the VMM.
    pub vmm_start: u64,
    /// The VMM's main begins.
    pub vmm_main: u64,
    /// The vCPU runs its first instruction.
    pub vmm_run: u64,
    /// The agent's first instruction.
    pub agent: u64,
    /// The agent is asked to build the container.
    pub create: u64,
    /// It has said that the container is built.
    pub created: u64,
    /// The container's first instruction.
    pub container: u64,
    /// `stockade run` has ended.
    pub end: u64,
    /// What of all that was work and what waiting.
    pub between: Between,
    /// The VMM's resident memory without guest RAM, in KiB.
    pub vmm_kib: u64,
}

/// Everything that is measured, in memory.
pub struct Scenario {
    bundle: Bundle,
    flood: Bundle,
    network: Network,
    directory: PathBuf,
    initramfs: PathBuf,
}

impl Scenario {
    /// Copies what is measured to memory.
    pub fn prepare() -> Result<Self> {
        let files = [
            "release/stockade",
            "release/stockade-vmm",
            "release/containerd-shim-stockade-v2",
            "guest/vmlinux",
            "guest/initramfs",
            "x86_64-unknown-linux-gnu/release/bench-first",
            "x86_64-unknown-linux-gnu/release/bench-peer",
            "x86_64-unknown-linux-gnu/release/bench-stat",
        ]
        .map(built);
        let mut files: Vec<&str> = files.iter().map(|path| text(path)).collect();
        files.extend(["/etc/ld.so.cache", "/bin/busybox"]);
        files.extend(pod::FILES);
        let mut programs =
            vec!["crun", "runc", "qemu-system-x86_64", "sh", "cpio", "mkdir", "mknod", "find", "ip"];
        programs.extend(pod::PROGRAMS);
        stage::enter(&programs, &files, &[&["/usr/share/qemu"], &pod::DIRECTORIES[..]].concat())?;

        let directory = PathBuf::from("/tmp/bench");
        fs::create_dir_all(&directory)?;
        for (name, config) in [("small", "memory_mib = 128\n"), ("default", "")] {
            let scratch =
                format!("allowed_annotations = [{SCRATCH:?}]\n[scratch]\ndirectory = {directory:?}\n");
            fs::write(directory.join(name), format!("{config}templates = \"off\"\n{scratch}"))?;
            fs::write(directory.join(format!("{name}-clone")), format!("{config}{scratch}"))?;
        }
        let first = built("x86_64-unknown-linux-gnu/release/bench-first");
        let bundle = Bundle::busybox(&["/first"]);
        fs::copy(&first, bundle.rootfs().join("first"))?;

        let flood =
            Bundle::busybox(&["dd", "if=/dev/zero", "bs=64k", &format!("count={}", FLOOD_BYTES >> 16)]);

        let network = Network::prepare(&built("x86_64-unknown-linux-gnu/release/bench-peer"))?;

        let initramfs = directory.join("initramfs");
        fs::create_dir_all(directory.join("root"))?;
        fs::copy(&first, directory.join("root/init"))?;
        let script = "mkdir -p dev && mknod dev/console c 5 1 && find . | cpio -o -H newc --quiet";
        let cpio = Command::new("sh").args(["-c", script]).current_dir(directory.join("root")).output()?;
        fs::write(&initramfs, cpio.stdout)?;
        Ok(Self { bundle, flood, network, directory, initramfs })
    }

    /// Makes the template of this size.
    pub fn make_template(&self, size: Sizes) -> Result<()> {
        let output = self.command(size).args(["template", "build"]).output()?;
        if !output.status.success() {
            bail!("stockade template build: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn command(&self, size: Sizes) -> Command {
        let mut command = Command::new(built("release/stockade"));
        let config = match size {
            Sizes::Small => "small",
            Sizes::Default => "default",
            Sizes::SmallClone => "small-clone",
            Sizes::DefaultClone => "default-clone",
        };
        command.env("STOCKADE_CONFIG", self.directory.join(config));
        command.arg("--root").arg(self.directory.join("state"));
        command
    }

    /// One `stockade run` as a user runs it, without a log of what it does: what of it is work and what waiting.
    pub fn quiet(&self, size: Sizes) -> Result<Between> {
        let mut command = self.command(size);
        Ok(Run::of(command.args(["run", "--bundle", text(self.bundle.path()), "bench"]))?.between)
    }

    /// One `stockade run`, with figures of its stages.
    pub fn stockade(&self, size: Sizes) -> Result<Stockade> {
        let log = self.directory.join("log");
        let _ = fs::remove_file(&log);
        let mut command = self.command(size);
        command.args(["--log-format", "json", "--log-level", "debug", "--log", text(&log)]);
        command.args(["run", "--bundle", text(self.bundle.path()), "bench"]);
        let run = Run::of(&mut command)?;
        let log = fs::read_to_string(&log)?;
        let figure = |name: &str| -> Result<u64> {
            for line in log.lines() {
                let line: Value = serde_json::from_str(line).context("stockade's log")?;
                if let Some(number) = line[name].as_u64() {
                    return Ok(number);
                }
            }
            bail!("stockade's debug log has no {name}:\n{log}")
        };
        let offset = figure("tsc_offset")?;
        let since = |tsc: u64| tsc.wrapping_sub(run.start);
        // Asking the VMM for these figures, after the agent's first instruction, is no part of a start.
        let asking = figure("asking_tsc")?;
        let since_then = |tsc: u64| since(tsc) - asking;
        Ok(Stockade {
            vmm_start: since(figure("vmm_start_tsc")?),
            vmm_main: since(figure("vmm_entry_tsc")?),
            vmm_run: since(figure("vmm_run_tsc")?),
            agent: since(figure("agent_entry_tsc")?.wrapping_sub(offset)),
            create: since_then(figure("create_tsc")?),
            created: since_then(figure("created_tsc")?),
            container: since_then(run.first_tsc()?.wrapping_sub(offset)),
            end: since_then(run.end),
            between: run.between,
            vmm_kib: figure("vmm_overhead_kib")?,
        })
    }

    fn runtime(&self, host_runtime: Option<&str>) -> Command {
        match host_runtime {
            None => self.command(Sizes::Default),
            Some(program) => {
                let mut command = Command::new(program);
                command.arg("--root").arg(self.directory.join(program));
                command
            }
        }
    }

    /// TCP between the host and a container, under stockade or under a runtime of the host's own kernel.
    pub fn network(&self, host_runtime: Option<&str>) -> Result<Figures> {
        self.network.measure(&mut self.runtime(host_runtime))
    }

    /// What commands in a container cost that read and write files, and that write to their output.
    pub fn io(&self, host_runtime: Option<&str>) -> Result<Costs> {
        let io = Io::prepare(&built("x86_64-unknown-linux-gnu/release/bench-stat"))?;
        io.measure(|| self.runtime(host_runtime), host_runtime.is_none())
    }

    /// One run under a runtime of the host's own kernel: the container's first instruction, and all of it.
    pub fn host_runtime(&self, program: &str) -> Result<(u64, Between)> {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.directory.join(program));
        let run = Run::of(command.args(["run", "--bundle", text(self.bundle.path()), "bench"]))?;
        Ok((run.first_tsc()? - run.start, run.between))
    }

    /// From exec to end of a `create` under a runtime of the host's own kernel, the container being deleted again.
    pub fn host_create(&self, program: &str) -> Result<u64> {
        let root = self.directory.join(program);
        let command = |args: &[&str]| {
            let mut command = Command::new(program);
            command.arg("--root").arg(&root).args(args);
            command
        };
        // The created container would keep piped output open.
        let mut create = command(&["create", "--bundle", text(self.bundle.path()), "bench"]);
        let run = Run::detached(&mut create)?;
        Run::of(&mut command(&["delete", "--force", "bench"]))?;
        Ok(run)
    }

    /// What a container writes to its standard output under stockade, and under a runtime of the host's own kernel: bytes
    /// and TSC ticks.
    pub fn output(&self, host_runtime: Option<&str>) -> Result<(u64, u64)> {
        let mut command = self.runtime(host_runtime);
        let (bytes, ticks) =
            output_rate(command.args(["run", "--bundle", text(self.flood.path()), "flood"]))?;
        if bytes != FLOOD_BYTES {
            bail!("{bytes} bytes came of {FLOOD_BYTES}");
        }
        Ok((bytes, ticks))
    }

    /// The same kernel and the same program as init under nested QEMU: its first output, and all of it.
    ///
    /// The guest's TSC has an unknown offset there, so the first column is when the line reaches QEMU's console.
    pub fn qemu(&self) -> Result<(u64, Between)> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "microvm,acpi=off,rtc=on", "-accel", "kvm", "-cpu", "host", "-m", "128"]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        command.args(["-kernel", text(&built("guest/vmlinux")), "-initrd", text(&self.initramfs)]);
        // The init returns, so the kernel panics, and a panic reboots, which ends QEMU.
        command.args(["-append", "console=ttyS0 quiet panic=-1 reboot=t"]);
        crate::measure::first_output(&mut command, "TSC=")
    }

    /// The guest kernel's log after a boot with more kernel parameters.
    pub fn kernel_log(&self, parameters: &str) -> Result<String> {
        let config = self.directory.join("debug");
        fs::write(&config, format!("memory_mib = 128\nkernel_parameters = {parameters:?}\n"))?;
        let bundle = Bundle::busybox(&["dmesg"]).edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
            }
        });
        let mut command = self.command(Sizes::Small);
        command.env("STOCKADE_CONFIG", config);
        Ok(Run::of(command.args(["run", "--bundle", text(bundle.path()), "log"]))?.stdout)
    }
}

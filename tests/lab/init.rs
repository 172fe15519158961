//! PID 1 of the lab: `tests/lab/run` boots a kernel whose root is this machine's root, read-only, and which
//! starts this program with the job that lies beside it. It makes that root a writable system, runs the
//! job's command in it and ends the machine with the command.
//!
//! ```text
//! ports of the machine   stdout, stderr   what the command writes, as it comes
//!                        status           its exit status in decimal; nothing when the lab itself failed
//! files of the job       argv, env        each entry ended by a NUL
//!                        cwd, checkout    one path
//!                        systemd          there if systemd is to run it
//! ```
//!
//! With systemd this program becomes systemd once the system is writable, and runs again as a service of it.
//!
//! What it has to say itself goes to the console, which the caller sees when there is no status.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::{Pid, chroot, sethostname, setsid, sync};

mod systemd;

const JOB: &str = "/run/stockade-lab";
/// The argument with which systemd runs this program.
const AS_SERVICE: &str = "service";
const CHECKOUT_TAG: &str = "checkout";
/// Directories that start empty: engines keep their state there, and the machine's own content would be in the way.
const FRESH: [(&str, u32); 7] = [
    ("/dev/shm", 0o1777),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/var/lib/containerd", 0o755),
    ("/var/lib/containers", 0o755),
    ("/var/lib/docker", 0o755),
];

fn main() {
    let is_service = std::env::args().nth(1).is_some_and(|argument| argument == AS_SERVICE);
    let outcome = if is_service { run_service() } else { run_machine() };
    if let Err(error) = outcome {
        eprintln!("lab-init: {error:#}");
    }
    sync();
    // With -no-reboot the reset that this is ends the emulator.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn run_machine() -> Result<()> {
    let job = Job::read(Path::new(JOB))?;
    mount_writable_root()?;
    mount_api_file_systems()?;
    for (target, mode) in FRESH {
        mount_at("tmpfs", target, "tmpfs", &format!("mode={mode:o}"))?;
    }
    mount_at(CHECKOUT_TAG, &job.checkout, "virtiofs", "")?;
    loopback_up()?;
    // As udev leaves them.
    for device in ["/dev/kvm", "/dev/net/tun"] {
        fs::set_permissions(device, fs::Permissions::from_mode(0o666)).context(device)?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    sethostname("lab")?;
    configure()?;
    if job.systemd {
        job.write(Path::new(JOB))?;
        return systemd::become_systemd(Path::new(JOB));
    }
    delegate_cgroups()?;
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1 << 20)?;
    setsid()?;
    job.report()
}

/// Engines have no other configuration than the system's: where a start had a template made, what a test finds on the host would
/// depend on how long that takes.
fn configure() -> Result<()> {
    fs::create_dir_all("/etc/stockade").context("/etc/stockade")?;
    fs::write("/etc/stockade/config.toml", "templates = \"prebuilt\"\n").context("config.toml")
}

fn run_service() -> Result<()> {
    Job::read(Path::new(JOB))?.report()
}

struct Job {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    checkout: PathBuf,
    systemd: bool,
}

impl Job {
    fn read(dir: &Path) -> Result<Self> {
        let file = |name: &str| fs::read(dir.join(name)).with_context(|| format!("the job's file {name}"));
        let split_variable = |entry: OsString| {
            let at = entry.as_bytes().iter().position(|&byte| byte == b'=').unwrap_or(entry.len());
            let (name, value) = entry.as_bytes().split_at(at);
            let value = value.strip_prefix(b"=").unwrap_or(value);
            (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned())
        };
        Ok(Self {
            argv: nul_terminated(&file("argv")?),
            env: nul_terminated(&file("env")?).into_iter().map(split_variable).collect(),
            cwd: PathBuf::from(OsString::from_vec(file("cwd")?)),
            checkout: PathBuf::from(OsString::from_vec(file("checkout")?)),
            systemd: dir.join("systemd").exists(),
        })
    }

    /// Writes it where [`Job::read`] finds it when the machine's own /run is covered.
    fn write(&self, dir: &Path) -> Result<()> {
        let joined = |entries: &mut dyn Iterator<Item = OsString>| {
            entries.flat_map(|entry| [entry.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
        };
        let variables = self.env.iter().map(|(name, value)| [name.as_os_str(), value].join(OsStr::new("=")));
        fs::create_dir(dir)?;
        fs::write(dir.join("argv"), joined(&mut self.argv.iter().cloned()))?;
        fs::write(dir.join("env"), joined(&mut { variables }))?;
        fs::write(dir.join("cwd"), self.cwd.as_os_str().as_bytes())?;
        fs::write(dir.join("checkout"), self.checkout.as_os_str().as_bytes())?;
        Ok(())
    }

    /// Runs the command and hands its output and its exit status out of the machine.
    fn report(&self) -> Result<()> {
        let ports = Ports::open()?;
        let status = self.run(ports.stdout, ports.stderr)?;
        write!(&ports.status, "{status}").context("cannot report the exit status")
    }

    /// Runs the command to its end and returns its exit status as a shell gives it.
    fn run(&self, stdout: File, mut stderr: File) -> Result<i32> {
        let Some((program, arguments)) = self.argv.split_first() else { bail!("the job has no command") };
        // Pipes between the command and the ports: a port can be opened once only, which would break
        // whatever opens /dev/stdout.
        let (stdout_reader, stdout_writer) = std::io::pipe()?;
        let (stderr_reader, stderr_writer) = std::io::pipe()?;
        let cwd = if self.cwd.is_dir() { &self.cwd } else { Path::new("/") };
        let spawned = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            .spawn();
        let child = match spawned {
            Ok(child) => Pid::from_raw(child.id().try_into()?),
            Err(error) => {
                writeln!(stderr, "lab: cannot run {}: {error}", program.display())?;
                return Ok(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
            }
        };
        let pumps = [(stdout_reader, stdout), (stderr_reader, stderr)]
            .map(|(reader, port)| thread::spawn(move || pump(reader, port)));
        let status = loop {
            match wait()? {
                WaitStatus::Exited(pid, code) if pid == child => break code,
                WaitStatus::Signaled(pid, signal, _) if pid == child => break 128 + signal as i32,
                _ => {}
            }
        };
        // What the command left behind may hold its pipes open.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while waitpid(None, None).is_ok() {}
        for pump in pumps {
            if let Ok(result) = pump.join() {
                result.context("output was lost")?;
            }
        }
        Ok(status)
    }
}

fn nul_terminated(bytes: &[u8]) -> Vec<OsString> {
    let mut entries: Vec<_> =
        bytes.split(|&byte| byte == 0).map(|e| OsStr::from_bytes(e).to_owned()).collect();
    entries.pop();
    entries
}

fn pump(mut reader: PipeReader, mut port: File) -> std::io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            length => port.write_all(&buffer[..length])?,
        }
    }
}

fn mount_at(source: &str, target: impl AsRef<Path>, fstype: &str, data: &str) -> Result<()> {
    let target = target.as_ref();
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    mount(Some(source), target, Some(fstype), MsFlags::empty(), Some(data))
        .with_context(|| format!("cannot mount {fstype} at {}", target.display()))
}

fn mount_writable_root() -> Result<()> {
    mount_at("tmpfs", "/mnt", "tmpfs", "mode=755,size=75%")?;
    for dir in ["/mnt/upper", "/mnt/work", "/mnt/root"] {
        fs::create_dir(dir)?;
    }
    mount_at("overlay", "/mnt/root", "overlay", "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work")?;
    std::env::set_current_dir("/mnt/root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the root")?;
    chroot(".").context("cannot enter the root")?;
    // As systemd leaves it: a mount that leaks out of a container must show here too.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("cannot share the root's mounts")
}

fn mount_api_file_systems() -> Result<()> {
    mount_at("proc", "/proc", "proc", "")?;
    mount_at("sysfs", "/sys", "sysfs", "")?;
    mount_at("devtmpfs", "/dev", "devtmpfs", "mode=755")?;
    mount_at("devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666")?;
    mount_at("mqueue", "/dev/mqueue", "mqueue", "")?;
    mount_at("hugetlbfs", "/dev/hugepages", "hugetlbfs", "")?;
    mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot")?;
    mount_at("bpf", "/sys/fs/bpf", "bpf", "")?;
    symlink("/proc/self/fd", "/dev/fd")?;
    for (fd, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        symlink(format!("/proc/self/fd/{fd}"), format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Enables every controller below the root; this process and its command live in a leaf of their own.
fn delegate_cgroups() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).context("cgroup.controllers")?;
    let enable: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), enable.join(" ")).context("cgroup.subtree_control")?;
    fs::create_dir(root.join("lab"))?;
    fs::write(root.join("lab/cgroup.procs"), "1").context("lab/cgroup.procs")
}

fn loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a valid value of the plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    nix::errno::Errno::result(result).context("cannot bring lo up")?;
    Ok(())
}

/// The machine's virtio-serial ports, known by the numbers that `tests/lab/run` gives them.
struct Ports {
    stdout: File,
    stderr: File,
    status: File,
}

impl Ports {
    fn open() -> Result<Self> {
        // The kernel adds ports as the host announces them, which may be after PID 1 has started.
        let inotify = Inotify::init(InitFlags::empty())?;
        inotify.add_watch("/dev", AddWatchFlags::IN_CREATE)?;
        let mut nodes = HashMap::new();
        loop {
            for entry in fs::read_dir("/dev")? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if let Some((_, number)) = name.strip_prefix("vport").and_then(|name| name.split_once('p')) {
                    nodes.insert(number.to_owned(), path.clone());
                }
            }
            if let (Some(stdout), Some(stderr), Some(status)) =
                (nodes.get("1"), nodes.get("2"), nodes.get("3"))
            {
                let open = |path: &Path| File::options().write(true).open(path);
                return Ok(Self { stdout: open(stdout)?, stderr: open(stderr)?, status: open(status)? });
            }
            inotify.read_events()?;
        }
    }
}

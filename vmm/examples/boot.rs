//! Plays the runtime for one microVM: starts `stockade-vmm` with its descriptors and prints what it reports.
//!
//! ```text
//! boot VMM KERNEL INITRAMFS MEMORY_MIB [KERNEL PARAMETERS]
//! boot … --share NAME=FOLDER        bind FOLDER to /shares/NAME and serve it
//! boot … --cpus N                   list N CPUs
//! boot … --most MIB                 let the guest grow to this later
//! ```

use std::{
    error::Error,
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Child, Command},
    thread,
};

use stockade_protocol::{
    agent, frame,
    vmm::{Config, Request, Response, STATUS_LIMIT, Stage, Status, fd},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut words = Vec::new();
    let mut shares = Vec::new();
    let (mut vcpus, mut most) = (1, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--share" => {
                let share = arguments.next().ok_or("--share NAME=FOLDER")?;
                let (name, folder) = share.split_once('=').ok_or("--share NAME=FOLDER")?;
                shares.push((name.to_owned(), folder.to_owned()));
            }
            "--most" => most = arguments.next().ok_or("--most MIB")?.parse()?,
            "--cpus" => vcpus = arguments.next().ok_or("--cpus N")?.parse()?,
            _ => words.push(argument),
        }
    }
    let [vmm, kernel, initramfs, memory_mib, parameters @ ..] = words.as_slice() else {
        return Err("usage: boot VMM KERNEL INITRAMFS MEMORY_MIB [PARAMETERS]".into());
    };
    let config = Config {
        memory_mib: memory_mib.parse()?,
        vcpus,
        cid: 3,
        kernel_parameters: parameters.join(" "),
        most_memory_mib: most,
    };

    let folder = std::env::temp_dir().join(format!("stockade-boot-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let control_path = folder.join("control");
    let control = UnixListener::bind(&control_path)?;
    let agent = UnixListener::bind(folder.join("agent"))?;
    let (status, vmm_status) = seqpacket_pair()?;
    let (mut ready, vmm_ready) = UnixStream::pair()?;
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    let cgroup = OpenOptions::new().write(true).open("/dev/null")?;
    let descriptors: Vec<(OwnedFd, RawFd)> = vec![
        (memfd(&config)?.into(), fd::CONFIG),
        (File::open(kernel)?.into(), fd::KERNEL),
        (File::open(initramfs)?.into(), fd::INITRAMFS),
        (vmm_status, fd::STATUS),
        (vmm_ready.into(), fd::READY),
        (agent.into(), fd::AGENT_LISTENER),
        (control.into(), fd::CONTROL_LISTENER),
        (cgroup.into(), fd::CGROUP_PROCS),
        (kvm.into(), fd::KVM),
    ];
    // SAFETY: every x86_64 CPU has a TSC.
    let start = unsafe { std::arch::x86_64::_rdtsc() };
    let mut child = spawn(vmm, descriptors)?;

    let mut packet = vec![0; STATUS_LIMIT];
    let mut tsc_offset = 0;
    loop {
        // SAFETY: the buffer is valid for its length.
        let length = unsafe { libc::recv(status.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
        if length <= 0 {
            break;
        }
        // SAFETY: as above.
        let now = unsafe { std::arch::x86_64::_rdtsc() } - start;
        match frame_less(&packet[..length as usize])? {
            Status::Reached(stage) => {
                println!("[{:>9.3}] {stage:?}", now as f64 / 1e6);
                if stage == Stage::Isolated {
                    for (name, folder) in &shares {
                        attach(child.id(), name, folder)?;
                    }
                }
                if stage == Stage::Running {
                    let mut control = UnixStream::connect(&control_path)?;
                    for (name, _) in &shares {
                        println!(
                            "add {name}: {:?}",
                            ask(&mut control, &Request::AddShare { name: name.clone() })?
                        );
                    }
                }
                if stage == Stage::AgentConnected || stage == Stage::DriverReady {
                    let mut control = UnixStream::connect(&control_path)?;
                    let answer = ask(&mut control, &Request::Figures)?;
                    if let Response::Figures(figures) = answer {
                        tsc_offset = figures.tsc_offset;
                        println!(
                            "main at {:.3} M, KVM_RUN at {:.3} M, {} KiB besides {} KiB of guest memory",
                            figures.entry_tsc.wrapping_sub(start) as f64 / 1e6,
                            figures.run_tsc.wrapping_sub(start) as f64 / 1e6,
                            figures.overhead_kib,
                            figures.guest_kib
                        );
                    }
                }
                if stage == Stage::AgentConnected {
                    let hello: Option<agent::Ready> = frame::read(&mut ready, frame::GUEST_LIMIT)?;
                    let entry_tsc = hello.as_ref().map(|ready| ready.entry_tsc).unwrap_or_default();
                    let since = entry_tsc.wrapping_sub(tsc_offset).wrapping_sub(start);
                    println!("ready: {hello:?}\nexec to the agent: {:.3} M", since as f64 / 1e6);
                    let mut agent = UnixStream::connect(folder.join("agent"))?;
                    frame::write(&mut agent, &agent::Hello::new(agent::Purpose::Control))?;
                    let reply: Option<agent::HelloReply> = frame::read(&mut agent, frame::GUEST_LIMIT)?;
                    println!("agent: {reply:?}");
                    break;
                }
            }
            Status::Failed { after, reason, console } => {
                println!("[{:>9.3}] failed after {after:?}: {reason}\n{console}", now as f64 / 1e6);
            }
            Status::Ended { reason, console } => {
                println!("[{:>9.3}] ended: {reason}\n{console}", now as f64 / 1e6);
                for line in console.lines() {
                    if let Some(tsc) =
                        line.strip_prefix("TSC ").and_then(|tsc| tsc.trim().parse::<u64>().ok())
                    {
                        let since = tsc.wrapping_sub(tsc_offset).wrapping_sub(start);
                        println!("exec to the guest's init: {:.3} M", since as f64 / 1e6);
                    }
                }
            }
        }
    }
    drop(status);
    println!("exit: {}", child.wait()?);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn frame_less(packet: &[u8]) -> Result<Status> {
    Ok(postcard::from_bytes(packet)?)
}

fn ask(control: &mut UnixStream, request: &Request) -> Result<Response> {
    frame::write(control, request)?;
    Ok(frame::read(control, frame::HOST_LIMIT)?.ok_or("the VMM closed its control connection")?)
}

fn memfd(config: &Config) -> Result<File> {
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(c"config".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: it has just been made.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(&frame::encode(config)?)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: the array takes two descriptors.
    if unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
    } < 0
    {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: they have just been made.
    Ok(unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) })
}

fn spawn(vmm: &str, descriptors: Vec<(OwnedFd, RawFd)>) -> Result<Child> {
    let mut command = Command::new(vmm);
    let numbers: Vec<_> = descriptors.iter().map(|(from, to)| (from.as_raw_fd(), *to)).collect();
    // SAFETY: only system calls; first out of the way of the fixed numbers, then onto them.
    unsafe {
        command.pre_exec(move || {
            let mut moved = [0; 16];
            for ((from, _), moved) in numbers.iter().zip(&mut moved) {
                *moved = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, 64);
            }
            for ((_, to), moved) in numbers.iter().zip(moved) {
                if libc::dup2(moved, *to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(command.spawn()?)
}

/// Binds a folder of the host into the VMM's mount namespace, as the runtime does.
fn attach(pid: u32, name: &str, folder: &str) -> Result<()> {
    let source = CString::new(folder)?;
    let name = name.to_owned();
    let attach = move || {
        // SAFETY: plain system calls with C strings; this thread is thrown away with its namespace.
        unsafe {
            let tree = libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                source.as_ptr(),
                libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE as u32 | libc::OPEN_TREE_CLOEXEC,
            );
            if tree < 0 {
                return Err(io::Error::last_os_error());
            }
            let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
            if libc::unshare(libc::CLONE_FS) < 0 || libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) < 0
            {
                return Err(io::Error::last_os_error());
            }
            let target = format!("/shares/{name}/rootfs");
            std::fs::create_dir_all(&target)?;
            let target = CString::new(target)?;
            let moved = libc::syscall(
                libc::SYS_move_mount,
                tree,
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            );
            if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
    };
    thread::spawn(attach).join().map_err(|_| "attach panicked")??;
    Ok(())
}

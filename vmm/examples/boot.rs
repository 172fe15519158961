//! Plays the runtime for one microVM: starts `stockade-vmm` with its descriptors and prints what it reports.
//!
//! ```text
//! boot VMM KERNEL INITRAMFS MEMORY_MIB [KERNEL PARAMETERS]
//! boot … --share NAME=DIRECTORY        serve DIRECTORY as NAME/rootfs
//! boot … --user ID                  the VMM's user
//! boot … --cpus N                   list N CPUs
//! boot … --most MIB                 let the guest grow to this later
//! ```

use std::{
    error::Error,
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Child, Command},
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use stockade_protocol::{
    agent, frame,
    vmm::{
        Config, FilesRequest, FilesResponse, Request, Response, STATUS_LIMIT, Stage, Status, Template, fd,
    },
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut words = Vec::new();
    let mut shares = Vec::new();
    let (mut vcpus, mut most, mut user) = (1, 0, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--share" => {
                let share = arguments.next().ok_or("--share NAME=DIRECTORY")?;
                let (name, directory) = share.split_once('=').ok_or("--share NAME=DIRECTORY")?;
                shares.push((name.to_owned(), directory.to_owned()));
            }
            "--most" => most = arguments.next().ok_or("--most MIB")?.parse()?,
            "--user" => user = Some(arguments.next().ok_or("--user ID")?.parse()?),
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
        user,
        template: Template::None,
        hot: Vec::new(),
    };

    let directory = std::env::temp_dir().join(format!("stockade-boot-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let control_path = directory.join("control");
    let control = UnixListener::bind(&control_path)?;
    let agent = UnixListener::bind(directory.join("agent"))?;
    let files_path = directory.join("files");
    let files = UnixListener::bind(&files_path)?;
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
        (files.into(), fd::FILES_LISTENER),
        (OpenOptions::new().read(true).open("/dev/null")?.into(), fd::USER_LOCK),
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
                    let files = UnixStream::connect(&files_path)?;
                    for (name, directory) in &shares {
                        share(&files, name, directory)?;
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
                    let mut agent = UnixStream::connect(directory.join("agent"))?;
                    frame::write(&mut agent, &agent::Hello::new(agent::Purpose::Control))?;
                    let reply: Option<agent::HelloReply> = frame::read(&mut agent, frame::GUEST_LIMIT)?;
                    println!("agent: {reply:?}");
                    break;
                }
            }
            Status::TemplateRefused { reason } => println!("no template: {reason}"),
            Status::Saved => println!("saved"),
            Status::DeviceFailed { device, cause } => {
                println!("[{:>9.3}] {device} failed: {cause}", now as f64 / 1e6);
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
    std::fs::remove_dir_all(&directory)?;
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

/// Clones a directory of the host and gives it to the file server as the share's one tree, as the runtime does.
fn share(files: &UnixStream, name: &str, directory: &str) -> Result<()> {
    let source = CString::new(directory)?;
    let flags = libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE as u32 | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) };
    if tree < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: it has just been made.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as RawFd) };
    let names = vec!["rootfs".to_owned()];
    let requests = [
        (FilesRequest::AddShare { name: name.to_owned() }, None),
        (FilesRequest::AddTrees { share: name.to_owned(), names }, Some(tree.as_raw_fd())),
    ];
    for (request, tree) in requests {
        let frame = frame::encode(&request)?;
        let rights = [ControlMessage::ScmRights(tree.as_slice())];
        let control = if tree.is_some() { &rights[..] } else { &[] };
        sendmsg::<()>(files.as_raw_fd(), &[IoSlice::new(&frame)], control, MsgFlags::empty(), None)?;
        let response: Option<FilesResponse> = frame::read(&mut &*files, frame::HOST_LIMIT)?;
        println!("{name}: {response:?}");
    }
    Ok(())
}

//! Fixes the bytes of every message. Pods outlive upgrades, so a line here never changes once it has been released: a new
//! message is a new line, and a changed one is a new enum and a new protocol version.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use stockade_protocol::{
    agent::{
        AgentError, ContainerEvent, ContainerState, ErrorKind, Exec, ExitStatus, Hello, HelloReply,
        ProcessCommand, ProcessEntry, ProcessEvent, ProcessId, Purpose, Ready, Request, Response, Stream,
        WindowSize,
    },
    container::{
        Capabilities, Cgroup, Container, Device, DeviceKind, DeviceRule, Hook, IdMapping, IdMappings,
        MemoryPolicy, Mount, MountSource, Namespace, Namespaces, Process, Rlimit, Rootfs, Scheduler,
        Scheduling, SeccompFilter, StreamKind, TimeOffset, User,
    },
    frame::{self, FrameBuffer, FrameError, GUEST_LIMIT, HOST_LIMIT},
    network::{Address, Hop, Link, Neighbour, NetworkChange, NetworkStep, NicSlot, Route},
    vmm,
};

/// The frame of `message` is `expected`, and reads back as `message`.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: T, expected: &str) {
    let bytes = frame::encode(&message).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
    let read: T = frame::read(&mut &bytes[..], HOST_LIMIT).unwrap().unwrap();
    assert_eq!(read, message);
}

fn process_id() -> ProcessId {
    ProcessId { container: "c1".into(), exec: None }
}

fn exec_id() -> ProcessId {
    ProcessId { container: "c1".into(), exec: Some("e".into()) }
}

fn failure(kind: ErrorKind) -> AgentError {
    AgentError { kind, message: "no".into() }
}

fn container() -> Container {
    Container {
        id: "c1".into(),
        rootfs: Rootfs { share: "c1/rootfs".into(), readonly: true, propagation: 0x4_4000 },
        mounts: vec![
            Mount {
                destination: "/etc/hosts".into(),
                source: MountSource::Share("c1/0".into()),
                flags: 0x1001,
                propagation: vec![0x8_0000],
                data: String::new(),
                copy_up: false,
            },
            Mount {
                destination: "/proc".into(),
                source: MountSource::FileSystem { fstype: "proc".into(), source: "proc".into() },
                flags: 0,
                propagation: vec![],
                data: "a=b".into(),
                copy_up: true,
            },
        ],
        process: Process {
            args: vec!["sh".into()],
            env: vec!["A=b".into()],
            cwd: "/".into(),
            user: User { uid: 1000, gid: 1001, umask: Some(0o27), additional_gids: vec![7] },
            capabilities: Some(Capabilities {
                bounding: 1,
                effective: 2,
                inheritable: 4,
                permitted: 8,
                ambient: 1 << 40,
            }),
            rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
            no_new_privileges: true,
            oom_score_adj: Some(-500),
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
            streams: vec![StreamKind::Input, StreamKind::Output, StreamKind::Socket],
            scheduling: Scheduling {
                scheduler: Some(Scheduler {
                    policy: 6,
                    flags: 1,
                    nice: -20,
                    priority: 99,
                    runtime_ns: 1,
                    deadline_ns: 2,
                    period_ns: 300,
                }),
                io_priority: Some(2 << 13 | 7),
                initial_cpus: vec![3],
                final_cpus: vec![0, 1],
            },
        },
        namespaces: Namespaces {
            pid: Namespace::New,
            mount: Namespace::Guest,
            uts: Namespace::Container("s".into()),
            ipc: Namespace::New,
            cgroup: Namespace::New,
            user: Namespace::New,
            time: Namespace::Container("t".into()),
        },
        id_mappings: Some(IdMappings {
            users: vec![IdMapping { inside: 0, outside: 1000, size: 5 }],
            groups: vec![],
        }),
        time_offsets: vec![TimeOffset { clock: 1, seconds: -5, nanoseconds: 6 }],
        cgroup_owner: Some(1000),
        hostname: Some("h".into()),
        domainname: None,
        devices: vec![Device {
            path: "/dev/x".into(),
            kind: DeviceKind::Block,
            major: 7,
            minor: 300,
            mode: 0o660,
            uid: 0,
            gid: 6,
        }],
        cgroup: Cgroup {
            path: "p/c1".into(),
            values: vec![("pids.max".into(), "9".into())],
            devices: vec![DeviceRule {
                allow: true,
                kind: Some(DeviceKind::Char),
                major: Some(1),
                minor: None,
                read: true,
                write: false,
                mknod: true,
            }],
        },
        sysctl: vec![("a.b".into(), "1".into())],
        masked_paths: vec!["/m".into()],
        readonly_paths: vec!["/r".into()],
        seccomp: vec![SeccompFilter { flags: 2, program: vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f] }],
        start_hooks: vec![Hook {
            path: "/h".into(),
            args: vec!["h".into()],
            env: vec!["E=f".into()],
            timeout_s: Some(300),
            state: "{}".into(),
        }],
        notify: true,
        personality: Some(8),
        memory_policy: Some(MemoryPolicy { mode: 0x8002, nodes: vec![5] }),
    }
}

#[test]
fn greetings() {
    golden(
        Ready {
            magic: *b"STKD",
            oldest_version: 1,
            version: 2,
            kernel_release: "6.12".into(),
            entry_tsc: 300,
        },
        "0d00000053544b44010204362e3132ac02",
    );
    golden(Hello::new(Purpose::Control), "0600000053544b440100");
    golden(Hello::new(Purpose::Process(process_id())), "0a00000053544b44010102633100");
    golden(Hello::new(Purpose::Process(exec_id())), "0c00000053544b440101026331010165");
    for (stream, expected) in [
        (Stream::Stdin, "0b00000053544b4401020263310000"),
        (Stream::Stdout, "0b00000053544b4401020263310001"),
        (Stream::Stderr, "0b00000053544b4401020263310002"),
        (Stream::Terminal, "0b00000053544b4401020263310003"),
    ] {
        golden(Hello::new(Purpose::Stream(process_id(), stream)), expected);
    }
    golden(
        Hello::new(Purpose::Stream(process_id(), Stream::Extra(300))),
        "0d00000053544b4401020263310004ac02",
    );
    golden(Hello::new(Purpose::Events("c1".into())), "0900000053544b440103026331");
    golden(Hello::new(Purpose::Forward(8080)), "0800000053544b440104903f");
    golden(Hello::new(Purpose::Socket("c1".into(), 300)), "0b00000053544b440105026331ac02");
    golden(HelloReply::Welcome, "0100000000");
    golden(HelloReply::Refused(failure(ErrorKind::Version)), "050000000100026e6f");
}

#[test]
fn requests() {
    golden(
        Request::Create(Box::new(container())),
        "0a010000000263310963312f726f6f74667301808011020a2f6574632f686f737473000463312f308120018080200000052f70726f63010470726f630470726f63000003613d6201010273680103413d62012fe807e90701170107010102040880808080802001078008ffffffffffffffffff010101e7070118500300010201060127630102ac020187800101030200010100020173010101020174010100e8070500010209060101680001062f6465762f780107ac02b003000604702f63310108706964732e6d617801390101010001010001000101e8070103612e62013101022f6d01022f72010208060000000000ff7f01022f680101680103453d6601ac02027b7d010108018280020105",
    );
    golden(Request::Start(process_id()), "050000000102633100");
    golden(Request::Signal { container: "c1".into(), signal: 15, all: true }, "06000000020263311e01");
    golden(Request::State { container: "c1".into() }, "0400000003026331");
    golden(Request::Delete { container: "c1".into() }, "0400000004026331");
    let exec =
        Exec { id: exec_id(), process: container().process, cgroup: Some("sub".into()), ignore_paused: true };
    golden(
        Request::Exec(Box::new(exec)),
        "5600000005026331010165010273680103413d62012fe807e90701170107010102040880808080802001078008ffffffffffffffffff010101e7070118500300010201060127630102ac02018780010103020001010373756201",
    );
    golden(Request::Pause { container: "c1".into() }, "0400000006026331");
    golden(Request::Resume { container: "c1".into() }, "0400000007026331");
    golden(Request::Processes { container: "c1".into() }, "0400000008026331");
    golden(Request::CgroupFiles { container: "c1".into() }, "0400000009026331");
    golden(
        Request::Update { container: "c1".into(), values: vec![("pids.max".into(), "9".into())] },
        "100000000a0263310108706964732e6d61780139",
    );
}

#[test]
fn responses() {
    golden(Response::Created { guest_pid: 300, warnings: vec!["w".into()] }, "0600000000ac02010177");
    golden(Response::Started, "0100000001");
    golden(Response::Signalled, "0100000002");
    golden(Response::State(ContainerState::Created), "020000000300");
    golden(Response::State(ContainerState::Running), "020000000301");
    golden(Response::State(ContainerState::Paused), "020000000302");
    golden(Response::State(ContainerState::Stopped(ExitStatus::Exited(42))), "040000000303002a");
    golden(Response::State(ContainerState::Stopped(ExitStatus::Signalled(9))), "0400000003030109");
    golden(Response::Deleted, "0100000004");
    golden(Response::Paused, "0100000006");
    golden(Response::Resumed, "0100000007");
    let entry = ProcessEntry {
        id: Some(exec_id()),
        pid: 300,
        parent: 1,
        uid: 1000,
        terminal: Some("pts/0".into()),
        started: 1 << 31,
        cpu_ms: 20,
        command: "sh".into(),
    };
    golden(
        Response::Processes(vec![entry]),
        "1e000000080101026331010165ac0201e80701057074732f30808080800814027368",
    );
    golden(
        Response::CgroupFiles(vec![("pids.current".into(), "2\n".into())]),
        "1200000009010c706964732e63757272656e7402320a",
    );
    golden(Response::Updated, "010000000a");
    for (kind, expected) in [
        (ErrorKind::Version, "050000000500026e6f"),
        (ErrorKind::NotFound, "050000000501026e6f"),
        (ErrorKind::Exists, "050000000502026e6f"),
        (ErrorKind::WrongState, "050000000503026e6f"),
        (ErrorKind::NoProcess, "050000000504026e6f"),
        (ErrorKind::ExecutableNotFound, "050000000505026e6f"),
        (ErrorKind::NotExecutable, "050000000506026e6f"),
        (ErrorKind::Spec, "050000000507026e6f"),
        (ErrorKind::Internal, "050000000508026e6f"),
    ] {
        golden(Response::Error(failure(kind)), expected);
    }
}

#[test]
fn processes() {
    golden(ProcessCommand::Signal(15), "02000000001e");
    golden(ProcessCommand::Resize(WindowSize { rows: 24, columns: 80 }), "03000000011850");
    golden(ProcessCommand::Changed, "0100000002");
    golden(MountSource::Copy("c1/m0".into()), "07000000040563312f6d30");
    golden(MountSource::Disk { slot: 5, fstype: "ext4".into() }, "0700000005050465787434");
    golden(MountSource::Socket { number: 300, mode: 0o660, uid: 0, gid: 998 }, "0800000006ac02b00300e607");
    golden(DeviceKind::Disk, "0100000003");
    golden(ProcessEvent::Ended(ExitStatus::Exited(0)), "03000000000000");
    golden(ProcessEvent::Ended(ExitStatus::Signalled(15)), "0300000000010f");
    golden(ProcessEvent::Notify(b"READY=1".to_vec()), "09000000010752454144593d31");
    golden(ContainerEvent::OutOfMemory { kills: 2 }, "020000000002");
}

#[test]
fn vmm_messages() {
    golden(
        vmm::Config {
            memory_mib: 128,
            vcpus: 1,
            cid: 3,
            kernel_parameters: "quiet".into(),
            most_memory_mib: 300,
            user: Some(2_000_000_000),
        },
        "1200000080010103057175696574ac020180a8d6b907",
    );
    for (stage, expected) in [
        (vmm::Stage::Started, "020000000000"),
        (vmm::Stage::Isolated, "020000000001"),
        (vmm::Stage::Loaded, "020000000002"),
        (vmm::Stage::Running, "020000000003"),
        (vmm::Stage::DriverReady, "020000000004"),
        (vmm::Stage::AgentConnected, "020000000005"),
    ] {
        golden(vmm::Status::Reached(stage), expected);
    }
    let (reason, console) = ("r".to_owned(), "c".to_owned());
    golden(
        vmm::Status::Failed { after: vmm::Stage::Loaded, reason: reason.clone(), console: console.clone() },
        "06000000010201720163",
    );
    golden(vmm::Status::Ended { reason, console }, "050000000201720163");
    golden(vmm::Request::Console, "0100000000");
    golden(vmm::Request::Figures, "0100000001");
    let nic = vmm::Nic { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 };
    golden(vmm::Request::AddNic(nic), "0900000002020000000001dc0b");
    let disk = vmm::Disk { readonly: true, serial: "d".into() };
    golden(vmm::Request::AddDisk(disk), "0400000003010164");
    golden(vmm::Request::RemoveDevice { slot: 16 }, "020000000410");
    golden(vmm::Response::Slot(5), "020000000405");
    golden(vmm::Request::Threads, "0100000005");
    let thread = vmm::ThreadTime { name: "vcpu".into(), cpu_ms: 7 };
    golden(vmm::Response::Threads(vec![thread]), "080000000501047663707507");
    golden(vmm::Response::Done, "0100000000");
    let figures = vmm::Figures { entry_tsc: 1, run_tsc: 5, tsc_offset: 2, overhead_kib: 3, guest_kib: 4 };
    golden(vmm::Response::Console(vec![1, 2]), "0400000001020102");
    golden(vmm::Response::Figures(figures), "06000000020105020304");
    golden(vmm::Response::Error("no".into()), "0400000003026e6f");
    golden(vmm::Request::SetMemory { mib: 300 }, "0300000006ac02");
    golden(vmm::Request::Memory, "0100000007");
    golden(vmm::Request::AddVcpus { count: 2 }, "020000000802");
    golden(vmm::Request::Position, "0100000009");
    let position = vmm::CpuPosition { instruction: 0x1234, interrupts: true };
    golden(vmm::Response::Position(position), "0400000007b42401");
    golden(Request::SetCpus { count: 2 }, "020000000d02");
    golden(Response::CpusSet, "010000000d");
    golden(vmm::Response::Memory { mib: 300 }, "0300000006ac02");
    golden(vmm::Request::Failures, "010000000a");
    let (device, cause) = ("fs".to_owned(), "c".to_owned());
    let failure = vmm::DeviceFailure { device: device.clone(), cause: cause.clone(), count: 3 };
    golden(vmm::Response::Failures(vec![failure]), "080000000801026673016303");
    golden(vmm::Status::DeviceFailed { device, cause }, "06000000030266730163");
}

#[test]
fn file_server_messages() {
    golden(vmm::FilesRequest::AddShare { name: "c1".into() }, "0400000000026331");
    let names = vec!["rootfs".to_owned(), "m0".to_owned()];
    let trees = vmm::FilesRequest::AddTrees { share: "c1".into(), names };
    golden(trees, "0f000000010263310206726f6f746673026d30");
    golden(vmm::FilesRequest::RemoveShare { name: "c1".into() }, "0400000002026331");
    golden(vmm::FilesResponse::Done, "0100000000");
    golden(vmm::FilesResponse::Error("no".into()), "0400000001026e6f");
}

#[test]
fn an_announced_length_over_the_limit_is_refused_before_its_bytes_arrive() {
    let header = (GUEST_LIMIT as u32 + 1).to_le_bytes();
    assert!(matches!(frame::read::<Ready>(&mut &header[..], GUEST_LIMIT), Err(FrameError::TooLong { .. })));
    let mut buffer = FrameBuffer::new(GUEST_LIMIT);
    buffer.extend(&header);
    assert!(matches!(buffer.next::<Ready>(), Err(FrameError::TooLong { .. })));
}

#[test]
fn the_end_of_a_connection_is_told_from_the_middle_of_a_message() {
    let bytes = frame::encode(&Response::Started).unwrap();
    assert!(matches!(frame::read::<Response>(&mut &[][..], GUEST_LIMIT), Ok(None)));
    for length in 1..bytes.len() {
        let result = frame::read::<Response>(&mut &bytes[..length], GUEST_LIMIT);
        assert!(matches!(result, Err(FrameError::Truncated)), "{length} bytes: {result:?}");
    }
}

/// Decodes `bytes` as every kind of message that crosses a boundary; what comes of it does not matter.
fn decode_as_everything(bytes: &[u8]) {
    fn decode<T: DeserializeOwned>(bytes: &[u8]) {
        let framed = [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
        let _ = frame::read::<T>(&mut &framed[..], HOST_LIMIT);
        let mut raw = FrameBuffer::new(GUEST_LIMIT);
        raw.extend(bytes);
        while let Ok(Some(_)) = raw.next::<T>() {}
    }
    decode::<Ready>(bytes);
    decode::<Hello>(bytes);
    decode::<HelloReply>(bytes);
    decode::<Request>(bytes);
    decode::<Response>(bytes);
    decode::<ProcessCommand>(bytes);
    decode::<ProcessEvent>(bytes);
    decode::<ContainerEvent>(bytes);
    decode::<vmm::Config>(bytes);
    decode::<vmm::Status>(bytes);
    decode::<vmm::Request>(bytes);
    decode::<vmm::Response>(bytes);
    decode::<vmm::FilesRequest>(bytes);
    decode::<vmm::FilesResponse>(bytes);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = frame::encode(&Request::Create(Box::new(container()))).unwrap();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        decode_as_everything(&bytes[4..]);
        decode_as_everything(&bytes);
    }

    #[test]
    fn frames_survive_any_split(
        texts in prop::collection::vec(".{0,40}", 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..16),
    ) {
        let sent: Vec<Request> = texts.into_iter().map(|container| Request::State { container }).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|request| frame::encode(request).unwrap()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();

        let mut buffer = FrameBuffer::new(HOST_LIMIT);
        let mut received = Vec::new();
        for piece in cuts.windows(2) {
            buffer.extend(&bytes[piece[0]..piece[1]]);
            while let Some(request) = buffer.next::<Request>().unwrap() {
                received.push(request);
            }
        }
        prop_assert_eq!(received, sent);
        prop_assert!(!buffer.is_partial());
    }
}

const NETWORK_CHANGE: &str = "\
    b00000000b010210090002010202020465746830020000000001dc0b01010302000a0000021800010a0000ff00800100\
    013c1e0402000a0000021800010a0000ff00800100013c1e05010000000000000000000000000000000000010201000a\
    000001010000fe0101000300640102f80a06010000000000000000000000000000000000010201000a000001010000fe\
    0101000300640102f80a0702000a0000010200000000010802000a000001020000000001";

#[test]
fn network_messages() {
    let slot = NicSlot { interface: 2, slot: 16 };
    let link =
        Link { interface: 2, name: "eth0".into(), mac: [2, 0, 0, 0, 0, 1], mtu: 1500, up: true, arp: true };
    let address = Address {
        interface: 2,
        address: [10, 0, 0, 2].into(),
        prefix: 24,
        peer: None,
        broadcast: Some([10, 0, 0, 255].into()),
        scope: 0,
        flags: 0x80,
        metric: 0,
        lifetimes: Some((60, 30)),
    };
    let route = Route {
        destination: std::net::Ipv6Addr::UNSPECIFIED.into(),
        prefix: 0,
        hops: vec![Hop { interface: 2, gateway: Some([10, 0, 0, 1].into()), onlink: true, weight: 0 }],
        source: None,
        table: 254,
        kind: 1,
        scope: 0,
        protocol: 3,
        tos: 0,
        priority: 100,
        metrics: vec![(2, 1400)],
    };
    let neighbour = Neighbour { interface: 2, address: [10, 0, 0, 1].into(), mac: [2, 0, 0, 0, 0, 1] };
    let steps = vec![
        NetworkStep::Bind { interface: 2 },
        NetworkStep::Unbind { interface: 2 },
        NetworkStep::Link(link),
        NetworkStep::AddAddress(address.clone()),
        NetworkStep::RemoveAddress(address),
        NetworkStep::AddRoute(route.clone()),
        NetworkStep::RemoveRoute(route),
        NetworkStep::AddNeighbour(neighbour.clone()),
        NetworkStep::RemoveNeighbour(neighbour),
    ];
    golden(Request::Network(Box::new(NetworkChange { nics: vec![slot], steps })), NETWORK_CHANGE);
    golden(Response::NetworkChanged, "010000000b");
    golden(Request::Containers, "010000000c");
    golden(Response::Containers(vec!["c1".into()]), "050000000c01026331");
}

//! Frames, and the bytes of the messages that have most in them, by hand; `golden.rs` has those of all.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use stockade_protocol::{
    agent::{
        ContainerEvent, Exec, Hello, HelloReply, ProcessCommand, ProcessEvent, ProcessId, Ready, Request,
        Response,
    },
    container::{
        Capabilities, Cgroup, Container, Device, DeviceKind, DeviceRule, Hook, IdMapping, IdMappings,
        MemoryPolicy, Mount, MountSource, Namespace, Namespaces, Process, Rlimit, Rootfs, Scheduler,
        Scheduling, SeccompFilter, StreamKind, TimeOffset, User, WindowSize,
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

fn exec_id() -> ProcessId {
    ProcessId { container: "c1".into(), exec: Some("e".into()) }
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
fn a_container_and_a_process() {
    golden(
        Request::Create(Box::new(container())),
        "0a010000000263310963312f726f6f74667301808011020a2f6574632f686f737473000463312f308120018080200000052f70726f63010470726f630470726f63000003613d6201010273680103413d62012fe807e90701170107010102040880808080802001078008ffffffffffffffffff010101e7070118500300010201060127630102ac020187800101030200010100020173010101020174010100e8070500010209060101680001062f6465762f780107ac02b003000604702f63310108706964732e6d617801390101010001010001000101e8070103612e62013101022f6d01022f72010208060000000000ff7f01022f680101680103453d6601ac02027b7d010108018280020105",
    );
    let exec =
        Exec { id: exec_id(), process: container().process, cgroup: Some("sub".into()), ignore_paused: true };
    golden(
        Request::Exec(Box::new(exec)),
        "5600000005026331010165010273680103413d62012fe807e90701170107010102040880808080802001078008ffffffffffffffffff010101e7070118500300010201060127630102ac02018780010103020001010373756201",
    );
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
fn a_message_that_ends_before_its_frame_is_none() {
    let mut bytes = frame::encode(&Request::Containers).unwrap();
    bytes.push(0);
    bytes[0] += 1;
    let read = frame::read::<Request>(&mut &bytes[..], GUEST_LIMIT);
    assert!(matches!(read, Err(FrameError::Trailing(1))), "{read:?}");
    let mut buffer = FrameBuffer::new(GUEST_LIMIT);
    buffer.extend(&bytes);
    assert!(matches!(buffer.next::<Request>(), Err(FrameError::Trailing(1))));
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
}

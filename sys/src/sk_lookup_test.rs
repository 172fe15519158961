use super::*;

/// What is looked up: `struct bpf_sk_lookup` as far as programs read it.
fn lookup(protocol: i32, family: i32, address: &[u8], port: u32) -> [u8; 64] {
    let mut context = [0; 64];
    let mut put = |offset: i16, bytes: &[u8]| {
        context[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(FAMILY, &family.to_ne_bytes());
    put(PROTOCOL, &protocol.to_ne_bytes());
    put(if family == libc::AF_INET { LOCAL_IP4 } else { LOCAL_IP6 }, address);
    put(LOCAL_PORT, &port.to_ne_bytes());
    context
}

/// Runs a program as the kernel does, with maps in which each key's socket is there; the key of the one that it assigns.
fn run(program: &[Instruction], context: &[u8; 64]) -> Option<i32> {
    let (mut at, mut value, mut key, mut assigned) = (0, 0, None, None);
    // There are no loops: each instruction runs at most once.
    for _ in 0..=program.len() {
        let Instruction { code, offset, immediate, .. } = program[at];
        at += 1;
        match code {
            code::LOAD_32 => {
                let word = context[offset as usize..][..4].try_into().unwrap();
                value = i32::from_ne_bytes(word);
            }
            code::JUMP_NOT_EQUAL if value != immediate => at += offset as usize,
            code::STORE_IMMEDIATE_32 => key = Some(immediate),
            code::CALL if immediate == ASSIGN => assigned = key,
            code::EXIT => return assigned,
            _ => {}
        }
    }
    panic!("the program does not end")
}

#[test]
fn each_destination_has_its_socket() {
    let to = |protocol, address, port| Destination { protocol, address, port };
    let resolver = Local::Address4([127, 0, 0, 11]);
    let program = program(
        [
            to(libc::IPPROTO_UDP, resolver, Some(53)),
            to(libc::IPPROTO_TCP, resolver, Some(53)),
            to(libc::IPPROTO_TCP, Local::Address4([127, 0, 0, 1]), None),
            to(libc::IPPROTO_TCP, Local::Loopback6, None),
        ]
        .into_iter(),
        7,
    );
    let v4 =
        |protocol, address: [u8; 4], port| run(&program, &lookup(protocol, libc::AF_INET, &address, port));
    assert_eq!(v4(libc::IPPROTO_UDP, [127, 0, 0, 11], 53), Some(0));
    assert_eq!(v4(libc::IPPROTO_UDP, [127, 0, 0, 11], 54), None);
    assert_eq!(v4(libc::IPPROTO_UDP, [127, 0, 0, 1], 53), None);
    assert_eq!(v4(libc::IPPROTO_TCP, [127, 0, 0, 11], 53), Some(1));
    assert_eq!(v4(libc::IPPROTO_TCP, [127, 0, 0, 11], 80), None);
    assert_eq!(v4(libc::IPPROTO_TCP, [127, 0, 0, 1], 53), Some(2));
    assert_eq!(v4(libc::IPPROTO_TCP, [10, 0, 0, 127], 53), None);
    let v6 = |address: [u8; 16]| run(&program, &lookup(libc::IPPROTO_TCP, libc::AF_INET6, &address, 80));
    let mut loopback = [0; 16];
    assert_eq!(v6(loopback), None);
    loopback[15] = 1;
    assert_eq!(v6(loopback), Some(3));
    loopback[4] = 1;
    assert_eq!(v6(loopback), None);
}

//! For tests: what a seccomp program answers, by an interpreter of the instructions that libseccomp uses.

/// Runs a program for one system call.
pub fn run(program: &[u8], number: u32, architecture: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(&architecture.to_ne_bytes());
    data.extend_from_slice(&0u64.to_ne_bytes());
    args.iter().for_each(|arg| data.extend_from_slice(&arg.to_ne_bytes()));
    let word = |at: u32| u32::from_ne_bytes(data[at as usize..][..4].try_into().unwrap());

    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let instruction = &program[at * 8..][..8];
        let code = u32::from(u16::from_ne_bytes([instruction[0], instruction[1]]));
        let [if_true, if_false] = [instruction[2], instruction[3]].map(usize::from);
        let operand = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
        let jump = |condition: bool| if condition { if_true } else { if_false };
        at += 1;
        match code {
            // LD W ABS, ALU AND K, RET K, JMP JA, JEQ, JGT, JGE, JSET
            0x20 => accumulator = word(operand),
            0x54 => accumulator &= operand,
            0x06 => return operand,
            0x05 => at += operand as usize,
            0x15 => at += jump(accumulator == operand),
            0x25 => at += jump(accumulator > operand),
            0x35 => at += jump(accumulator >= operand),
            0x45 => at += jump(accumulator & operand != 0),
            other => panic!("instruction {other:#x}"),
        }
    }
}

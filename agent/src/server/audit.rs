//! `SCMP_ACT_LOG`: the guest's console shows what a seccomp filter logs.

use stockade_protocol::container::SeccompFilter;

use crate::init::proc_files;

/// Length of `struct sock_filter`, and the code of one that returns its operand.
const INSTRUCTION: usize = 8;
const RETURN: u16 = 0x06;

/// `SECCOMP_RET_LOG` and the bits of an action.
const LOG: u32 = 0x7ffc_0000;
const ACTION: u32 = 0xffff_0000;

/// The kernel's log level for the console: notices, which include audit's messages, are shown.
const NOTICES: &str = "6";

/// Shows the kernel's log of system calls if filters log some. The kernel limits their rate.
pub fn show_on_console(filters: &[SeccompFilter]) {
    if filters.iter().any(|filter| logs(&filter.program)) {
        // A kernel without this setting has no such log either.
        let _ = proc_files::write("sys/kernel/printk", NOTICES);
    }
}

fn logs(program: &[u8]) -> bool {
    program.chunks_exact(INSTRUCTION).any(|bytes| {
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let operand = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        code == RETURN && operand & ACTION == LOG
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_logs_is_told_from_one_that_does_not() {
        let returns = |action: u32| {
            let mut bytes = vec![0x06, 0, 0, 0];
            bytes.extend(action.to_ne_bytes());
            bytes
        };
        assert!(logs(&[returns(0x7fff_0000), returns(0x7ffc_0000)].concat()));
        assert!(!logs(&[returns(0x7fff_0000), returns(0x0005_0001)].concat()));
        // The same number as an operand of a comparison.
        assert!(!logs(&[0x15, 0, 0, 0, 0, 0, 0xfc, 0x7f]));
    }
}

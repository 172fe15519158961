use super::*;

#[test]
fn instructions_are_read_as_the_kernel_lays_them_out() {
    let program = [0x15, 0, 1, 2, 0x3e, 0, 0, 0xc0, 6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    let read: Vec<_> = instructions(&program).unwrap().iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    assert_eq!(read, [(0x15, 1, 2, 0xc000_003e), (6, 0, 0, libc::SECCOMP_RET_ALLOW)]);
}

#[test]
fn half_an_instruction_is_refused() {
    assert!(instructions(&[6, 0, 0, 0, 0, 0, 0xff]).is_err());
    assert!(instructions(&[0; 8 * 65536]).is_err());
}

use super::build;

#[test]
fn devices_and_the_runtime_s_parameters_follow() {
    let line = build(2, 1, "  debug agent.x=1 ").unwrap();
    assert!(line.starts_with("console=ttyS0 quiet "), "{line}");
    assert!(
        line.contains(" virtio_mmio.device=4K@0xc0000000:5 virtio_mmio.device=4K@0xc0001000:6"),
        "{line}"
    );
    assert!(line.ends_with(" debug agent.x=1 earlyprintk=ttyS0"), "{line}");
}

#[test]
fn a_line_that_does_not_fit_is_refused() {
    let error = build(3, 1, &"x".repeat(2048)).unwrap_err();
    assert!(error.to_string().contains("at most 2048 bytes"), "{error}");
}

#[test]
fn the_kernel_of_several_cpus_boots_with_one() {
    assert!(build(1, 2, "").unwrap().contains(" maxcpus=1 "));
    assert!(!build(1, 1, "").unwrap().contains("maxcpus"));
}

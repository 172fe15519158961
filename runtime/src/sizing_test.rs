use super::*;
use proptest::prelude::*;

#[test]
fn a_limit_is_met_in_full() {
    assert_eq!(guest_mib(Some(512 * MIB), 2048, None), Ok(512 + 8 + 96));
    assert_eq!(guest_mib(None, 2048, None), Ok(2048));
    assert_eq!(guest_mib(Some(1), 2048, None), Ok(128));
}

#[test]
fn the_hosts_limit_is_kept() {
    assert_eq!(guest_mib(None, 2048, Some(1024 * MIB)), Ok(1024 - 128));
    assert_eq!(guest_mib(Some(u64::MAX), 2048, Some(1024 * MIB)), Ok(1024 - 128));
    let error = guest_mib(None, 2048, Some(64 * MIB)).unwrap_err().to_string();
    assert!(error.starts_with("no memory for the VM") && error.contains("64 MiB"), "{error}");
}

proptest! {
    #[test]
    fn never_below_the_least_nor_above_the_host(
        limit in proptest::option::of(any::<u64>()),
        default in 1u32..,
        host in proptest::option::of(any::<u64>()),
    ) {
        if let Ok(mib) = guest_mib(limit, default, host) {
            prop_assert!(u64::from(mib) >= LEAST_MIB);
            if let Some(host) = host {
                prop_assert!(host_limit_bytes(mib) <= host);
            }
        }
    }
}

use super::*;

const TIMEOUT: Duration = Duration::from_secs(8);

#[test]
fn a_wait_is_cut_once_where_a_vm_becomes_late() {
    let mut patience = Patience::new(TIMEOUT, TIMEOUT);
    patience.spend(IS_LATE / 4);
    assert_eq!(patience.stretch().length(), IS_LATE - IS_LATE / 4);
    patience.spend(IS_LATE);
    assert!(patience.goes_on(None));
    assert_eq!(patience.stretch().length(), TIMEOUT - IS_LATE - IS_LATE / 4);
    patience.spend(TIMEOUT);
    assert!(!patience.goes_on(None), "nobody knows the VM");
    assert!(!Patience::new(TIMEOUT, Duration::ZERO).goes_on(None), "its time had passed before");
}

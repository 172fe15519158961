use super::*;

#[test]
fn only_an_agent_of_a_known_version_is_accepted() {
    let ready = Ready {
        magic: MAGIC,
        oldest_version: OLDEST_VERSION,
        version: VERSION,
        kernel_release: String::new(),
        entry_tsc: 0,
    };
    assert!(check(ready.clone()).is_ok());
    assert!(check(Ready { magic: *b"NOPE", ..ready.clone() }).is_err());
    assert!(check(Ready { oldest_version: VERSION + 1, version: VERSION + 1, ..ready }).is_err());
}

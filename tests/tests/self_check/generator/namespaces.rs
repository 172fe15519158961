//! `linux.namespaces` and what is set in them.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Value, json};

use super::{Settings, given};
use crate::fixture::mappings;

pub fn namespaces() -> impl Strategy<Value = Settings> {
    let kinds = subsequence(vec!["pid", "ipc", "uts", "cgroup"], 0..=4);
    let shift = || prop_oneof![Just(0u32), 1u32..1 << 31];
    let user = option::weighted(0.4, (shift(), shift()));
    let offset = || option::of((0i64..1 << 32, 0u32..1_000_000_000));
    let time = option::weighted(0.5, (offset(), offset()));
    let kinds = (kinds, user, time).prop_flat_map(|(mut kinds, user, time)| {
        kinds.extend(["mount", "network"]);
        kinds.extend(user.map(|_| "user"));
        kinds.extend(time.map(|_| "time"));
        (Just(kinds).prop_shuffle(), Just(user), Just(time))
    });
    let name = || option::of("[a-z][a-z0-9-]{0,62}[a-z]");
    (kinds, name(), name()).prop_map(|((kinds, user, time), hostname, domainname)| {
        let namespaces: Value = kinds.into_iter().map(|kind| json!({ "type": kind })).collect();
        let offsets = time.map(|(monotonic, boottime)| {
            let clocks = [("monotonic", monotonic), ("boottime", boottime)];
            let given = clocks.into_iter().filter_map(|(name, offset)| Some((name.to_owned(), offset?)));
            let given =
                given.map(|(name, (secs, nanosecs))| (name, json!({ "secs": secs, "nanosecs": nanosecs })));
            Value::Object(given.collect())
        });
        given([
            ("linux.namespaces", Some(namespaces)),
            ("linux.uidMappings", user.map(|(shift, _)| mappings(shift))),
            ("linux.gidMappings", user.map(|(_, shift)| mappings(shift))),
            ("linux.timeOffsets", offsets),
            ("hostname", hostname.map(Value::from)),
            ("domainname", domainname.map(Value::from)),
        ])
    })
}

//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity` and `linux.personality`.
//!
//! SCHED_DEADLINE is left out, as its processes cannot fork, and `linux.memoryPolicy`, of which a guest of one node has little.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Settings, given};

fn scheduler() -> impl Strategy<Value = Value> {
    let fair =
        (select(vec!["SCHED_OTHER", "SCHED_BATCH"]), option::of(-20i32..=19)).prop_map(|(policy, nice)| {
            match nice {
                Some(nice) => json!({ "policy": policy, "nice": nice }),
                None => json!({ "policy": policy }),
            }
        });
    let real_time = (select(vec!["SCHED_FIFO", "SCHED_RR"]), 1i32..=99)
        .prop_map(|(policy, priority)| json!({ "policy": policy, "priority": priority }));
    let any = prop_oneof![
        3 => fair.boxed(),
        1 => Just(json!({ "policy": "SCHED_IDLE" })).boxed(),
        2 => real_time.boxed(),
    ];
    let flags = select(vec![json!([]), json!(["SCHED_FLAG_RESET_ON_FORK"])]);
    (any, option::of(flags)).prop_map(|(mut scheduler, flags)| {
        if let Some(flags) = flags {
            scheduler["flags"] = flags;
        }
        scheduler
    })
}

pub fn scheduling() -> impl Strategy<Value = Settings> {
    let classes = select(vec!["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]);
    let io = (classes, 0u32..8).prop_map(|(class, priority)| json!({ "class": class, "priority": priority }));
    // The guest has one CPU.
    let affinity = select(vec![
        json!({ "final": "0" }),
        json!({ "initial": "0", "final": "0" }),
        json!({ "initial": "0" }),
    ]);
    let domain = select(vec!["LINUX", "LINUX32"]).prop_map(|domain| json!({ "domain": domain }));
    (option::of(scheduler()), option::of(io), option::of(affinity), option::of(domain)).prop_map(
        |(scheduler, io, affinity, domain)| {
            given([
                ("process.scheduler", scheduler),
                ("process.ioPriority", io),
                ("process.execCPUAffinity", affinity),
                ("linux.personality", domain),
            ])
        },
    )
}

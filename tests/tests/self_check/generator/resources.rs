//! `linux.devices` and `linux.resources`.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::{Settings, given};

pub fn devices() -> impl Strategy<Value = Settings> {
    let kind = select(vec![
        ("c", 10, 200),
        ("c", 10, 229),
        ("c", 1, 7),
        ("c", 1, 11),
        ("u", 240, 3),
        ("b", 240, 1),
        ("p", 0, 0),
    ]);
    let node = (kind, option::of(0u32..0o1000), 0u32..2000, 0u32..2000, any::<bool>());
    let nodes = vec(node, 0..4).prop_map(|nodes| {
        let nodes =
            nodes.into_iter().enumerate().map(|(number, ((kind, major, minor), mode, uid, gid, in_dev))| {
                let path = if in_dev { format!("/dev/sub/probe{number}") } else { format!("/probe{number}") };
                let mut node = json!({ "path": path, "type": kind, "major": major, "minor": minor });
                if let Some(mode) = mode {
                    node["fileMode"] = mode.into();
                    node["uid"] = uid.into();
                    node["gid"] = gid.into();
                }
                node
            });
        nodes.collect::<Value>()
    });
    let kind = option::of(select(vec!["a", "b", "c"]));
    let number = |numbers: Vec<i64>| option::of(select(numbers));
    let access = option::of(select(vec!["r", "w", "m", "rw", "rwm", "wm"]));
    let rule =
        (any::<bool>(), kind, number(vec![-1, 1, 10, 240]), number(vec![-1, 1, 3, 7, 11, 200]), access);
    let rules = vec(rule, 0..5).prop_map(|rules| {
        let rules = rules.into_iter().map(|(allow, kind, major, minor, access)| {
            let mut rule = json!({ "allow": allow });
            for (name, value) in [
                ("type", kind.map(Value::from)),
                ("major", major.map(Value::from)),
                ("minor", minor.map(Value::from)),
                ("access", access.map(Value::from)),
            ] {
                if let Some(value) = value {
                    rule[name] = value;
                }
            }
            rule
        });
        rules.collect::<Value>()
    });
    (option::of(nodes), option::of(rules))
        .prop_map(|(nodes, rules)| given([("linux.devices", nodes), ("linux.resources.devices", rules)]))
}

pub fn memory() -> impl Strategy<Value = Settings> {
    const MIN: i64 = 64 << 20;
    let limit = prop_oneof![1 => Just(-1), 4 => MIN..(512 << 20)];
    let swap = prop_oneof![Just(None), Just(Some(None)), (0i64..1 << 30).prop_map(|more| Some(Some(more)))];
    (option::of((limit, swap)), option::of(1i64..MIN)).prop_map(|(limit, reservation)| {
        let swap = limit.and_then(|(limit, swap)| match swap {
            Some(Some(more)) if limit > 0 => Some(limit + more),
            Some(None) => Some(-1),
            _ => None,
        });
        given([
            ("linux.resources.memory.limit", limit.map(|(limit, _)| json!(limit))),
            ("linux.resources.memory.swap", swap.map(|swap| json!(swap))),
            ("linux.resources.memory.reservation", reservation.map(|bytes| json!(bytes))),
        ])
    })
}

pub fn cpu() -> impl Strategy<Value = Settings> {
    // A period that the quota fills at least by half, or the check takes long.
    let time = (10_000u64..1_000_000, option::of((any::<Index>(), option::of(any::<Index>()))));
    let weight = prop_oneof![
        Just((None, None)),
        (2u64..=262_144).prop_map(|shares| (Some(shares), None)),
        Just((None, Some(1))),
        Just((None, Some(0))),
    ];
    (option::of(time), weight).prop_map(|(time, (shares, idle))| {
        let period = time.as_ref().map(|(period, _)| *period);
        let quota = time.and_then(|(period, quota)| {
            let (quota, burst) = quota?;
            let quota = period / 2 + quota.index(period as usize) as u64;
            Some((quota, burst.map(|burst| burst.index(quota as usize))))
        });
        given([
            ("linux.resources.cpu.period", period.map(|period| json!(period))),
            ("linux.resources.cpu.quota", quota.map(|(quota, _)| json!(quota))),
            ("linux.resources.cpu.burst", quota.and_then(|(_, burst)| burst).map(|burst| json!(burst))),
            ("linux.resources.cpu.shares", shares.map(|shares| json!(shares))),
            ("linux.resources.cpu.idle", idle.map(|idle| json!(idle))),
        ])
    })
}

pub fn other_resources() -> impl Strategy<Value = Settings> {
    let pids = prop_oneof![Just(-1i64), 20..10_000i64];
    let pages = 0u64..(1 << 30);
    let high = (100u64..200).prop_map(|mib| (mib << 20).to_string());
    let unified = (option::of(high), option::of(select(vec!["0", "1"])));
    (option::of(pids), option::of(pages), option::of(10u16..=1000), option::of(unified)).prop_map(
        |(pids, pages, weight, unified)| {
            let unified = unified.map(|(high, group)| {
                let mut files = serde_json::Map::new();
                files.extend(high.map(|high| ("memory.high".to_owned(), json!(high))));
                files.extend(group.map(|group| ("memory.oom.group".to_owned(), json!(group))));
                Value::Object(files)
            });
            given([
                ("linux.resources.pids.limit", pids.map(|limit| json!(limit))),
                (
                    "linux.resources.hugepageLimits",
                    pages.map(|limit| json!([{ "pageSize": "2MB", "limit": limit }])),
                ),
                ("linux.resources.blockIO.weight", weight.map(|weight| json!(weight))),
                ("linux.resources.unified", unified),
            ])
        },
    )
}

use super::*;
use serde_json::{Value, json};

fn lowered(name: &str, value: Value) -> Result<Scheduling, SpecError> {
    let mut process = json!({ "cwd": "/", "user": {} });
    process[name] = value;
    lower(&serde_json::from_value(process).unwrap())
}

#[test]
fn numbers_are_the_kernels() {
    let scheduler = |value| lowered("scheduler", value).unwrap().scheduler.unwrap();
    let batch = scheduler(json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_RESET_ON_FORK"] }));
    assert_eq!(batch, Scheduler { policy: 3, nice: 7, flags: 1, ..Scheduler::default() });
    let fifo = scheduler(json!({ "policy": "SCHED_FIFO", "priority": 99 }));
    assert_eq!(fifo, Scheduler { policy: 1, priority: 99, ..Scheduler::default() });
    let deadline = json!({ "policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 20, "period": 30, "flags": ["SCHED_FLAG_RECLAIM"] });
    let expected = Scheduler {
        policy: 6,
        flags: 2,
        runtime_ns: 10,
        deadline_ns: 20,
        period_ns: 30,
        ..Scheduler::default()
    };
    assert_eq!(scheduler(deadline), expected);
    let io = lowered("ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 7 })).unwrap();
    assert_eq!(io.io_priority, Some(0x6007));
    let cpus = lowered("execCPUAffinity", json!({ "initial": "0", "final": "0-1,64" })).unwrap();
    assert_eq!((cpus.initial_cpus, cpus.final_cpus), (vec![1], vec![3, 1]));
}

#[test]
fn mistakes_are_named() {
    for (name, value, path) in [
        ("scheduler", json!({ "policy": "SCHED_ISO" }), "policy"),
        ("scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }), "nice"),
        ("scheduler", json!({ "policy": "SCHED_OTHER", "priority": 1 }), "priority"),
        ("scheduler", json!({ "policy": "SCHED_RR" }), "priority"),
        ("scheduler", json!({ "policy": "SCHED_FIFO", "priority": 100 }), "priority"),
        ("scheduler", json!({ "policy": "SCHED_BATCH", "period": 5 }), "period"),
        ("scheduler", json!({ "policy": "SCHED_DEADLINE" }), "runtime"),
        ("scheduler", json!({ "policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 4 }), "runtime"),
        (
            "scheduler",
            json!({ "policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 9, "period": 8 }),
            "deadline",
        ),
        ("ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }), "priority"),
        ("ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": -1 }), "priority"),
        ("execCPUAffinity", json!({ "final": "3-1" }), "final"),
        ("execCPUAffinity", json!({ "initial": "99999" }), "initial"),
    ] {
        let error = lowered(name, value.clone()).unwrap_err();
        assert_eq!(error.path, format!("process.{name}.{path}"), "{value}");
    }
}

//! `mounts`, `root` and what covers parts of it.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{Settings, given};
use crate::fixture::{DIRECTORIES, FILES};

pub fn root() -> impl Strategy<Value = Settings> {
    let propagation =
        select(vec!["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave"]);
    (any::<bool>(), option::of(propagation)).prop_map(|(readonly, propagation)| {
        given([
            ("root.readonly", Some(json!(readonly))),
            ("linux.rootfsPropagation", propagation.map(Value::from)),
        ])
    })
}

/// One of several words, or none.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    option::of(select(words)).prop_map(|word| word.into_iter().map(str::to_owned).collect())
}

/// Options that any mount takes, in any order.
fn options() -> impl Strategy<Value = Vec<String>> {
    let switches = [
        word(&["nosuid", "suid"]),
        word(&["nodev", "dev"]),
        word(&["noexec", "exec"]),
        word(&["ro", "rw"]),
        word(&["noatime", "relatime", "strictatime"]),
        word(&["nodiratime", "diratime"]),
        word(&["nosymfollow"]),
        word(&["private", "shared", "slave", "rprivate", "rshared", "rslave", "unbindable"]),
    ];
    (switches, recursive()).prop_map(|(words, recursive)| [words.concat(), recursive].concat()).prop_shuffle()
}

/// Those that are for what is mounted below too.
fn recursive() -> impl Strategy<Value = Vec<String>> {
    let switches = [
        word(&["rro", "rrw"]),
        word(&["rnosuid", "rsuid"]),
        word(&["rnodev", "rdev"]),
        word(&["rnoexec", "rexec"]),
        word(&["rnoatime", "rrelatime", "rstrictatime"]),
        word(&["rnodiratime", "rdiratime"]),
        word(&["rnosymfollow", "rsymfollow"]),
    ];
    prop_oneof![2 => Just(Vec::new()), 1 => switches.prop_map(|words| words.concat())]
}

fn tmpfs() -> impl Strategy<Value = (&'static str, Value, Vec<String>)> {
    let number = |name: &'static str, range: std::ops::Range<u32>| {
        option::of(range).prop_map(move |number| number.map(|number| format!("{name}={number}")))
    };
    let size = option::of((1u32..2000, select(vec!["k", "m"])))
        .prop_map(|size| size.map(|(size, unit)| format!("size={size}{unit}")));
    // Everybody has to pass.
    let mode =
        option::of(0u32..0o100).prop_map(|mode| mode.map(|mode| format!("mode={:o}", mode << 3 | 0o1705)));
    let own = (size, mode, number("nr_inodes", 50..1000), number("uid", 0..2000), number("gid", 0..2000));
    let whole = (word(&["sync", "async"]), word(&["dirsync"]), word(&["lazytime"]));
    (own, whole).prop_map(|((size, mode, inodes, uid, gid), (sync, dirsync, lazytime))| {
        let mut options: Vec<String> = [size, mode, inodes, uid, gid].into_iter().flatten().collect();
        options.extend([sync, dirsync, lazytime].concat());
        ("tmpfs", json!("tmpfs"), options)
    })
}

fn directory() -> impl Strategy<Value = (&'static str, Value, Vec<String>)> {
    let kinds = select(vec![("bind", "rbind"), ("bind", "bind"), ("none", "rbind"), ("none", "bind")]);
    (kinds, select(&DIRECTORIES))
        .prop_map(|((kind, option), source)| (kind, json!(source), vec![option.to_owned()]))
}

pub fn mounts() -> impl Strategy<Value = Settings> {
    const DIRECTORY_PLACES: [&str; 6] = ["/m", "/m/a", "/m/a/b", "/m/c", "/link/d", "/opt/new/e"];
    const FILE_PLACES: [&str; 3] = ["/etc/one", "/new/file", "/link/file"];
    let directory = (select(&DIRECTORY_PLACES), prop_oneof![tmpfs().boxed(), directory().boxed()], options());
    let file = (select(&FILE_PLACES), select(&FILES), options());
    let directory = directory.prop_map(|(destination, (kind, source, own), options)| {
        let options = [own, options].concat();
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    });
    let file = file.prop_map(|(destination, source, options)| {
        let options = [options, vec!["bind".to_owned()]].concat();
        json!({ "destination": destination, "type": "bind", "source": source, "options": options })
    });
    let mounts = vec(prop_oneof![3 => directory.boxed(), 1 => file.boxed()], 0..6);
    mounts.prop_map(|mounts| given([("mounts", Some(Value::Array(buildable(mounts))))]))
}

/// Without what cannot be mounted: there is no place for a mount point in a directory of the host's that is
/// read-only, nor one that the guest may make a link in.
fn buildable(mounts: Vec<Value>) -> Vec<Value> {
    let place = |mount: &Value| mount["destination"].as_str().unwrap_or_default().to_owned();
    let has = |mount: &Value, option: &str| {
        mount["options"].as_array().is_some_and(|options| options.iter().any(|found| found == option))
    };
    let mut kept: Vec<Value> = Vec::new();
    for mount in mounts {
        let is_below = |other: &Value| place(&mount).starts_with(&format!("{}/", place(other)));
        let is_readonly = |other: &Value| has(other, "ro") || has(other, "rro");
        if !kept.iter().any(|other| is_below(other) && is_readonly(other) && other["type"] != "tmpfs") {
            kept.push(mount);
        }
    }
    kept
}

pub fn paths_and_sysctl() -> impl Strategy<Value = Settings> {
    let masked =
        vec!["/proc/kcore", "/proc/keys", "/masked", "/masked/file", "/sys/firmware", "/no/such/file"];
    let readonly = vec!["/proc/sys", "/proc/irq", "/writable", "/etc/passwd", "/no/such/file"];
    let sysctl =
        (option::of(select(vec!["0", "1"])), option::of(1u32..60_000), option::of(32_768u32..60_999));
    let sysctl = sysctl.prop_map(|(forced, size, port)| {
        let mut map = serde_json::Map::new();
        map.extend(forced.map(|value| ("kernel.shm_rmid_forced".to_owned(), json!(value))));
        map.extend(size.map(|value| ("kernel.msgmax".to_owned(), json!(value.to_string()))));
        map.extend(
            port.map(|port| ("net.ipv4.ip_local_port_range".to_owned(), json!(format!("{port} 61000")))),
        );
        Value::Object(map)
    });
    let some = |paths: Vec<&'static str>| option::of(subsequence(paths.clone(), 0..=paths.len()));
    (some(masked), some(readonly), option::of(sysctl)).prop_map(|(masked, readonly, sysctl)| {
        given([
            ("linux.maskedPaths", masked.map(|paths| json!(paths))),
            ("linux.readonlyPaths", readonly.map(|paths| json!(paths))),
            ("linux.sysctl", sysctl),
        ])
    })
}

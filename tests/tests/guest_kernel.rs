//! The guest's kernel has what programs that make containers themselves ask of one, is hardened, and lacks what a guest has no
//! business with.

use std::path::Path;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;

/// guest-kernel/README.md, "Hardening", says what each is for.
const HARDENING: [&str; 15] = [
    "BUG_ON_DATA_CORRUPTION",
    "FORTIFY_SOURCE",
    "HARDENED_USERCOPY",
    "INIT_STACK_ALL_ZERO",
    "LIST_HARDENED",
    "RANDOMIZE_KSTACK_OFFSET_DEFAULT",
    "SCHED_STACK_END_CHECK",
    "SECURITY_DMESG_RESTRICT",
    "SLAB_BUCKETS",
    "SLAB_FREELIST_HARDENED",
    "SLAB_FREELIST_RANDOM",
    "STACKPROTECTOR_STRONG",
    "STATIC_USERMODEHELPER",
    "STRICT_KERNEL_RWX",
    "VMAP_STACK",
];

const ABSENT: [&str; 9] = [
    "DEVMEM",
    "DEVPORT",
    "KEXEC",
    "KVM",
    "MODULES",
    "PROC_KCORE",
    "VHOST",
    "VIRTUALIZATION",
    "X86_IOPL_IOPERM",
];

/// The options that the guest's kernel was built with.
fn options() -> Vec<String> {
    let bundle = Bundle::script("busybox zcat /proc/config.gz");
    let config = Stockade::new().run_bundle(&bundle, "config").success().stdout;
    config
        .lines()
        .filter_map(|line| Some(line.strip_prefix("CONFIG_")?.strip_suffix("=y")?.to_owned()))
        .collect()
}

#[test]
fn it_has_what_container_engines_ask_for_and_what_protects_it() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("guest-kernel/container-engines.list");
    let list = std::fs::read_to_string(list).expect("the list");
    let wanted: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(wanted.len() > 100, "the list is complete: {wanted:?}");

    let options = options();
    let is_set = |option: &&&str| options.iter().any(|set| set == **option);
    let missing: Vec<&&str> = wanted.iter().chain(&HARDENING).filter(|option| !is_set(option)).collect();
    assert!(missing.is_empty(), "the guest's kernel lacks {missing:?}");
    let found: Vec<&&str> = ABSENT.iter().filter(is_set).collect();
    assert!(found.is_empty(), "the guest's kernel has {found:?}");
}

#[test]
fn root_of_the_guest_finds_no_device_that_is_the_machine_or_a_hypervisor() {
    let bundle = Bundle::script(
        "busybox cat /proc/misc /proc/devices; for node in '1 1' '1 4' '10 232'; do \
         busybox mknod /dev/node c $node && busybox cat /dev/node 2>&1; busybox rm /dev/node; done",
    )
    .edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                serde_json::json!(["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYS_ADMIN"]);
        }
        config["linux"]["resources"] = serde_json::json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    });
    let outcome = Stockade::new().run_bundle(&bundle, "devices");
    for name in ["kvm", "vhost-net", "vhost-vsock"] {
        assert!(!outcome.stdout.contains(name), "{name}: {outcome:#?}");
    }
    assert_eq!(outcome.stdout.matches("No such device").count(), 3, "{outcome:#?}");
}

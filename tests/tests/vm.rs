//! The `vm` section of config.json, as far as the configuration allows it.

use std::fs;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, built, text};
use stockade_tests::host;

/// `[vm]` with these directories and limits.
fn config(kernels: &str) -> String {
    format!(
        "[vm]\nkernels = [\"{kernels}\"]\ninitrds = [\"{kernels}\"]\nkernel_parameters = [\"loglevel\", \"stockade.note\"]\n\
         max_memory_mib = 512\n"
    )
}

#[test]
fn kernel_initramfs_parameters_and_memory_are_the_bundles() {
    let directory = tempfile::tempdir().expect("directory");
    for name in ["vmlinux", "initramfs"] {
        fs::copy(built(&format!("guest/{name}")), directory.path().join(name)).expect("copy");
    }
    let stockade = Stockade::with_config(&config(text(directory.path())));
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["vm"] = json!({
            "kernel": {
                "path": directory.path().join("vmlinux"), "initrd": directory.path().join("initramfs"),
                "parameters": ["stockade.note=bundle", "loglevel=3"],
            },
            "hwConfig": { "vcpus": 1, "memory": 256 << 20 },
        });
    });
    let relay = stockade.create(&bundle, "c");
    let vmm = stockade.vmm_pid(relay);
    // The kernel's file is mapped for as long as the VM lives.
    let maps = fs::read_to_string(format!("/proc/{vmm}/maps")).expect("maps");
    assert!(maps.contains(&directory.path().join("vmlinux").display().to_string()), "{maps}");
    let line = stockade.run(&["exec", "c", "cat", "/proc/cmdline"]).success().stdout;
    assert!(line.contains("stockade.note=bundle loglevel=3"), "{line}");
    let memory = stockade.run(&["exec", "c", "grep", "MemTotal", "/proc/meminfo"]).success().stdout;
    let total: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("MemTotal");
    assert!((200 << 10..=256 << 10).contains(&total), "{memory}");
    stockade.run(&["delete", "--force", "c"]).success();
    host::wait_for_end(vmm);

    // What is above the configuration's limit is not given.
    let bundle = bundle.edit(|config| config["vm"]["hwConfig"]["memory"] = json!(1u64 << 30));
    stockade.run_bundle(&bundle, "c").failure(1, &["vm.hwConfig.memory", "512 MiB"]);
}

#[test]
fn a_member_of_a_pod_cannot_say_what_the_vm_is() {
    let stockade = Stockade::new();
    stockade.create(&Bundle::busybox(&["sleep", "10000"]), "sandbox");
    let member = Bundle::busybox(&["true"]).edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "sandbox",
        });
        config["vm"] = json!({ "kernel": { "path": "" } });
    });
    stockade.run_bundle(&member, "member").failure(1, &["vm: ", "sandbox"]);
    stockade.run(&["delete", "--force", "sandbox"]).success();
}

#[test]
fn a_key_of_the_table_that_is_not_known_comes_with_a_suggestion() {
    let stockade = Stockade::with_config("[vm]\nkernel = \"/k\"\n");
    stockade.run_bundle(&Bundle::busybox(&["true"]), "c").failure(1, &["`vm.kernel`", "`vm.kernels`"]);
}

use super::*;
use crate::config::{AllowedVm, Templates, VmmUsers};
use serde_json::{Value, json};

/// What the section makes of a configuration that allows `allowed` to exist in `directory`.
fn applied(directory: &Path, allowed: &AllowedVm, vm: Value) -> Result<(Config, Fixed), SpecError> {
    fs::create_dir_all(directory.join("rootfs")).unwrap();
    let config = json!({ "ociVersion": "1.3.0", "root": { "path": "rootfs" }, "vm": vm });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let bundle = Bundle::load(directory, None).unwrap();
    let config = Config {
        vmm: "/dev/null".into(),
        kernel: directory.join("kernel"),
        initramfs: directory.join("initramfs"),
        kernel_parameters: "quiet".to_owned(),
        memory_mib: 512,
        max_vcpus: None,
        debug_shell: None,
        host_sockets: Vec::new(),
        apparmor_policies: Vec::new(),
        selinux: None,
        scratch: crate::config::scratch::Scratch::default(),
        allowed_annotations: Vec::new(),
        core_scheduling: false,
        vmm_users: VmmUsers::default(),
        templates: Templates::On,
        template_classes_mib: Vec::new(),
        template_memory_mib: None,
        vm: allowed.clone(),
    };
    apply(&bundle, config, Some(256 << 20))
}

fn files(directory: &Path) {
    fs::create_dir(directory.join("kernels")).unwrap();
    for name in ["kernel", "initramfs", "kernels/new", "other"] {
        fs::write(directory.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink("../other", directory.join("kernels/out")).unwrap();
}

#[test]
fn what_is_listed_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    files(directory.path());
    let allowed = AllowedVm {
        kernels: vec![at("kernels")],
        initrds: vec![at("other")],
        kernel_parameters: vec!["loglevel".to_owned(), "init-x".to_owned()],
        max_memory_mib: Some(4096),
        max_vcpus: Some(8),
    };
    let vm = json!({
        "hypervisor": { "path": "/dev/null" },
        "kernel": { "path": at("kernels/new"), "initrd": at("other"), "parameters": ["loglevel=7", "init_x"] },
        "hwConfig": { "vcpus": 8, "memory": 1024 << 20 },
    });
    let (config, fixed) = applied(directory.path(), &allowed, vm).unwrap();
    assert_eq!(config.kernel, at("kernels/new").canonicalize().unwrap());
    assert_eq!(config.initramfs, at("other").canonicalize().unwrap());
    assert_eq!(config.kernel_parameters, "quiet loglevel=7 init_x");
    assert_eq!(fixed, Fixed { mib: Some(1024), vcpus: Some(8) });
}

#[test]
fn what_the_installation_uses_anyway_needs_no_leave() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    for path in [json!(""), json!(directory.path().join("kernel"))] {
        let vm = json!({ "kernel": { "path": path }, "hwConfig": { "vcpus": 1 } });
        let (config, fixed) = applied(directory.path(), &AllowedVm::default(), vm).unwrap();
        assert_eq!((config.kernel, fixed.mib), (directory.path().join("kernel"), None));
    }
}

#[test]
fn what_is_not_listed_or_cannot_be_is_named_with_the_key_that_would_allow_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    files(directory.path());
    let some = AllowedVm {
        kernels: vec![at("kernels")],
        initrds: vec![],
        kernel_parameters: vec!["loglevel".to_owned()],
        max_memory_mib: Some(1024),
        max_vcpus: Some(4),
    };
    let kernel = |path: PathBuf| json!({ "kernel": { "path": path } });
    let parameter = |text: &str| json!({ "kernel": { "path": "", "parameters": ["loglevel=1", text] } });
    let hardware = |value: Value| json!({ "kernel": { "path": "" }, "hwConfig": value });
    for (vm, path, word) in [
        (kernel(at("other")), "vm.kernel.path", "`kernels`"),
        (kernel(at("kernels/out")), "vm.kernel.path", "`kernels`"),
        (kernel(at("kernels/none")), "vm.kernel.path", "no such file"),
        (kernel(at("none")), "vm.kernel.path", "`kernels`"),
        (kernel("relative".into()), "vm.kernel.path", "absolute"),
        (json!({ "kernel": { "path": "", "initrd": at("other") } }), "vm.kernel.initrd", "`initrds`"),
        (parameter("quiet"), "vm.kernel.parameters[1]", "`kernel_parameters`"),
        (parameter("loglevel=1 quiet"), "vm.kernel.parameters[1]", "one word"),
        (parameter("loglevel=\"1"), "vm.kernel.parameters[1]", "one word"),
        (
            json!({ "kernel": { "path": "" }, "hypervisor": { "path": "/bin/sh" } }),
            "vm.hypervisor.path",
            "/dev/null",
        ),
        (
            json!({ "kernel": { "path": "" }, "hypervisor": { "path": "", "parameters": ["-x"] } }),
            "vm.hypervisor.parameters[0]",
            "-x",
        ),
        (
            json!({ "kernel": { "path": "" }, "image": { "path": "/i", "format": "raw" } }),
            "vm.image",
            "initramfs",
        ),
        (hardware(json!({ "vcpus": 5 })), "vm.hwConfig.vcpus", "4 that the configuration allows"),
        (hardware(json!({ "vcpus": 5000 })), "vm.hwConfig.vcpus", "4 that the configuration allows"),
        (hardware(json!({ "deviceTree": "/d" })), "vm.hwConfig.deviceTree", "hardware"),
        (hardware(json!({ "irqs": [1] })), "vm.hwConfig.irqs", "hardware"),
        (hardware(json!({ "memory": 1 << 20 })), "vm.hwConfig.memory", "128 MiB"),
        (hardware(json!({ "memory": 2048u64 << 20 })), "vm.hwConfig.memory", "1024 MiB"),
        (hardware(json!({ "memory": 200 << 20 })), "vm.hwConfig.memory", "linux.resources.memory.limit"),
    ] {
        let error = applied(directory.path(), &some, vm.clone()).unwrap_err();
        assert_eq!(error.path, path, "{vm}");
        assert!(error.problem.contains(word), "{vm}: {error}");
    }
    let error = applied(directory.path(), &AllowedVm::default(), hardware(json!({ "memory": 512 << 20 })));
    assert!(error.unwrap_err().problem.contains("`max_memory_mib`"));
    let error = applied(directory.path(), &AllowedVm::default(), hardware(json!({ "vcpus": 2 })));
    assert!(error.unwrap_err().problem.contains("`max_vcpus`"));
}

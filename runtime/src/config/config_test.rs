use super::*;

#[test]
fn unknown_keys_come_with_a_suggestion() {
    let error = parse("kernal = \"/boot/vmlinux\"").unwrap_err();
    assert!(error.contains("`kernal`") && error.contains("`kernel`"), "{error}");
    let error = parse("memory = 512").unwrap_err();
    assert!(error.contains("`memory_mib`"), "{error}");
}

#[test]
fn keys_of_the_table_vm_are_known_too() {
    let error = parse("[vm]\nkernel = [\"/boot/vmlinux\"]").unwrap_err();
    assert!(error.contains("`vm.kernel`") && error.contains("`vm.kernels`"), "{error}");
    let error = parse("[vm]\nkernels = [\"vmlinux\"]").unwrap_err();
    assert!(error.contains("vmlinux") && error.contains("absolute"), "{error}");
    assert!(parse("[vm]\nmax_memory_mib = 1").unwrap_err().contains("vm.max_memory_mib"));
    assert!(parse("vm = true").is_err());
    let file = parse("[vm]\nkernel_parameters = [\"quiet\"]\nmax_memory_mib = 8192").unwrap();
    let config = Config::resolve(file, Path::new("/usr/bin/stockade"), |_| false);
    assert_eq!(config.vm.kernel_parameters, ["quiet"]);
    assert_eq!(config.vm.max_memory_mib, Some(8192));
}

#[test]
fn wrong_values_are_named() {
    assert!(parse("memory_mib = -1").is_err());
    assert!(parse("memory_mib = 0").unwrap_err().contains("memory_mib"));
    assert!(parse("memory_mib = \"many\"").is_err());
    for (text, key) in [("max_vcpus = 0", "max_vcpus"), ("[vm]\nmax_vcpus = 65", "vm.max_vcpus")] {
        assert!(parse(text).unwrap_err().contains(key));
    }
    assert!(parse("debug_shell = \"sh\"").unwrap_err().contains("debug_shell"));
    assert!(parse("= =").is_err());
    let error = parse("host_sockets = [\"/run/a.sock\", \"b.sock\"]").map(drop).unwrap_err();
    assert!(
        error.contains("host_sockets") && error.contains("b.sock") && error.contains("absolute"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
    assert!(parse("host_sockets = \"/run/a.sock\"").is_err());
}

#[test]
fn annotations_are_listed_by_names_that_are_known() {
    let file = parse("allowed_annotations = [\"io.stockade.network\"]").unwrap();
    let config = Config::resolve(file, Path::new("/usr/bin/stockade"), |_| false);
    assert_eq!(config.allowed_annotations, ["io.stockade.network"]);
    let error = parse("allowed_annotations = [\"io.stockade.networks\"]").map(drop).unwrap_err();
    assert!(error.contains("`io.stockade.networks`") && error.contains("`io.stockade.network`"), "{error}");
    assert!(parse("allowed_annotations = \"io.stockade.network\"").is_err());
}

#[test]
fn sockets_are_listed() {
    let config = |text| Config::resolve(parse(text).unwrap(), Path::new("/usr/bin/stockade"), |_| false);
    assert!(config("").host_sockets.is_empty());
    let listed = config("host_sockets = [\"/run/a.sock\", \"/run/plugins/*.sock\"]").host_sockets;
    assert_eq!(listed.len(), 2);
    assert!(listed[1].matches(Path::new("/run/plugins/b.sock")));
}

#[test]
fn users_of_vmms_are_a_range_without_root() {
    let users = |text: &str| parse(text).map(|file| file.vmm_users);
    assert_eq!(users("").unwrap(), VmmUsers { first: 2_000_000_000, count: 65_536 });
    assert_eq!(users("vmm_users = { first = 5 }").unwrap(), VmmUsers { first: 5, count: 65_536 });
    for text in ["{ first = 0 }", "{ count = 0 }", "{ first = 4294967295, count = 2 }"] {
        let error = users(&format!("vmm_users = {text}")).unwrap_err();
        assert!(error.starts_with("vmm_users: "), "{text}: {error}");
    }
    let error = users("vmm_users = { frist = 5 }").unwrap_err();
    assert!(error.contains("`vmm_users.first`"), "{error}");
}

#[test]
fn a_checkout_and_an_installation_are_told_apart() {
    let built = Config::resolve(File::default(), Path::new("/src/target/release/stockade"), |path| {
        path == Path::new("/src/target/release/stockade-vmm") || path == Path::new("/src/target/guest")
    });
    assert_eq!(built.vmm, Path::new("/src/target/release/stockade-vmm"));
    assert_eq!(built.kernel, Path::new("/src/target/guest/vmlinux"));

    let triple = Config::resolve(File::default(), Path::new("/src/target/triple/debug/stockade"), |path| {
        path == Path::new("/src/target/triple/debug/stockade-vmm") || path == Path::new("/src/target/guest")
    });
    assert_eq!(triple.initramfs, Path::new("/src/target/guest/initramfs"));

    let installed = Config::resolve(File::default(), Path::new("/usr/bin/stockade"), |_| false);
    assert_eq!(installed.vmm, Path::new("/usr/libexec/stockade/stockade-vmm"));
    assert_eq!(installed.kernel, Path::new("/usr/share/stockade/vmlinux"));
}

#[test]
fn the_file_overrides() {
    let file = parse("kernel = \"/k\"\nmemory_mib = 512\nkernel_parameters = \"quiet\"").unwrap();
    let config = Config::resolve(file, Path::new("/usr/bin/stockade"), |_| false);
    assert_eq!(config.kernel, Path::new("/k"));
    assert_eq!(config.memory_mib, 512);
    assert_eq!(config.kernel_parameters, "quiet");
    assert_eq!(config.debug_shell, None);
}

#[test]
fn a_policy_of_selinux_has_the_guests_kernel_start_it() {
    let parameters = |text: &str| {
        let config = Config::resolve(parse(text).unwrap(), Path::new("/usr/bin/stockade"), |_| false);
        config.kernel_parameters
    };
    let table = "[selinux]\npolicy = \"host\"\nagent = \"system_u:system_r:container_runtime_t:s0:c1,c2\"";
    assert_eq!(parameters(table), "lsm=landlock,yama,selinux");
    assert_eq!(
        parameters(&format!("kernel_parameters = \"quiet\"\n{table}")),
        "quiet lsm=landlock,yama,selinux"
    );
    // The administrator's own choice counts.
    let own = format!("kernel_parameters = \"lsm=selinux\"\n{table}");
    assert_eq!(parameters(&own), "lsm=selinux");
    for (text, words) in [
        ("[selinux]\npolicy = \"policy.33\"", "selinux.policy"),
        ("[selinux]\npolicies = \"host\"", "`selinux.policy`"),
        ("[selinux]\npolicy = \"host\"\nagent = \"a:b:c\\\",x\"", "selinux.agent"),
        ("[selinux]\npolicy = \"host\"\nmode = \"off\"", "off"),
        ("[selinux]\nmode = \"permissive\"", "policy"),
    ] {
        let error = parse(text).map(drop).unwrap_err();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }
}

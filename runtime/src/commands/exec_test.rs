use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_variable_is_there_once() {
    let env = strings(&["PATH=/bin", "A=1", "AB=2"]);
    assert_eq!(
        with_variables(env, &strings(&["A=3", "C=4", "C=5"])),
        strings(&["PATH=/bin", "AB=2", "A=3", "C=5"])
    );
}

#[test]
fn a_capability_may_be_written_in_any_way() {
    for name in ["CAP_SYS_ADMIN", "SYS_ADMIN", "sys_admin", "cap_sys_admin"] {
        assert_eq!(capability(name).unwrap(), Capability::SysAdmin);
    }
    assert!(capability("CAP_NO_SUCH").unwrap_err().to_string().contains("CAP_NO_SUCH"));
}

#[test]
fn an_added_capability_is_not_inheritable() {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some([Capability::Chown].into()));
    sets.set_inheritable(None).set_ambient(None);
    let added = with_capabilities(Some(&sets), &[Capability::Kill].into());
    for set in [added.bounding(), added.effective(), added.permitted()] {
        assert!(set.as_ref().unwrap().contains(&Capability::Kill));
    }
    assert_eq!((added.inheritable(), added.ambient()), (&None, &Some([].into())));
    // config.json's own is as it was, and what is in it becomes ambient.
    sets.set_inheritable(Some([Capability::Kill].into()));
    let added = with_capabilities(Some(&sets), &[Capability::Kill, Capability::Chown].into());
    assert_eq!(*added.inheritable(), Some([Capability::Kill].into()));
    assert_eq!(*added.ambient(), Some([Capability::Kill].into()));
}

use super::*;
use proptest::prelude::*;

fn options(list: &[&str]) -> Options {
    Options::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
}

#[test]
fn options_become_flags_and_data() {
    let parsed = options(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
    assert_eq!(parsed.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
    assert_eq!(parsed.data, ["mode=755", "size=65536k"]);
    assert!(parsed.propagation.is_empty());
}

#[test]
fn the_last_of_two_opposites_wins() {
    assert_eq!(options(&["ro", "rw"]).flags, 0);
    assert_eq!(options(&["rw", "ro"]).flags, libc::MS_RDONLY);
    assert_eq!(options(&["rbind", "ro", "suid", "nosuid"]).flags & libc::MS_NOSUID, libc::MS_NOSUID);
}

#[test]
fn propagation_keeps_its_order() {
    let parsed = options(&["rbind", "rslave", "shared"]);
    assert_eq!(parsed.flags, libc::MS_BIND | libc::MS_REC);
    assert_eq!(parsed.propagation, [libc::MS_SLAVE | libc::MS_REC, libc::MS_SHARED]);
}

#[test]
fn recursive_options_come_last_and_choose_one_access_time() {
    assert_eq!(options(&["rro", "rbind", "rw"]).flags, libc::MS_BIND | libc::MS_REC | libc::MS_RDONLY);
    assert_eq!(options(&["ro", "rrw"]).flags, 0);
    assert_eq!(options(&["noatime", "rstrictatime"]).flags, libc::MS_STRICTATIME);
    assert_eq!(options(&["rnoatime", "ratime"]).flags, 0);
    for (name, change) in RECURSIVE_FLAGS {
        let Change::Set(flag) = change else { continue };
        assert_eq!(options(&[name]).flags, flag, "{name}");
    }
}

#[test]
fn what_the_kernel_has_no_word_for_is_not_passed_to_it() {
    let parsed = options(&["ridmap", "copy-symlink", "src-nofollow", "tmpcopyup", "size=1m"]);
    assert_eq!(
        (parsed.id_map, parsed.copy_symlink, parsed.no_follow, parsed.copy_up),
        (Some(true), true, true, true)
    );
    assert_eq!(parsed.data, ["size=1m"]);
    assert_eq!(options(&["idmap=uids=0-1-1"]).refused.as_deref(), Some("idmap=uids=0-1-1"));
}

proptest! {
    #[test]
    fn nothing_is_lost(list in prop::collection::vec("[a-z=]{0,12}", 0..12)) {
        let parsed = Options::parse(&list);
        for option in &list {
            let known = super::options().contains(&option.as_str()) || option.is_empty();
            prop_assert!(known || parsed.data.contains(option) || parsed.refused.is_some());
        }
    }
}

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
fn what_is_not_applied_is_not_passed_to_the_kernel() {
    let parsed = options(&["ridmap", "idmap=uids=0-1-1", "size=1m"]);
    assert_eq!(parsed.unapplied.len(), 2);
    assert_eq!(parsed.data, ["size=1m"]);
}

proptest! {
    #[test]
    fn nothing_is_lost(list in prop::collection::vec("[a-z=]{0,12}", 0..12)) {
        let parsed = Options::parse(&list);
        for option in &list {
            let known = FLAGS.iter().any(|(name, _)| name == option)
                || PROPAGATIONS.iter().any(|(name, _)| name == option)
                || ["rro", "tmpcopyup", "notmpcopyup"].contains(&option.as_str())
                || option.is_empty();
            prop_assert!(known || parsed.data.contains(option) || parsed.unapplied.contains(option));
        }
    }
}

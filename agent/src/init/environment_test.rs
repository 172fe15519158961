use super::*;

const DATABASE: &str =
    "root:x:0:0:root:/root:/bin/sh\nbroken line\nempty:x:7:7:::\nuser:x:1000:1000::/home/user:/bin/sh\n";

#[test]
fn home_is_the_users() {
    assert_eq!(home(DATABASE.as_bytes(), 0), Some("/root".into()));
    assert_eq!(home(DATABASE.as_bytes(), 1000), Some("/home/user".into()));
    assert_eq!(home(DATABASE.as_bytes(), 7), None);
    assert_eq!(home(DATABASE.as_bytes(), 8), None);
}

#[test]
fn a_database_may_be_in_any_encoding() {
    let latin =
        b"root:x:0:0:root:/root:/bin/sh\nm:x:5:5:J\xfcrgen:/home/m:/bin/sh\nw:x:6:6:W:/home/\xfc:/bin/sh\n";
    assert_eq!(home(&latin[..], 5), Some("/home/m".into()));
    assert_eq!(home(&latin[..], 6), Some(OsString::from_vec(b"/home/\xfc".to_vec())));
}

#[test]
fn a_database_that_is_no_text_has_no_homes() {
    assert_eq!(home(&[0xff, b':', 0xfe, b'\n'][..], 0), None);
}

#[test]
fn the_last_entry_counts() {
    let env = ["A=1", "AB=2", "A=3", "EMPTY="].map(str::to_owned);
    assert_eq!(value(&env, "A"), Some("3"));
    assert_eq!(value(&env, "EMPTY"), Some(""));
    assert_eq!(value(&env, "B"), None);
}

use super::{Error, Shares};

#[test]
fn a_name_is_one_path_component() {
    let shares = Shares::new();
    for name in ["", ".", "..", "a/b", "/a", "a/", "../a", "a\0b", &"x".repeat(256)] {
        assert!(matches!(shares.add(name), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(shares.remove(name), Err(Error::Name(_))), "{name:?}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_not_served() {
    let error = Shares::new().add("no-such-share").unwrap_err();
    assert!(matches!(error, Error::Open { .. }));
    assert!(error.to_string().starts_with("/shares/no-such-share of the VMM: "), "{error}");
}

#[test]
fn what_was_not_added_cannot_be_removed() {
    assert!(matches!(Shares::new().remove("a"), Err(Error::NotFound(_))));
}

use super::*;
use proptest::prelude::*;

#[test]
fn what_engines_use_is_valid() {
    for id in ["a", "my-container_1.2+x", "6f1b4c0de9"] {
        assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
    }
}

#[test]
fn what_could_leave_a_directory_is_not() {
    for id in ["", ".", "..", "a/b", "/", "a\0b", "a b", "ü", "a\n"] {
        assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
    }
    assert_eq!("x".repeat(241).parse::<ContainerId>(), Err(InvalidId::TooLong));
}

proptest! {
    #[test]
    fn a_valid_id_is_one_path_component(id in ".{0,300}") {
        if let Ok(id) = id.parse::<ContainerId>() {
            let components: Vec<_> = std::path::Path::new(id.as_str()).components().collect();
            prop_assert!(matches!(components[..], [std::path::Component::Normal(_)]));
        }
    }
}

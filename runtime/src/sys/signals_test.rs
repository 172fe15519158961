use super::*;
use proptest::prelude::*;

#[test]
fn names_and_numbers_mean_the_same() {
    for text in ["15", "TERM", "SIGTERM", "sigterm", "Term"] {
        assert_eq!(parse(text).unwrap(), 15, "{text}");
    }
    assert_eq!(parse("0").unwrap(), 0);
    assert_eq!(parse("RTMIN+3").unwrap(), 37);
    assert_eq!(parse("SIGRTMAX-1").unwrap(), 63);
}

#[test]
fn nonsense_is_refused() {
    for text in ["", "SIG", "65", "-1", "RTMIN+31", "RTMAX-99", "RTMIN+", "RTMIN+-1", "KILLL"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_signal_or_an_error(text in ".*") {
        if let Ok(number) = parse(&text) {
            prop_assert!((0..=64).contains(&number));
        }
    }
}

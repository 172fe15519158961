use proptest::prelude::*;

use super::*;

#[test]
fn what_steers_a_terminal_is_escaped() {
    let value = ["a\u{9b}31m\u{202e}\u{7f}\u{1b}[0m\n", "ü ☃"];
    let expected = r#"["a\u009b31m\u202e\u007f\u001b[0m\n","ü ☃"]"#;
    assert_eq!(compact(&value).unwrap(), expected);
    assert_eq!(pretty(&["\u{feff}"]).unwrap(), "[\n  \"\\ufeff\"\n]");
}

proptest! {
    #[test]
    fn the_value_stays_the_same(text in any::<String>()) {
        let json = compact(&text).unwrap();
        prop_assert!(!json.chars().any(steers));
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}

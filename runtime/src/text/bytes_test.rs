use proptest::prelude::*;

use super::*;

#[test]
fn suffixes_are_powers_of_1024() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("64k", 64 << 10),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2T", 2 << 40),
        ("-1", -1),
    ] {
        assert_eq!(parse_limit(text), Ok(bytes), "{text}");
    }
    for text in ["", "m", "-2", "1x", "1mm", "1.2.3", "0x10", "nan", "1e3", "99999999999t", "infinity"] {
        assert!(parse_limit(text).is_err(), "{text}");
    }
}

#[test]
fn amounts_are_short() {
    for (bytes, text) in
        [(0, "0B"), (1023, "1023B"), (1024, "1.0K"), (3 << 29, "1.5G"), (u64::MAX, "16384.0P")]
    {
        assert_eq!(short(bytes), text);
    }
}

proptest! {
    #[test]
    fn any_text_is_an_amount_or_an_error(text in "\\PC{0,20}|[0-9.]{0,20}[a-z]{0,3}") {
        if let Ok(bytes) = parse_limit(&text) {
            prop_assert!(bytes >= -1);
        }
    }
}

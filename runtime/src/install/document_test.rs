use proptest::prelude::*;
use serde_json::json;

use super::*;

fn setting(keys: &[&str], value: Value) -> Setting {
    Setting { keys: keys.iter().map(ToString::to_string).collect(), value }
}

fn places(settings: &[Setting]) -> Vec<Keys> {
    settings.iter().map(|setting| setting.keys.clone()).collect()
}

#[test]
fn toml_keeps_comments_and_layout() {
    let text = "# mine\nversion = 2 # two\n\n[a.\"b.c\"]\n  x   = 1\n";
    let settings = [setting(&["a", "b.c", "r", "s", "path"], json!("/p")), setting(&["version"], json!(2))];
    let set = Format::Toml.set(text, &settings).unwrap();
    assert!(set.starts_with(text), "{set}");
    assert!(set.ends_with("[a.\"b.c\".r.s]\npath = \"/p\"\n"), "{set}");
    assert_eq!(Format::Toml.set(&set, &settings).unwrap(), set);
    let back = Format::Toml.take_back(&set, &places(&settings[..1]), Some(text)).unwrap();
    assert_eq!(back.as_deref(), Some(text));
}

#[test]
fn a_unit_keeps_its_other_lines() {
    let settings = [setting(&["Service", "Environment"], json!("A=b"))];
    let text = "# mine\n[Unit]\nAfter=x\n[Service]\nNice = 5\n";
    let set = Format::Unit.set(text, &settings).unwrap();
    assert_eq!(set, format!("{text}Environment=A=b\n"));
    assert_eq!(Format::Unit.set(&set, &settings).unwrap(), set);
    let other = set.replace("Nice = 5", "Nice = 6");
    let back = Format::Unit.take_back(&other, &places(&settings), Some(text)).unwrap();
    assert_eq!(back.unwrap(), text.replace("Nice = 5", "Nice = 6"));
    let new = Format::Unit.set("", &settings).unwrap();
    assert_eq!(new, "[Service]\nEnvironment=A=b\n");
    assert_eq!(Format::Unit.take_back(&new, &places(&settings), None).unwrap(), None);
    let own = "[Service]\nEnvironment=C=d\n";
    let set = Format::Unit.set(own, &settings).unwrap();
    assert_eq!(Format::Unit.take_back(&set, &places(&settings), Some(own)).unwrap().as_deref(), Some(own));
    assert!(Format::Unit.set("Nice=5\n", &settings).is_err());
}

#[test]
fn json_keeps_the_order_and_the_other_keys() {
    let settings = [setting(&["runtimes", "s", "path"], json!("/p"))];
    let set = Format::Json
        .set("{\"z\": 1, \"runtimes\": {\"k\": {\"path\": \"/k\"}}, \"a\": [2]}", &settings)
        .unwrap();
    let value: Value = serde_json::from_str(&set).unwrap();
    let expected = json!({ "z": 1, "runtimes": { "k": { "path": "/k" }, "s": { "path": "/p" } }, "a": [2] });
    assert_eq!(value.to_string(), expected.to_string());
}

#[test]
fn a_value_that_was_there_comes_back() {
    let before = "[engine.runtimes]\nstockade = [\"/old\"]\n";
    let settings = [setting(&["engine", "runtimes", "stockade"], json!(["/new"]))];
    let set = Format::Toml.set(before, &settings).unwrap();
    let edited = format!("{set}other = true\n");
    let back = Format::Toml.take_back(&edited, &places(&settings), Some(before)).unwrap().unwrap();
    assert_eq!(back, format!("{before}other = true\n"));
}

#[test]
fn what_cannot_be_changed_says_where() {
    let settings = [setting(&["a", "b"], json!("x"))];
    let line = |format: Format, text: &str| format.set(text, &settings).unwrap_err().to_string();
    assert!(line(Format::Toml, "ok = 1\na = = 2\n").starts_with("line 2: "));
    assert!(line(Format::Json, "{\n\n]").starts_with("line 3: "));
    assert!(line(Format::Json, "[]").contains("not a JSON object"));
    for (format, text) in [(Format::Toml, "a = 1\n"), (Format::Json, "{\"a\": 1}")] {
        assert_eq!(format.set(text, &settings), Err(Problem::NotATable("a".to_owned())));
    }
}

#[test]
fn inline_tables_are_added_to_or_refused() {
    let settings = [setting(&["a", "b", "c"], json!("x"))];
    match Format::Toml.set("a = { d = 1 }\n", &settings) {
        Ok(set) => assert_eq!(Format::Toml.get(&set, &["a", "b", "c"]).unwrap(), Some(json!("x"))),
        Err(problem) => assert_eq!(problem, Problem::NotSet("a.b.c".to_owned())),
    }
}

proptest! {
    #[test]
    fn any_text_is_changed_or_refused(text in "[ -~\\n]{0,60}") {
        let settings = [setting(&["runtimes", "s"], json!(true))];
        for format in [Format::Json, Format::Toml] {
            if let Ok(set) = format.set(&text, &settings) {
                prop_assert_eq!(format.get(&set, &["runtimes", "s"]).unwrap(), Some(json!(true)));
                prop_assert_eq!(&format.set(&set, &settings).unwrap(), &set);
                format.take_back(&set, &places(&settings), Some(&text)).unwrap();
            }
        }
    }
}

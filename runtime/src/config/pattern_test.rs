use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::try_from(text.to_owned()).unwrap()
}

#[test]
fn a_path_means_itself() {
    let docker = pattern("/run/docker.sock");
    assert!(docker.matches(Path::new("/run/docker.sock")));
    for other in
        ["/run/docker.soc", "/run/docker.sock2", "/run/docker/sock", "/run/a/docker.sock", "/run", "/"]
    {
        assert!(!docker.matches(Path::new(other)), "{other}");
    }
}

#[test]
fn an_asterisk_stands_for_a_part_of_one_name() {
    let plugins = pattern("/run/plugins/*.sock");
    for name in ["a.sock", ".sock", "a.sock.sock", "\u{fc}.sock"] {
        assert!(plugins.matches(&Path::new("/run/plugins").join(name)), "{name}");
    }
    for name in ["a.socket", "sock", "b/a.sock", "a.sock/b", "a.sock (deleted)"] {
        assert!(!plugins.matches(&Path::new("/run/plugins").join(name)), "{name}");
    }
    let parts = pattern("/run/*/a*b*c");
    for (path, is_meant) in [
        ("/run/x/abc", true),
        ("/run/x/a-b-bc-c", true),
        ("/run/x/ab", false),
        ("/run/x/ac", false),
        ("/run/x/acb", false),
        ("/run/abc", false),
        ("/run/x/y/abc", false),
    ] {
        assert_eq!(parts.matches(Path::new(path)), is_meant, "{path}");
    }
    // What both ends want cannot be the same bytes.
    assert!(!pattern("/aba*ba").matches(Path::new("/aba")));
}

#[test]
fn what_is_no_pattern_says_why_in_one_line() {
    for (text, word) in [
        ("run/a.sock", "absolute"),
        ("", "absolute"),
        ("/", "empty"),
        ("/run//a.sock", "empty"),
        ("/run/", "empty"),
        ("/run/../a.sock", ".."),
        ("/run/**/a.sock", "**"),
    ] {
        let problem = Pattern::try_from(text.to_owned()).unwrap_err();
        assert!(problem.starts_with("host_sockets: ") && problem.contains(word), "{text}: {problem}");
        assert_eq!(problem.lines().count(), 1);
    }
}

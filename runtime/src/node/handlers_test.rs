use super::*;

#[test]
fn a_handler_is_registered_as_it_is_shown() {
    let shown = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64\nflags: OCF\noffset 0\nmagic 7f454c46\nmask ffffff00\n";
    let handler = parse("qemu-aarch64", shown).unwrap();
    assert_eq!(
        handler.line(),
        "\x01qemu-aarch64\x01M\x010\x01\\x7f\\x45\\x4c\\x46\x01\\xff\\xff\\xff\\x00\x01/usr/libexec/qemu-binfmt/aarch64\x01OCF"
    );
    let shown = "enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n";
    let handler = parse("python", shown).unwrap();
    assert_eq!(handler.line(), "\x01python\x01E\x01\x01py\x01\x01/usr/bin/python3\x01");
}

#[test]
fn what_is_disabled_or_is_not_understood_is_none() {
    assert_eq!(parse("x", "disabled\ninterpreter /bin/x\nflags: F\noffset 0\nmagic 00\n"), None);
    assert_eq!(parse("x", "enabled\ninterpreter /bin/x\nflags: F\noffset 0\nmagic 0\n"), None);
    assert_eq!(parse("x", "enabled\nflags: F\n"), None);
    assert_eq!(parse("x", ""), None);
}

#[test]
fn an_interpreter_is_a_program() {
    assert!(open("/proc/self/nothing").unwrap_err().contains("not at its path"));
    assert!(open("/etc/passwd").unwrap_err().contains("not a program"));
}

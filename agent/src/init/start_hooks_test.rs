use super::*;

fn hook(script: &str, timeout_s: Option<u32>) -> Hook {
    Hook {
        path: "/bin/sh".to_owned(),
        args: vec!["name".to_owned(), "-c".to_owned(), script.to_owned()],
        env: vec!["A=b".to_owned()],
        timeout_s,
        state: "{\"id\":\"c1\"}".to_owned(),
    }
}

#[test]
fn it_reads_the_state_and_has_its_environment() {
    let program = [c"HOME=/home".to_owned()];
    run(&[hook("[ \"$(cat)\" = '{\"id\":\"c1\"}' ] && [ $A = b ] && [ -z \"$HOME\" ]", None)], &program)
        .unwrap();
    // Or the program's, where it has none.
    run(&[Hook { env: Vec::new(), ..hook("[ $HOME = /home ] && [ -z \"$A\" ]", None) }], &program).unwrap();
}

#[test]
fn the_first_failure_is_named_with_its_output() {
    let message = |hooks: &[Hook]| run(hooks, &[]).unwrap_err().message;
    assert_eq!(
        message(&[hook("true", None), hook("echo no; exit 3", None), hook("kill $PPID", None)]),
        "hooks.startContainer[1]: /bin/sh: failed with exit status 3: no"
    );
    assert_eq!(
        message(&[hook("sleep 1000", Some(1))]),
        "hooks.startContainer[0]: /bin/sh: has not ended within 1 seconds"
    );
    assert_eq!(
        message(&[Hook { path: "/no/such".to_owned(), ..hook("", None) }]),
        "hooks.startContainer[0]: /no/such: failed with exit status 127: no such file or directory"
    );
}

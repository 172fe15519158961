use super::*;

fn hook(args: &[&str], timeout_s: Option<u32>) -> Hook {
    Hook {
        property: "hooks.prestart[0]".to_owned(),
        path: "/bin/sh".to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["GREETING=hello world".to_owned()],
        timeout_s,
    }
}

fn run_one_hook(hook: Hook) -> Result<(), String> {
    run(&[hook], "{\"id\":\"c1\"}", Path::new("/"), None).map_err(|error| error.to_string())
}

#[test]
fn it_has_its_name_its_environment_alone_and_the_state() {
    let script = "[ \"$0\" = own-name ] && [ \"$(env | grep -vE '^(PWD|_|SHLVL|OLDPWD)=')\" = 'GREETING=hello world' ] && \
                  [ \"$(cat)\" = '{\"id\":\"c1\"}' ]";
    run_one_hook(hook(&["sh", "-c", script, "own-name"], None)).unwrap();
}

#[test]
fn a_failure_is_named_with_what_the_hook_has_written() {
    let error = run_one_hook(hook(&["sh", "-c", "echo no device >&2; exit 3"], None)).unwrap_err();
    assert_eq!(error, "hooks.prestart[0]: /bin/sh: failed with exit status 3: no device");
    let error = run_one_hook(hook(&["sh", "-c", "kill -9 $$"], None)).unwrap_err();
    assert_eq!(error, "hooks.prestart[0]: /bin/sh: was ended by signal 9");
    let error = run_one_hook(Hook { path: "/no/such".to_owned(), ..hook(&[], None) }).unwrap_err();
    assert!(error.contains("/no/such: No such file"), "{error}");
}

#[test]
fn it_ends_in_time_and_with_its_container() {
    let error = run_one_hook(hook(&["sh", "-c", "sleep 1000"], Some(1))).unwrap_err();
    assert!(error.ends_with("has not ended within 1 seconds"), "{error}");
    let (ours, theirs) = crate::sys::descriptors::packet_pair().unwrap();
    drop(theirs);
    let hooks = [hook(&["sh", "-c", "sleep 1000"], None)];
    let error = run(&hooks, "", Path::new("/"), Some(ours.as_fd())).unwrap_err().to_string();
    assert!(error.ends_with("was ended, because its container was given up"), "{error}");
}

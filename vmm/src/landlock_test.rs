use std::{fs::File, net::TcpListener, thread};

use super::{Ruleset, deny_all};

#[test]
fn a_kernel_is_asked_for_what_it_knows() {
    assert_eq!(Ruleset::all(1), Ruleset { file_system: 0x1fff, network: 0, scoped: 0 });
    assert_eq!(Ruleset::all(3), Ruleset { file_system: 0x7fff, network: 0, scoped: 0 });
    assert_eq!(Ruleset::all(4), Ruleset { file_system: 0x7fff, network: 3, scoped: 0 });
    assert_eq!(Ruleset::all(5), Ruleset { file_system: 0xffff, network: 3, scoped: 0 });
    assert_eq!(Ruleset::all(99), Ruleset { file_system: 0xffff, network: 3, scoped: 3 });
}

#[test]
fn a_thread_that_has_denied_itself_all_opens_no_file() {
    let has_landlock =
        std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|all| all.contains("landlock"));
    thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        deny_all().unwrap();
        if has_landlock {
            assert!(File::open("/etc/passwd").is_err());
            assert!(TcpListener::bind("127.0.0.1:0").is_err());
        }
    })
    .join()
    .unwrap();
}

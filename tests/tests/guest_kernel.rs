//! The guest's kernel has what programs that make containers themselves ask of one.

use std::path::Path;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;

#[test]
fn it_has_what_container_engines_ask_for() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("guest-kernel/container-engines.list");
    let list = std::fs::read_to_string(list).expect("the list");
    let wanted: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(wanted.len() > 100, "the list is complete: {wanted:?}");

    let bundle = Bundle::script("busybox zcat /proc/config.gz");
    let config = Stockade::new().run_bundle(&bundle, "config").success().stdout;
    let is_set = |option: &&str| config.lines().any(|line| line == format!("CONFIG_{option}=y"));
    let missing: Vec<&&str> = wanted.iter().filter(|option| !is_set(option)).collect();
    assert!(missing.is_empty(), "the guest's kernel lacks {missing:?}");
}

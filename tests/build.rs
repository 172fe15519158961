//! Links the hostile guest as what it is in the release profile: a kernel, at a fixed address and without a C library.

use std::env;

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hostile/guest/link.ld");
    println!("cargo::rerun-if-changed={script}");
    let argument = |argument: &str| println!("cargo::rustc-link-arg-bin=hostile-guest={argument}");
    ["-static", "-no-pie"].into_iter().for_each(argument);
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        ["-nostartfiles", "-Wl,--build-id=none", "-Wl,-n", &format!("-Wl,-T,{script}")]
            .into_iter()
            .for_each(argument);
    }
}

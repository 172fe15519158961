//! libFuzzer around the target that `STOCKADE_FUZZ_TARGET` names. `fuzz/run` builds and starts it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("STOCKADE_FUZZ_TARGET").unwrap_or_default();
    let all = || stockade_vmm::fuzz::TARGETS.into_iter().chain(stockade_runtime::fuzz::TARGETS);
    match all().find(|(name, _)| *name == wanted) {
        Some((_, run)) => run,
        None => {
            let names: Vec<_> = all().map(|(name, _)| name).collect();
            eprintln!("STOCKADE_FUZZ_TARGET={wanted:?}: there are {}", names.join(", "));
            std::process::exit(2);
        }
    }
});

fuzz_target!(init: ignore_broken_pipes(), |input: &[u8]| (*TARGET)(input));

/// As the start of a Rust program does it, which this is none for libFuzzer.
fn ignore_broken_pipes() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

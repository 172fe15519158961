//! A config.json that anybody may have written.

use std::fs;

use tempfile::TempDir;

use crate::config::annotations::TO_BE_ALLOWED;
use crate::lower::{self, Allowed};
use crate::oci::bundle::{Bundle, CONFIG};
use crate::state::sandbox::Peers;

thread_local! {
    static BUNDLE: TempDir = {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("rootfs")).unwrap();
        directory
    };
}

/// Reads it and translates it, seccomp's profile included.
pub fn run(input: &[u8]) {
    BUNDLE.with(|directory| {
        fs::write(directory.path().join(CONFIG), input).unwrap();
        let bundle = match Bundle::load(directory.path(), None) {
            Ok(bundle) => bundle,
            Err(error) => return drop(error.to_string()),
        };
        let annotations = TO_BE_ALLOWED.map(str::to_owned);
        let allowed = Allowed { annotations: &annotations, ..Allowed::default() };
        match lower::lower(&bundle, &"c1".parse().unwrap(), "c1", &Peers::default(), allowed, false) {
            Ok(lowered) => {
                if let Some(profile) = lowered.plan.seccomp {
                    let _ = profile.compile();
                }
            }
            Err(error) => assert!(!error.path.is_empty(), "an error names its property: {error}"),
        }
    });
}

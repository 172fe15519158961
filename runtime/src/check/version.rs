//! The versions that `--version` and `check` report.

use stockade_protocol::agent;

use crate::config::Config;
use crate::oci::SPEC_VERSION;

/// The version of this program.
pub const RUNTIME: &str = env!("CARGO_PKG_VERSION");

/// What `stockade --version` prints: runc's form, which engines parse, and stockade's own versions after it.
pub fn text() -> String {
    let kernel = Config::load().map_or_else(|e| e.to_string(), |config| config.kernel.display().to_string());
    format!(
        "stockade version {RUNTIME}\nspec: {SPEC_VERSION}\nagent protocol: {} (oldest {})\nguest kernel: {kernel}\n",
        agent::VERSION,
        agent::OLDEST_VERSION,
    )
}

/// The same versions in one line.
pub fn line() -> String {
    format!("stockade {RUNTIME}, runtime specification {SPEC_VERSION}, agent protocol {}", agent::VERSION)
}

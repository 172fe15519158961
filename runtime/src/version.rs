//! The versions that `--version` and `check` report.

use stockade_protocol::agent;

use crate::config::Config;

/// This program.
pub const RUNTIME: &str = env!("CARGO_PKG_VERSION");

/// The newest runtime specification that this program knows. oci-spec's own constant is older.
pub const SPEC: &str = "1.3.0";

/// What `stockade --version` prints: runc's form, which engines parse, and stockade's own versions after it.
pub fn text() -> String {
    let kernel = Config::load().map_or_else(|e| e.to_string(), |config| config.kernel.display().to_string());
    format!(
        "stockade version {RUNTIME}\nspec: {SPEC}\nagent protocol: {} (oldest {})\nguest kernel: {kernel}\n",
        agent::VERSION,
        agent::OLDEST_VERSION,
    )
}

/// The same in one line.
pub fn line() -> String {
    format!("stockade {RUNTIME}, runtime specification {SPEC}, agent protocol {}", agent::VERSION)
}

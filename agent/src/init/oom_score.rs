//! `process.oomScoreAdj`.

use super::proc_files;
use crate::error::{Context, Result};

/// Sets the process's weight when the kernel chooses what to kill for want of memory.
pub fn apply(adjustment: Option<i32>) -> Result<()> {
    let Some(adjustment) = adjustment else { return Ok(()) };
    proc_files::write("self/oom_score_adj", &adjustment.to_string())
        .or_spec(|| format!("set process.oomScoreAdj to {adjustment}"))
}

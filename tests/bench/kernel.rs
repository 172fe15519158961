//! Where the guest kernel's instructions go, by its own `initcall_debug`.

use anyhow::Result;

use crate::measure::number_after;
use crate::scenario::Scenario;

/// How many initcalls are shown.
const SHOWN: usize = 12;

/// The dearest initcalls: name and instructions.
pub fn dearest_initcalls(scenario: &Scenario) -> Result<Vec<(String, u64)>> {
    let log = scenario.kernel_log("initcall_debug log_buf_len=1M")?;
    let mut calls: Vec<(String, u64)> = log
        .lines()
        .filter_map(|line| {
            // "initcall NAME+0x0/0x100 returned 0 after 123 usecs", a microsecond being a thousand instructions here.
            let (_, call) = line.split_once("initcall ")?;
            let name = call.split(['+', ' ']).next()?.to_owned();
            Some((name, number_after(call, " after ").ok()? * 1000))
        })
        .collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.1));
    calls.truncate(SHOWN);
    Ok(calls)
}

//! Figures about the start of a VM.

use stockade_protocol::agent::Ready;

use crate::log;
use crate::sys::tsc;
use crate::vm::{self, Machine};

/// Logs what a benchmark needs to relate the guest's first instruction to the host's time.
pub(super) fn log_stats(machine: &Machine, ready: &Ready) {
    if !log::is_debug() {
        return;
    }
    let begin = tsc::now();
    match machine
        .control()
        .map_err(anyhow::Error::from)
        .and_then(|mut control| Ok(control.call(vm::call::ReadFigures())?))
    {
        Ok(stats) => tracing::debug!(
            tsc = tsc::now(),
            vmm_entry_tsc = stats.entry_tsc,
            vmm_run_tsc = stats.run_tsc,
            tsc_offset = stats.tsc_offset,
            agent_entry_tsc = ready.entry_tsc,
            vmm_overhead_kib = stats.overhead_kib,
            guest_kib = stats.guest_kib,
            asking_tsc = tsc::now() - begin,
            "the agent is ready on Linux {}",
            ready.kernel_release
        ),
        Err(error) => tracing::debug!("no stats from the VMM: {error:#}"),
    }
}

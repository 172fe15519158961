//! Memory that has come or gone, and what follows it.

use super::{Server, Target};
use crate::error::Result;

impl Server {
    /// Hears of memory from now on.
    pub(super) fn watch_memory(&mut self) -> Result<()> {
        self.poller.add(self.memory.events(), |_| Target::KernelEvents)?;
        self.poller.add(self.memory.settled(), |_| Target::MemorySettled)?;
        Ok(())
    }

    /// Has everything follow the memory that there is now.
    pub(super) fn follow_memory(&mut self) {
        let Some(memory) = self.memory.follow() else { return };
        for container in self.containers.values_mut().filter(|container| !container.tmpfs.is_empty()) {
            if let Some(init) = self.processes.get(&container.init).filter(|init| init.exit().is_none()) {
                container.tmpfs.resize(init.pid, memory);
            }
        }
    }
}

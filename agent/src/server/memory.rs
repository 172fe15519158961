//! Adapting values and tmpfs when memory has come or gone.

use super::{Server, Target};
use crate::error::Result;

impl Server {
    /// Receives events about memory from now on.
    pub(super) fn watch_memory(&mut self) -> Result<()> {
        self.poller.add(self.memory.events(), |_| Target::KernelEvents)?;
        self.poller.add(self.memory.settled(), |_| Target::MemorySettled)?;
        Ok(())
    }

    /// Adapts everything to the present memory.
    pub(super) fn follow_memory(&mut self) {
        let Some(memory) = self.memory.follow() else { return };
        for container in self.containers.values_mut().filter(|container| !container.tmpfs.is_empty()) {
            if let Some(init) = self.processes.get(&container.init).filter(|init| init.exit().is_none()) {
                container.tmpfs.resize(init.pid, memory);
            }
        }
    }
}

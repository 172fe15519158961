//! What the host lends a container besides the VM.

pub mod cgroup;
pub mod scope;
pub mod systemd;

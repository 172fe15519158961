//! What the host lends a container besides the VM.

pub mod cgroup;

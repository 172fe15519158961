//! System calls that no crate in the workspace wraps, each made safe once.

pub mod descriptors;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod own_proc;
pub mod privileges;
pub mod process;
pub mod seccomp;
pub mod signals;
pub mod user_namespace;

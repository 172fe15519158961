//! System calls that no crate in the workspace wraps, each made safe once, and what stands directly on them: deadlines of
//! exchanges, files that are replaced as a whole, terminals.

pub mod deadline;
pub mod descriptors;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod own_proc;
pub mod privileges;
pub mod process;
pub mod replacement;
pub mod seccomp;
pub mod signals;
pub mod terminal;
pub mod tsc;
pub mod user_namespace;

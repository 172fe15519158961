//! Code that uses system calls directly: deadlines of exchanges, files that are replaced as a whole, terminals,
//! processes. The calls that no crate wraps are in `stockade-sys`.

pub mod deadline;
pub mod descriptors;
pub mod ext4;
pub mod mount;
pub mod namespace;
pub mod own_proc;
pub mod privileges;
pub mod process;
pub mod replacement;
pub mod seccomp;
pub mod selinux;
pub mod signals;
pub mod terminal;
pub mod tsc;
pub mod user_namespace;

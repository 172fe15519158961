//! Trees of the host that become part of the VM's share.

use std::path::PathBuf;

use stockade_protocol::container::IdMappings;

/// How the IDs of a tree's files are mapped, on the host, before the guest sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// `inside` is what the file system has, `outside` what is seen.
    pub mappings: IdMappings,
    /// Also of what is mounted below it.
    pub recursive: bool,
}

/// A tree of the host that becomes part of the VM's share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Where it is on the host: absolute.
    pub source: PathBuf,
    /// Its name in the container's directory of the share.
    pub name: String,
    /// The container gets a copy, which follows it.
    pub is_atomic_volume: bool,
    /// The name is the same for all containers of the pod.
    pub is_volume: bool,
    /// The directory is the pod's, and what is there of that name already is as good.
    pub of_pod: bool,
    /// JSON path of the property that names it.
    pub property: String,
    /// What is mounted below it comes along.
    pub recursive: bool,
    /// The host's kernel refuses writes from the start, to what is mounted at its source.
    pub readonly: bool,
    /// The same, to what is mounted below that.
    pub readonly_below: bool,
    /// What the host mounts or unmounts below it later is so for the container too.
    pub follows: bool,
    /// Files of it are the kernel's.
    pub has_kernel_files: bool,
    /// It is a socket.
    pub is_socket: bool,
    /// A source that is a symbolic link is shared itself.
    pub no_follow: bool,
    /// The source is what an overlay with these options hides there for a moment.
    pub overlay: Option<String>,
    /// Its IDs are mapped.
    pub id_map: Option<IdMap>,
}

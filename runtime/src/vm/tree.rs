//! Trees of the host that become part of the VM's share.

use std::path::PathBuf;

use stockade_protocol::container::IdMappings;

/// How the IDs of a tree's files are mapped, on the host, before the guest sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// `inside` are IDs of the file system, `outside` are those that are seen.
    pub mappings: IdMappings,
    /// Whether the IDs of what is mounted below it are mapped too.
    pub recursive: bool,
}

/// A tree of the host that becomes part of the VM's share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Its absolute path on the host.
    pub source: PathBuf,
    /// Its name in the container's directory of the share.
    pub name: String,
    /// Whether the container gets a copy, which follows the tree.
    pub is_atomic_volume: bool,
    /// Whether the tree is a volume of the pod, whose name is the same for all containers.
    pub is_volume: bool,
    /// Whether the directory in the share is the pod's; a tree that has this name there already is used instead.
    pub of_pod: bool,
    /// JSON path of the property that names it.
    pub property: String,
    /// Whether what is mounted below it is part of the tree.
    pub recursive: bool,
    /// Whether the host's kernel refuses writes to the mount at its source, from the start.
    pub readonly: bool,
    /// Whether the host's kernel refuses writes to what is mounted below that, too.
    pub readonly_below: bool,
    /// Whether the container sees what the host later mounts or unmounts below it.
    pub follows: bool,
    /// Whether it has files of the kernel.
    pub has_kernel_files: bool,
    /// Whether it is a socket.
    pub is_socket: bool,
    /// Whether a source that is a symbolic link is shared itself instead of its target.
    pub no_follow: bool,
    /// The options of an overlay, which is mounted over the source for a moment to be cloned.
    pub overlay: Option<String>,
    /// How its IDs are mapped, if they are.
    pub id_map: Option<IdMap>,
}

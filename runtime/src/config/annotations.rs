//! Which of stockade's own annotations the administrator can allow: those that ask for more than a container has without
//! them.

/// `user` asks for user-mode networking; `none`, the default, leaves the network namespace as it is.
pub const NETWORK: &str = "io.stockade.network";

/// Ports of the host that lead to the container: `HOST[:CONTAINER][/tcp|/udp]`, separated by commas.
pub const PUBLISH: &str = "io.stockade.network.publish";

/// Directories on disks that last as long as the container: `PATH:SIZE`, separated by commas.
pub const SCRATCH: &str = "io.stockade.scratch";

/// All annotations that the administrator can allow.
pub const TO_BE_ALLOWED: [&str; 3] = [NETWORK, PUBLISH, SCRATCH];

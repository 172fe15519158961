use std::fs::File;
use std::os::fd::AsFd;

use super::*;
use crate::vm::{CONTROL_SOCKET, CONTROL_SOCKET_OF_0_1};

/// What comes of a VM that has this socket alone.
fn connect_where_there_is(socket: &str) -> Result<Files, FilesError> {
    let directory = tempfile::tempdir().unwrap();
    let directory = File::open(directory.path()).unwrap();
    let _listener = descriptors::listen(directory.as_fd(), socket).unwrap();
    Files::connect(directory.as_fd(), directory.as_fd())
}

#[test]
fn only_a_vmm_of_0_1_is_taken_for_one_without_a_file_server() {
    assert!(matches!(connect_where_there_is(CONTROL_SOCKET_OF_0_1), Ok(Files(Server::Mounts(..)))));
    let refused = connect_where_there_is(CONTROL_SOCKET).unwrap_err().to_string();
    assert!(refused.contains(CONTROL_SOCKET) && refused.contains("version"), "{refused}");
}

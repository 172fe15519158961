//! `Request::Containers`.

use stockade_protocol::agent::Response;

use super::Server;

impl Server {
    /// Those that are there, whatever they are doing.
    pub(super) fn list_containers(&self) -> Response {
        Response::Containers(self.containers.keys().cloned().collect())
    }
}

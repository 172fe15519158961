//! `Request::Containers`.

use stockade_protocol::agent::Response;

use super::Server;

impl Server {
    /// Lists all containers, in whatever state they are.
    pub(super) fn list_containers(&self) -> Response {
        Response::Containers(self.containers.keys().cloned().collect())
    }
}

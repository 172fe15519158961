//! `Request::Network`.

use stockade_protocol::{agent::Response, network::NetworkChange};

use super::Server;
use crate::{error::Result, network};

impl Server {
    /// Changes the guest's network, which all containers share.
    pub(super) fn change_network(change: &NetworkChange) -> Result<Response> {
        network::change(change).map(|()| Response::NetworkChanged)
    }
}

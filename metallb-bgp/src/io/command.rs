//! What the task of a peer may be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::PeerConfig;
use super::ticket::Ticket;
use crate::session::{BfdState, Stop};
use crate::types::Attributes;

/// What the speaker wants of a task.
#[derive(Debug)]
pub(super) enum Command {
    Routes(Arc<BTreeMap<IpNet, Arc<Attributes>>>),
    Changes(Vec<(IpNet, Option<Arc<Attributes>>)>),
    Configure(Box<PeerConfig>),
    Bfd(BfdState),
    Accepted(TcpStream, Option<Ticket>),
    /// Asks the peer to move traffic away; tells whether it was asked.
    Leave {
        keep_routes: bool,
        reply: oneshot::Sender<bool>,
    },
    /// Something was said to the peer by another: there is more to do.
    Continue,
    Stop(Stop),
}

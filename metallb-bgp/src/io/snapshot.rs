//! Snapshots and events of peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::bfd_udp::{BfdPath, BfdStatus};
use super::{PeerConfig, Router};
use crate::peer::Peer;
use crate::session::{Counters, DownReason, Event, Negotiated, RemoteAsn, State};

/// An event of a named peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerEvent {
    /// The name of the peer.
    pub peer: Arc<str>,
    /// The event.
    pub event: Event,
}

/// The status of a peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// The configured router, whether or not it is reachable.
    pub router: Router,
    /// The AS number that the router must have.
    pub remote: RemoteAsn,
    /// The state of the session.
    pub state: State,
    /// The time at which the session was established, while it is.
    pub established_at: Option<Instant>,
    /// The local and the remote address of the connection.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Why the last session, or attempt, ended.
    pub last_down: Option<DownReason>,
    /// The end of the last established session. Failed attempts since then do not replace it.
    pub last_session: Option<EndedSession>,
    /// The negotiated capabilities, from the peer's OPEN on.
    pub negotiated: Option<Negotiated>,
    /// The number of routes that were advertised to the peer.
    pub routes_advertised: usize,
    /// The number of routes that the peer should have.
    pub routes_wanted: usize,
    /// Counters since the peer was configured.
    pub counters: Counters,
    /// The status of BFD, if it is configured.
    pub bfd: Option<BfdStatus>,
    /// The path of the BFD session, by which it is found in a [`BfdReport`](super::bfd_udp::BfdReport).
    pub bfd_path: Option<BfdPath>,
}

/// The end of an established session.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EndedSession {
    /// Why it ended.
    pub reason: DownReason,
    /// When it ended.
    pub at: Instant,
}

impl PeerSnapshot {
    /// Takes over changes of the engine. `last_down` changes only with an event.
    pub(super) fn update(&mut self, peer: &Peer, event: bool) {
        self.state = peer.state();
        self.established_at = peer.established_at();
        self.routes_advertised = peer.rib().advertised();
        self.routes_wanted = peer.rib().wanted();
        self.counters = *peer.counters();
        if event {
            self.last_down = peer.last_down().cloned();
        }
        if self.negotiated.as_ref() != peer.negotiated() {
            self.negotiated = peer.negotiated().cloned();
        }
    }

    pub(super) fn of(peer: &Peer, config: &PeerConfig) -> Self {
        let mut snapshot = Self {
            router: config.endpoint.router.clone(),
            remote: config.session.remote,
            state: peer.state(),
            established_at: None,
            addresses: None,
            last_down: None,
            last_session: None,
            negotiated: None,
            routes_advertised: 0,
            routes_wanted: 0,
            counters: *peer.counters(),
            bfd: None,
            bfd_path: None,
        };
        snapshot.update(peer, true);
        snapshot
    }
}

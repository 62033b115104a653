//! What is told of a peer: where it stands, and what happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::bfd_udp::{BfdPath, BfdStatus};
use super::{PeerConfig, Router};
use crate::peer::Peer;
use crate::session::{Counters, Event, Negotiated, RemoteAsn, State};

/// An event of a named peer.
#[derive(Clone, Debug)]
pub struct PeerEvent {
    /// The peer's name.
    pub peer: Arc<str>,
    /// What happened.
    pub event: Event,
}

/// Where a peer stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// The router that is configured, whether or not it is there.
    pub router: Router,
    /// The number that is accepted of it.
    pub remote: RemoteAsn,
    /// The state of the session.
    pub state: State,
    /// Since when it is established.
    pub established_at: Option<Instant>,
    /// Both ends of the connection, ours first.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Why it ended last, in words; also an attempt that failed is an end.
    pub last_down: Option<String>,
    /// Why the last session that was established ended, in words, and when. Attempts that fail since do not hide it.
    pub last_session: Option<(String, Instant)>,
    /// What is in force, from the peer's OPEN on.
    pub negotiated: Option<Negotiated>,
    /// Routes that the peer was told.
    pub routes_told: usize,
    /// Routes that the peer should know.
    pub routes_wanted: usize,
    /// What passed so far.
    pub counters: Counters,
    /// What BFD says of the path, where it was asked to watch it.
    pub bfd: Option<BfdStatus>,
    /// The path that BFD watches, by which its session is found in a [`BfdReport`](super::bfd_udp::BfdReport).
    pub bfd_path: Option<BfdPath>,
}

impl PeerSnapshot {
    /// Takes over what changed. Why a session ended is put in words only where an event says that it did.
    pub(super) fn follow(&mut self, peer: &Peer, event: bool) {
        self.state = peer.state();
        self.established_at = peer.established_at();
        self.routes_told = peer.rib().told();
        self.routes_wanted = peer.rib().wanted();
        self.counters = *peer.counters();
        if event {
            self.last_down = peer.last_down().map(ToString::to_string);
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
            routes_told: 0,
            routes_wanted: 0,
            counters: *peer.counters(),
            bfd: None,
            bfd_path: None,
        };
        snapshot.follow(peer, true);
        snapshot
    }
}

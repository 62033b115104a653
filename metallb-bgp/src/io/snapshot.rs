//! Snapshots and events of peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::bfd_udp::{BfdPath, BfdStatus};
use super::{PeerConfig, Router};
use crate::peer::Peer;
use crate::session::{Counters, DownReason, Event, Negotiated, RemoteAsn, State};
use crate::types::{Asn, Family, RouterId};

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
    /// Why routes of a family are not advertised, while the session is established.
    pub withheld: Vec<Withheld>,
    /// AS number and BGP identifier in the peer's last OPEN, whether or not it was accepted.
    pub last_open: Option<(Asn, RouterId)>,
    /// Counters since the peer was configured.
    pub counters: Counters,
    /// The status of BFD, if it is configured.
    pub bfd: Option<BfdStatus>,
    /// The next attempt waits until BFD is up, at most until this time.
    pub waits_for_bfd_until: Option<Instant>,
    /// The path of the BFD session, by which it is found in a [`BfdReport`](super::bfd_udp::BfdReport).
    pub bfd_path: Option<BfdPath>,
}

/// Routes of a family that the peer should have and that are not advertised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Withheld {
    /// The family.
    pub family: Family,
    /// The number of routes.
    pub routes: usize,
    /// Why not.
    pub reason: WithheldReason,
}

/// Why routes of a family are not advertised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WithheldReason {
    /// The session is not configured for the family.
    NotConfigured,
    /// The OPEN of the router does not name the family.
    NotNegotiated,
    /// This host has no usable address of the family on the interface of the session.
    NoNextHop,
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
        self.last_open = peer.last_open();
        self.withheld = withheld(peer).collect();
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
            withheld: Vec::new(),
            last_open: None,
            counters: *peer.counters(),
            bfd: None,
            waits_for_bfd_until: None,
            bfd_path: None,
        };
        snapshot.update(peer, true);
        snapshot
    }
}

fn withheld(peer: &Peer) -> impl Iterator<Item = Withheld> {
    let session = peer.negotiated().zip(peer.next_hops()).filter(|_| peer.state() == State::Established);
    let of_family = move |family: Family| {
        let (negotiated, next_hops) = session?;
        let routes = peer.rib().routes_of(family).0;
        let reason = if negotiated.families.contains(&family) {
            WithheldReason::NoNextHop
        } else if peer.config().families.contains(&family) {
            WithheldReason::NotNegotiated
        } else {
            WithheldReason::NotConfigured
        };
        (routes > 0 && next_hops.of(family).is_none()).then_some(Withheld { family, routes, reason })
    };
    [Family::Ipv4, Family::Ipv6].into_iter().filter_map(of_family)
}

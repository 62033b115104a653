//! Series about BGP and BFD sessions, computed on each scrape.
//!
//! Names and labels are those of upstream's native speaker and of its FRR exporter. Peers without a VRF have
//! the label `vrf="default"`, as in FRR.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use metallb_bgp::io::{Observer, PeerSnapshot};
use metallb_bgp::session::State;
use metallb_core::config::Peer;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::family::{family, label};

/// All series of all sessions of a speaker.
#[derive(Clone, Debug)]
pub struct PeerCollector {
    observer: Observer,
    peers: Arc<Mutex<BTreeMap<Arc<str>, Labels>>>,
    descriptions: Vec<Desc>,
}

/// Labels of a peer.
#[derive(Clone, Debug)]
struct Labels {
    peer: String,
    vrf: Option<String>,
}

struct Series<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&T) -> u64,
}

/// Counters of one BFD session.
struct Path {
    up: bool,
    counters: metallb_bgp::bfd::Counters,
}

impl PeerCollector {
    /// A collector for the sessions of `observer`.
    ///
    /// # Errors
    /// Never: names and help texts are constants, which the test below checks.
    pub fn new(observer: Observer) -> prometheus::Result<Self> {
        let labels = || vec!["peer".to_owned()];
        let describe = |name: &str, help: &str| Desc::new(name.to_owned(), help.to_owned(), labels(), HashMap::new());
        let bgp = BGP.iter().map(|series| describe(series.name, series.help));
        let bfd = BFD.iter().map(|series| describe(series.name, series.help));
        let accepted = Desc::new(ACCEPTED.0.to_owned(), ACCEPTED.1.to_owned(), Vec::new(), HashMap::new());
        let reason = vec!["reason".to_owned()];
        let refused = Desc::new(REFUSED.0.to_owned(), REFUSED.1.to_owned(), reason, HashMap::new());
        let descriptions = bgp.chain(bfd).chain([accepted, refused]).collect::<prometheus::Result<_>>()?;
        Ok(Self { observer, peers: Arc::default(), descriptions })
    }

    /// Replaces the list of peers.
    pub fn set_peers<'a>(&self, peers: impl Iterator<Item = &'a Arc<Peer>>) {
        let labels =
            |peer: &Arc<Peer>| Labels { peer: peer.metric_label(), vrf: peer.vrf.as_ref().map(ToString::to_string) };
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) =
            peers.map(|peer| (peer.name.as_str().into(), labels(peer))).collect();
    }
}

impl Collector for PeerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sessions: Vec<(Labels, PeerSnapshot)> = self
            .observer
            .snapshot()
            .into_iter()
            .filter_map(|(name, snapshot)| Some((peers.get(&name)?.clone(), snapshot)))
            .collect();
        let mut paths: BTreeMap<(IpAddr, Option<String>), Path> = BTreeMap::new();
        for snapshot in self.observer.bfd().sessions {
            let Some(session) = snapshot.session else { continue };
            let up = session.state == metallb_bgp::bfd::State::Up;
            paths.insert((snapshot.path.remote, snapshot.path.vrf), Path { up, counters: session.counters });
        }
        let paths: Vec<(Labels, Path)> =
            paths.into_iter().map(|((remote, vrf), path)| (Labels { peer: remote.to_string(), vrf }, path)).collect();
        let incoming = self.observer.incoming();
        let accepted = (Vec::new(), incoming.accepted);
        let refused = incoming.refused.iter().map(|(reason, count)| (vec![label("reason", reason.as_str())], *count));
        let incoming = [
            family(ACCEPTED.0, ACCEPTED.1, MetricType::COUNTER, std::iter::once(accepted)),
            family(REFUSED.0, REFUSED.1, MetricType::COUNTER, refused),
        ];
        let bgp = BGP.iter().map(|series| series.family(&sessions));
        let bfd = BFD.iter().map(|series| series.family(&paths));
        bgp.chain(bfd).chain(incoming).collect()
    }
}

impl<T> Series<T> {
    fn family(&self, rows: &[(Labels, T)]) -> MetricFamily {
        let rows = rows.iter().map(|(labels, row)| (labels.pairs(), (self.value)(row)));
        family(self.name, self.help, self.kind, rows)
    }
}

impl Labels {
    fn pairs(&self) -> Vec<LabelPair> {
        vec![label("peer", &self.peer), label("vrf", self.vrf.as_deref().unwrap_or("default"))]
    }
}

const ACCEPTED: (&str, &str) =
    ("metallb_bgp_connections_accepted_total", "Number of connections from BGP peers that were accepted");
const REFUSED: (&str, &str) =
    ("metallb_bgp_connections_refused_total", "Number of connections to the BGP port that were closed at once");

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Series<T> {
    Series { name, help, kind: MetricType::GAUGE, value }
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Series<T> {
    Series { name, help, kind: MetricType::COUNTER, value }
}

fn is_up(peer: &PeerSnapshot) -> bool {
    peer.state == State::Established
}

fn sent(peer: &PeerSnapshot) -> u64 {
    let counters = &peer.counters;
    counters.opens_sent + counters.updates_sent + counters.keepalives_sent + counters.notifications_sent
}

fn received(peer: &PeerSnapshot) -> u64 {
    let counters = &peer.counters;
    counters.opens_received
        + counters.updates_received
        + counters.keepalives_received
        + counters.notifications_received
        + counters.route_refreshes_received
}

static BGP: [Series<PeerSnapshot>; 16] = [
    gauge("metallb_bgp_session_up", "BGP session state (1 is up, 0 is down)", |peer| is_up(peer).into()),
    gauge(
        "metallb_bgp_announced_prefixes_total",
        "Number of prefixes currently being advertised on the BGP session",
        |peer| peer.routes_advertised as u64,
    ),
    gauge(
        "metallb_bgp_pending_prefixes_total",
        "Number of prefixes that should be advertised on the BGP session",
        |peer| peer.routes_wanted as u64,
    ),
    counter("metallb_bgp_updates_total", "Number of BGP UPDATE messages sent", |peer| peer.counters.updates_sent),
    counter("metallb_bgp_updates_total_received", "Number of BGP UPDATE messages received", |peer| {
        peer.counters.updates_received
    }),
    counter("metallb_bgp_opens_sent", "Number of BGP open messages sent", |peer| peer.counters.opens_sent),
    counter("metallb_bgp_opens_received", "Number of BGP open messages received", |peer| peer.counters.opens_received),
    counter("metallb_bgp_notifications_sent", "Number of BGP notification messages sent", |peer| {
        peer.counters.notifications_sent
    }),
    counter("metallb_bgp_notifications_received", "Number of BGP notification messages received", |peer| {
        peer.counters.notifications_received
    }),
    counter("metallb_bgp_keepalives_sent", "Number of BGP keepalive messages sent", |peer| {
        peer.counters.keepalives_sent
    }),
    counter("metallb_bgp_keepalives_received", "Number of BGP keepalive messages received", |peer| {
        peer.counters.keepalives_received
    }),
    counter("metallb_bgp_route_refresh_sent", "Number of BGP route refresh messages sent", |_| 0),
    counter("metallb_bgp_route_refresh_received", "Number of BGP route refresh messages received", |peer| {
        peer.counters.route_refreshes_received
    }),
    counter("metallb_bgp_total_sent", "Number of total BGP messages sent", sent),
    counter("metallb_bgp_total_received", "Number of total BGP messages received", received),
    counter("metallb_bgp_session_established_total", "Number of times the BGP session came up", |peer| {
        peer.counters.established
    }),
];

static BFD: [Series<Path>; 8] = [
    gauge("metallb_bfd_session_up", "BFD session state (1 is up, 0 is down)", |path| path.up.into()),
    counter("metallb_bfd_control_packet_input", "Number of received BFD control packets", |path| {
        path.counters.control_packets_in
    }),
    counter("metallb_bfd_control_packet_output", "Number of sent BFD control packets", |path| {
        path.counters.control_packets_out
    }),
    counter("metallb_bfd_echo_packet_input", "Number of received BFD echo packets", |path| {
        path.counters.echo_packets_in
    }),
    counter("metallb_bfd_echo_packet_output", "Number of sent BFD echo packets", |path| path.counters.echo_packets_out),
    counter("metallb_bfd_session_up_events", "Number of BFD session up events", |path| path.counters.up_events),
    counter("metallb_bfd_session_down_events", "Number of BFD session down events", |path| path.counters.down_events),
    counter("metallb_bfd_zebra_notifications", "Number of BFD state changes reported to clients", |path| {
        path.counters.notifications
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_valid_name_of_its_own() {
        let collector = PeerCollector::new(Observer::default()).unwrap();
        let registry = prometheus::Registry::new();
        registry.register(Box::new(collector)).unwrap();
    }

    #[test]
    fn peer_without_a_vrf_is_in_the_default_one() {
        let values = |vrf: Option<&str>| {
            let labels = Labels { peer: "192.0.2.1:179".to_owned(), vrf: vrf.map(str::to_owned) };
            labels.pairs().iter().map(|pair| format!("{}={}", pair.name(), pair.value())).collect::<Vec<_>>()
        };
        assert_eq!(values(None), ["peer=192.0.2.1:179", "vrf=default"]);
        assert_eq!(values(Some("red")), ["peer=192.0.2.1:179", "vrf=red"]);
    }
}

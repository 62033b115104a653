//! The set of all peers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::PeerConfig;
use super::bfd_client::BfdSessions;
use super::bfd_udp::BfdReport;
use super::driver::Driver;
use super::host::HostAddresses;
use super::incoming_report::IncomingReport;
use super::listener::{AllowedPeer, Incoming, Listener, may_connect};
use super::snapshot::{PeerEvent, PeerSnapshot};
use crate::peer::Peer;
use crate::rib::SharedPrefixes;
use crate::session::{ConfigChange, Stop};
use crate::types::Attributes;

/// All BGP peers of this host. Must be used inside a tokio runtime. Dropping it ends all sessions without a
/// NOTIFICATION.
#[derive(Debug)]
pub struct Speaker {
    peers: BTreeMap<Arc<str>, Running>,
    /// Tasks of removed peers that are still ending their sessions.
    ending: Vec<JoinHandle<()>>,
    events: mpsc::Sender<PeerEvent>,
    random: SmallRng,
    prefixes: SharedPrefixes,
    observer: Observer,
    listener: Option<Listener>,
    /// Followed from the first peer on.
    host: Option<HostAddresses>,
}

/// Read access to the peers of a [`Speaker`], which stays valid after the speaker is gone.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    snapshots: Arc<Mutex<BTreeMap<Arc<str>, Arc<Mutex<PeerSnapshot>>>>>,
    bfd: Arc<BfdSessions>,
    incoming: Arc<Incoming>,
}

#[derive(Debug)]
struct Running {
    config: PeerConfig,
    driver: Driver,
}

impl Speaker {
    /// A speaker without peers. Events are sent to `events`; if that channel is full, an event is dropped. `seed`
    /// determines the jitter of all timers and the discriminators of BFD, so it must be hard to guess.
    #[must_use]
    pub fn new(events: mpsc::Sender<PeerEvent>, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let bfd = Arc::new(BfdSessions::new(random.next_u64()));
        Self {
            peers: BTreeMap::new(),
            ending: Vec::new(),
            events,
            random,
            prefixes: SharedPrefixes::default(),
            observer: Observer { bfd, ..Observer::default() },
            listener: None,
            host: None,
        }
    }

    /// Accepts connections of peers whose [`Mode`](crate::session::Mode) allows it, except for peers in a VRF. The
    /// source of a connection must be the configured address or, for an unnumbered peer, the link. The kernel verifies
    /// passwords, a direct neighbour must be on a link of this host, and all other connections are counted and closed.
    /// Returns the address with the actual port.
    ///
    /// # Errors
    /// The address is in use or not an address of this host. Ports below 1024 need `CAP_NET_BIND_SERVICE`.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let (listener, bound) = Listener::open(address, Arc::clone(&self.observer.incoming))?;
        self.listener = Some(listener);
        self.update_listener();
        Ok(bound)
    }

    /// Replaces the peers. A session is restarted only if the change of its own configuration needs it
    /// ([`PeerConfig::change_to`]). The new session then starts when the old one has ended, so that the router never
    /// sees two. Returns the peers that are started; they have no routes until [`set_routes`](Self::set_routes).
    pub fn set_peers(&mut self, configs: BTreeMap<Arc<str>, PeerConfig>) -> BTreeSet<Arc<str>> {
        self.ending.retain(|task| !task.is_finished());
        let mut started = BTreeSet::new();
        let mut before = std::mem::take(&mut self.peers);
        for (name, config) in configs {
            let running = match before.remove(&name) {
                None => {
                    started.insert(Arc::clone(&name));
                    self.start(&name, config, None)
                }
                Some(running) => match running.config.change_to(&config) {
                    ConfigChange::None => running,
                    ConfigChange::Soft => {
                        running.driver.handle().configure(config.clone());
                        Running { config, ..running }
                    }
                    ConfigChange::Restart => {
                        started.insert(Arc::clone(&name));
                        self.start(&name, config, running.driver.stop(Stop::Reconfigured))
                    }
                },
            };
            self.peers.insert(name, running);
        }
        self.ending.extend(before.into_values().filter_map(|running| running.driver.stop(Stop::Deconfigured)));
        let snapshots = self
            .peers
            .iter()
            .map(|(name, running)| (Arc::clone(name), Arc::clone(&running.driver.handle().shared().snapshot)));
        *self.observer.snapshots.lock().unwrap_or_else(PoisonError::into_inner) = snapshots.collect();
        self.update_listener();
        started
    }

    /// Updates the peers that may connect, and their passwords.
    fn update_listener(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        let allowed: Vec<&Running> = self.peers.values().filter(|running| may_connect(&running.config)).collect();
        listener.retain_keys(allowed.iter().map(|running| &running.config));
        let allowed = allowed.into_iter().map(|running| AllowedPeer {
            router: running.config.endpoint.router.clone(),
            distance: running.config.endpoint.distance,
            has_key: listener.ensure_key(&running.config),
            handle: running.driver.handle().clone(),
        });
        self.observer.incoming.set_allowed(allowed.collect());
    }

    /// Starts a graceful shutdown (RFC 8326) on all peers, except for those that keep the routes with the same
    /// `keep_routes` in [`shutdown`](Self::shutdown). Returns whether it was started on any peer, which then needs time
    /// to move traffic.
    pub async fn drain(&self, keep_routes: bool) -> bool {
        let replies: Vec<_> = self.peers.values().map(|running| running.driver.handle().drain(keep_routes)).collect();
        let mut started = false;
        for reply in replies {
            started |= reply.await.unwrap_or(false);
        }
        started
    }

    /// Replaces the routes of a peer. An unknown peer is ignored.
    pub fn set_routes(&self, peer: &str, routes: BTreeMap<IpNet, Arc<Attributes>>) {
        self.set_routes_of([peer], routes);
    }

    /// Replaces the routes of several peers by the same map, which is shared and not copied.
    pub fn set_routes_of<'a>(
        &self,
        peers: impl IntoIterator<Item = &'a str>,
        routes: BTreeMap<IpNet, Arc<Attributes>>,
    ) {
        let routes = Arc::new(routes);
        for running in peers.into_iter().filter_map(|peer| self.peers.get(peer)) {
            running.driver.handle().set_routes(Arc::clone(&routes));
        }
    }

    /// Changes single routes of a peer, or removes them with `None`, at a cost independent of the number of other
    /// routes. An unknown peer is ignored. Call [`set_routes`](Self::set_routes) first: only it says that the routes
    /// are complete. A few changes after a pause are written before this method returns, which takes some microseconds
    /// and never waits; other changes are left to the task of the peer.
    pub fn change_routes(&self, peer: &str, changes: Vec<(IpNet, Option<Arc<Attributes>>)>) {
        if let Some(running) = self.peers.get(peer) {
            running.driver.handle().change_routes(changes);
        }
    }

    /// Hands a connection that a peer has opened to that peer. Returns `false` and closes it if there is no such peer,
    /// or if too many connections wait. It is also closed if the [`Mode`](crate::session::Mode) of the peer does not
    /// allow it.
    pub fn accept(&self, peer: &str, stream: TcpStream) -> bool {
        self.peers.get(peer).is_some_and(|running| running.driver.handle().accept(stream, None))
    }

    /// The status of all peers, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, PeerSnapshot> {
        self.observer.snapshot()
    }

    /// Read access that does not borrow the speaker.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Ends all sessions and waits until the peers were informed, at most for `timeout`. Peers with graceful restart
    /// keep the routes if `keep_routes` is set.
    pub async fn shutdown(mut self, keep_routes: bool, timeout: Duration) {
        self.listener = None;
        let mut tasks = std::mem::take(&mut self.ending);
        let stop = if keep_routes { Stop::Restart } else { Stop::Shutdown };
        for running in std::mem::take(&mut self.peers).into_values() {
            tasks.extend(running.driver.stop(stop("shutting down".into())));
        }
        let all = async {
            for task in tasks {
                // A task that panicked has closed its connection.
                let _ = task.await;
            }
        };
        let begun = Instant::now();
        let _ = tokio::time::timeout(timeout, all).await;
        // BFD also informs its neighbours. Waiting for its thread blocks, so it must not happen on this one.
        let (bfd, left) = (Arc::clone(&self.observer.bfd), timeout.saturating_sub(begun.elapsed()));
        let _ = tokio::task::spawn_blocking(move || bfd.shutdown(left)).await;
    }

    fn start(&mut self, name: &Arc<str>, config: PeerConfig, predecessor: Option<JoinHandle<()>>) -> Running {
        let mut engine = Peer::new(config.session.clone(), self.random.next_u64(), Instant::now());
        engine.share_prefixes(&self.prefixes);
        let (events, bfd) = (self.events.clone(), Arc::clone(&self.observer.bfd));
        let host = self.host.get_or_insert_with(HostAddresses::start).watch();
        let driver = Driver::start(name, config.clone(), engine, events, bfd, host, predecessor);
        Running { config, driver }
    }
}

impl Observer {
    /// The status of all peers, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, PeerSnapshot> {
        let snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |snapshot: &Mutex<PeerSnapshot>| snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshots.iter().map(|(name, snapshot)| (Arc::clone(name), read(snapshot))).collect()
    }

    /// The number of incoming connections, by result.
    #[must_use]
    pub fn incoming(&self) -> IncomingReport {
        self.incoming.report()
    }

    /// The status of all BFD sessions. Waits for the thread of BFD, usually for some microseconds.
    #[must_use]
    pub fn bfd(&self) -> BfdReport {
        self.bfd.report()
    }
}

const _: () = crate::assert_send_sync::<Speaker>();
const _: () = crate::assert_send_sync::<Observer>();

//! The set of peers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::PeerConfig;
use super::bfd_udp::BfdReport;
use super::command::Command;
use super::driver::{Driver, Shares};
use super::exchange::{AtOnce, Exchange};
use super::incoming::{Door, Expected, Incoming, may_connect};
use super::path_watch::PathWatches;
use super::snapshot::{PeerEvent, PeerSnapshot};
use super::ticket::IncomingReport;
use crate::peer::Peer;
use crate::rib::SharedPrefixes;
use crate::session::{BfdState, ConfigChange, Stop};
use crate::types::Attributes;

/// All sessions of this host. Must be used inside a tokio runtime; dropping it ends them without a word.
#[derive(Debug)]
pub struct Speaker {
    peers: BTreeMap<Arc<str>, Running>,
    /// Sessions of peers that are gone, until they have said so.
    ending: Vec<JoinHandle<()>>,
    events: mpsc::Sender<PeerEvent>,
    seed: u64,
    prefixes: SharedPrefixes,
    observer: Observer,
    door: Option<Door>,
}

/// A look at the sessions from anywhere, for as long as anybody wants one.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    snapshots: Arc<Mutex<BTreeMap<Arc<str>, Arc<Mutex<PeerSnapshot>>>>>,
    watches: Arc<PathWatches>,
    incoming: Arc<Incoming>,
}

#[derive(Debug)]
struct Running {
    config: PeerConfig,
    commands: mpsc::UnboundedSender<Command>,
    shares: Shares,
    task: JoinHandle<()>,
    /// Connections of the peer that its task has not seen yet.
    waiting: Arc<AtomicUsize>,
}

impl Speaker {
    /// No peers. Events go to `events`; when nobody takes them they are dropped. `seed` jitters all timers.
    #[must_use]
    pub fn new(events: mpsc::Sender<PeerEvent>, seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            ending: Vec::new(),
            events,
            seed,
            prefixes: SharedPrefixes::default(),
            observer: Observer::default(),
            door: None,
        }
    }

    /// Waits for peers to connect, too: those whose [`Mode`](crate::session::Mode) allows it, without a VRF, from the address that is
    /// configured or, unnumbered, by the link. Passwords are checked by the kernel, direct neighbours must be on a link of this host, and
    /// whoever else connects is counted and closed. Returns the address, with the port that was given.
    ///
    /// # Errors
    /// The address is taken or not this host's; ports below 1024 need `CAP_NET_BIND_SERVICE`.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let (door, bound) = Door::open(address, Arc::clone(&self.observer.incoming))?;
        self.door = Some(door);
        self.let_in();
        Ok(bound)
    }

    /// Replaces the peers. Sessions go on untouched unless their own change needs a new session ([`PeerConfig::change_to`]); a new one
    /// begins when the old one has ended, so that the router never sees two, and starts without routes. Returns those that start: they
    /// wait for [`set_routes`](Self::set_routes).
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
                        running.tell(Command::Configure(Box::new(config.clone())));
                        Running { config, ..running }
                    }
                    ConfigChange::Restart => {
                        running.tell(Command::Stop(Stop::Reconfigured));
                        started.insert(Arc::clone(&name));
                        self.start(&name, config, Some(running.task))
                    }
                },
            };
            self.peers.insert(name, running);
        }
        for running in before.into_values() {
            running.tell(Command::Stop(Stop::Deconfigured));
            self.ending.push(running.task);
        }
        let snapshots =
            self.peers.iter().map(|(name, running)| (Arc::clone(name), Arc::clone(&running.shares.snapshot)));
        *self.observer.snapshots.lock().unwrap_or_else(PoisonError::into_inner) = snapshots.collect();
        self.let_in();
        started
    }

    /// Brings the socket for incoming connections in step with the peers.
    fn let_in(&mut self) {
        let Some(door) = &mut self.door else { return };
        let allowed: Vec<&Running> = self.peers.values().filter(|running| may_connect(&running.config)).collect();
        door.keep_keys(allowed.iter().map(|running| &running.config));
        let expected = allowed.into_iter().map(|running| Expected {
            router: running.config.endpoint.router.clone(),
            distance: running.config.endpoint.distance,
            proven: door.prove(&running.config),
            commands: running.commands.clone(),
            waiting: Arc::clone(&running.waiting),
        });
        self.observer.incoming.expect(expected.collect());
    }

    /// Asks peers to move traffic away, as before [`shutdown`](Self::shutdown) with the same `keep_routes`: those that keep the routes are
    /// told nothing. True when somebody was asked, and needs a moment.
    pub async fn drain(&self, keep_routes: bool) -> bool {
        let ask = |running: &Running| {
            let (reply, answer) = oneshot::channel();
            running.tell(Command::Leave { keep_routes, reply });
            answer
        };
        let answers: Vec<_> = self.peers.values().map(ask).collect();
        let mut asked = false;
        for answer in answers {
            asked |= answer.await.unwrap_or(false);
        }
        asked
    }

    /// Replaces the routes of a peer; one that is not there is ignored.
    pub fn set_routes(&self, peer: &str, routes: BTreeMap<IpNet, Arc<Attributes>>) {
        self.set_routes_of([peer], routes);
    }

    /// The same for several peers that are offered the same. It takes the room of one map, however many they are.
    pub fn set_routes_of<'a>(
        &self,
        peers: impl IntoIterator<Item = &'a str>,
        routes: BTreeMap<IpNet, Arc<Attributes>>,
    ) {
        let routes = Arc::new(routes);
        for running in peers.into_iter().filter_map(|peer| self.peers.get(peer)) {
            running.tell_routes(Command::Routes(Arc::clone(&routes)));
        }
    }

    /// Changes single routes of a peer, `None` takes one back; at no cost for the others. A peer that is not there is ignored. The first
    /// routes of a peer come by [`set_routes`](Self::set_routes), which alone says that these are all. A few changes after a pause are told
    /// before this returns, which takes some microseconds and never waits; what else there is goes to the peer's task.
    pub fn change_routes(&self, peer: &str, changes: Vec<(IpNet, Option<Arc<Attributes>>)>) {
        let Some(running) = self.peers.get(peer) else { return };
        let Shares { exchange, queued, snapshot } = &running.shares;
        match Exchange::change_at_once(exchange, queued, snapshot, &changes) {
            AtOnce::Done => {}
            AtOnce::Continue => running.tell(Command::Continue),
            AtOnce::NotNow => running.tell_routes(Command::Changes(changes)),
        }
    }

    /// Tells what a BFD of the caller's own says of the path to a peer; one that is not there is ignored. A peer with
    /// [`PeerConfig::bfd`] needs none.
    pub fn set_bfd(&self, peer: &str, state: BfdState) {
        if let Some(running) = self.peers.get(peer) {
            running.tell(Command::Bfd(state));
        }
    }

    /// Hands a connection that a peer has opened to a peer; false, and it is closed, when there is no such peer. It is also closed when the
    /// peer's [`Mode`](crate::session::Mode) does not wait for connections.
    pub fn accept(&self, peer: &str, stream: TcpStream) -> bool {
        let running = self.peers.get(peer);
        running.is_some_and(|running| {
            running.tell(Command::Accepted(stream, None));
            true
        })
    }

    /// Where every peer stands.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, PeerSnapshot> {
        self.observer.snapshot()
    }

    /// A look at the sessions that outlives borrows of this speaker.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Ends all sessions and waits until the peers were told, at most `patience`. Peers that agreed to graceful restart keep the routes
    /// when `keep_routes` is set.
    pub async fn shutdown(mut self, keep_routes: bool, patience: Duration) {
        self.door = None;
        let mut tasks = std::mem::take(&mut self.ending);
        for running in std::mem::take(&mut self.peers).into_values() {
            let text = "shutting down".to_owned();
            running.tell(Command::Stop(if keep_routes { Stop::Restart(text) } else { Stop::Shutdown(text) }));
            tasks.push(running.task);
        }
        let all = async {
            for task in tasks {
                // A task that panicked has closed its connection.
                let _ = task.await;
            }
        };
        let begun = Instant::now();
        let _ = tokio::time::timeout(patience, all).await;
        // Neighbours of BFD need a moment too, and its thread is waited for without holding up this one.
        let (watches, left) = (Arc::clone(&self.observer.watches), patience.saturating_sub(begun.elapsed()));
        let _ = tokio::task::spawn_blocking(move || watches.shutdown(left)).await;
    }

    fn start(&mut self, name: &Arc<str>, config: PeerConfig, predecessor: Option<JoinHandle<()>>) -> Running {
        let (commands, queue) = mpsc::unbounded_channel();
        // The step of a well-known linear congruential generator: each peer's timers have their own jitter.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut engine = Peer::new(config.session.clone(), self.seed, Instant::now());
        engine.share_prefixes(&self.prefixes);
        let shares = Shares::new(engine, &config);
        let driver = Driver::new(
            Arc::clone(name),
            config.clone(),
            shares.clone(),
            self.events.clone(),
            Arc::clone(&self.observer.watches),
        );
        let task = tokio::spawn(async move {
            if let Some(predecessor) = predecessor {
                // However it ended, its connection is closed.
                let _ = predecessor.await;
            }
            driver.run(queue).await;
        });
        Running { config, commands, shares, task, waiting: Arc::default() }
    }
}

impl Observer {
    /// Where every peer stands.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, PeerSnapshot> {
        let snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |snapshot: &Mutex<PeerSnapshot>| snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshots.iter().map(|(name, snapshot)| (Arc::clone(name), read(snapshot))).collect()
    }

    /// What connections came in.
    #[must_use]
    pub fn incoming(&self) -> IncomingReport {
        self.incoming.report()
    }

    /// Where the BFD sessions stand; waits for their thread, usually some microseconds.
    #[must_use]
    pub fn bfd(&self) -> BfdReport {
        self.watches.report()
    }
}

impl Running {
    /// Changes of routes are made in the order in which they were told.
    fn tell_routes(&self, command: Command) {
        self.shares.queued.fetch_add(1, Ordering::Release);
        self.tell(command);
    }

    fn tell(&self, command: Command) {
        // The task is gone only when it was told to stop.
        let _ = self.commands.send(command);
    }
}

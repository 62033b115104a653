//! Resolves the hardware addresses of unreachable hosts. After a partition the kernel repeats its ARP and NDP requests
//! only once a second; this node requests them more often, so that two nodes which can reach each other again notice it
//! sooner.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Engine;
use super::link::Link;

#[derive(Debug)]
pub(super) struct Resolver {
    /// The hosts to resolve now.
    hosts: BTreeSet<IpAddr>,
    /// When the unreachable hosts are resolved next.
    at: Instant,
}

impl Resolver {
    pub(super) const fn new(now: Instant) -> Self {
        Self { hosts: BTreeSet::new(), at: now }
    }
}

impl Engine {
    /// The hosts whose hardware addresses must be requested now by broadcast or multicast.
    pub(crate) fn poll_resolve(&mut self) -> Option<Vec<IpAddr>> {
        let hosts = std::mem::take(&mut self.resolver.hosts);
        (!hosts.is_empty()).then(|| hosts.into_iter().collect())
    }

    /// Requests the hardware addresses of these hosts.
    pub(super) fn resolve(&mut self, hosts: impl IntoIterator<Item = SocketAddr>) {
        self.resolver.hosts.extend(hosts.into_iter().map(|host| host.ip()));
    }

    pub(super) fn run_resolver(&mut self, now: Instant) {
        if self.link == Link::Down || now < self.resolver.at {
            return;
        }
        let unreachable = self.unreachable();
        if !unreachable.is_empty() {
            self.resolver.at = now + INTERVAL;
            self.resolve(unreachable);
        }
    }

    /// When the unreachable hosts are resolved next, if there are any.
    pub(super) fn resolver_timeout(&self) -> Option<Instant> {
        (self.link == Link::Up && !self.unreachable().is_empty()).then_some(self.resolver.at)
    }

    /// The addresses of hosts that do not answer. In a large cluster none: its members keep hearing of each other
    /// through others.
    fn unreachable(&self) -> BTreeSet<SocketAddr> {
        if !self.is_small() {
            return BTreeSet::new();
        }
        let dead = self.gossip.members().filter(|member| self.detector.is_dead(member.node()));
        let mut unreachable = self.absent();
        unreachable.extend(dead.map(|member| member.address));
        unreachable
    }
}

/// The interval of requests for one host, which all hosts on the link receive.
const INTERVAL: Duration = Duration::from_millis(200);

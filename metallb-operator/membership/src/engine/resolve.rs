//! Whose hardware address is asked for. Kernels that lost sight of each other forget their hardware addresses, and ask for a missing one only
//! once a second, whatever there is to send meanwhile: so long two that could hear each other again would not know it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Engine;
use super::link::Link;

#[derive(Debug)]
pub(super) struct Seeking {
    /// Those that are to be asked for now.
    hosts: BTreeSet<IpAddr>,
    /// When those that are missing are asked for next.
    at: Instant,
}

impl Seeking {
    pub(super) const fn new(now: Instant) -> Self {
        Self { hosts: BTreeSet::new(), at: now }
    }
}

impl Engine {
    /// Hosts whose hardware addresses are to be asked for now, by a question to all on the link; see
    /// [`ask_for`](metallb_l2::io::Handle::ask_for).
    pub fn poll_sought(&mut self) -> Option<Vec<IpAddr>> {
        let hosts = std::mem::take(&mut self.seeking.hosts);
        (!hosts.is_empty()).then(|| hosts.into_iter().collect())
    }

    /// Has these asked for.
    pub(super) fn seek(&mut self, hosts: impl IntoIterator<Item = SocketAddr>) {
        self.seeking.hosts.extend(hosts.into_iter().map(|host| host.ip()));
    }

    pub(super) fn run_seeking(&mut self, now: Instant) {
        if self.link == Link::Down || now < self.seeking.at {
            return;
        }
        let missing = self.missing();
        if !missing.is_empty() {
            self.seeking.at = now + PERIOD;
            self.seek(missing);
        }
    }

    /// When those that are missing are asked for next, if any are.
    pub(super) fn seeking_at(&self) -> Option<Instant> {
        (self.link == Link::Up && !self.missing().is_empty()).then_some(self.seeking.at)
    }

    /// Where those are that do not answer. Among many, each of which meets others all the time, nobody is sought.
    fn missing(&self) -> BTreeSet<SocketAddr> {
        if !self.are_few() {
            return BTreeSet::new();
        }
        let gone = self.foca.iter_members().map(foca::Member::id).filter(|member| self.watch.is_gone(member.node()));
        let mut missing = self.absent();
        missing.extend(gone.map(|member| member.address));
        missing
    }
}

/// How often each question is asked, which everybody on the link hears.
const PERIOD: Duration = Duration::from_millis(200);

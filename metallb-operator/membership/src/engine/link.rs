//! The link of this node. While it is down nothing is sent: a kernel whose ARP or NDP request is lost repeats it only
//! after a second, not when the link returns. When the link or a usable interface returns, this node pings the other
//! members at once, and becomes ready when they have answered or after a timeout.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::join::JOIN_TIMEOUT;
use super::{Engine, Readiness};
use crate::wire::message::Message;

/// Whether datagrams can be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// They can be sent.
    Up,
    /// They would be lost.
    Down,
}

/// The transition from not ready to ready.
#[derive(Debug)]
pub(super) struct Return {
    /// The hosts that have not been heard since it began.
    awaited: BTreeSet<SocketAddr>,
    ping_at: Instant,
    until: Instant,
}

impl Return {
    pub(super) fn poll_timeout(&self) -> Instant {
        self.ping_at.min(self.until)
    }
}

impl Engine {
    /// Sets the state of the link that membership uses. Nothing is sent while it is down.
    pub(crate) const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Begins the transition to ready. The members that have taken over this node's addresses must be heard before it
    /// claims them.
    pub(super) fn begin_return(&mut self, now: Instant) {
        let nodes = self.detector.monitored().chain(&self.liveness.failed).take(AWAITED_MAX);
        let awaited: BTreeSet<SocketAddr> = nodes.filter_map(|node| self.address_of(node)).collect();
        self.returning = Some(Return { awaited, ping_at: now, until: now + JOIN_TIMEOUT });
        self.run_return(now);
    }

    pub(super) fn run_return(&mut self, now: Instant) {
        let Some(Return { awaited, ping_at, until }) = &mut self.returning else { return };
        if awaited.is_empty() || *until <= now {
            self.returning = None;
            self.apply_readiness(now, Readiness::Ready);
        } else if *ping_at <= now {
            *ping_at = now + PING_INTERVAL;
            let silent: Vec<SocketAddr> = awaited.iter().copied().collect();
            self.resolve(silent.iter().copied());
            for address in silent {
                match self.hosts.get(address) {
                    Some(_) => self.send_to(now, address, Message::Ping),
                    None => self.send_join(address),
                }
            }
        }
    }

    /// A host was heard.
    pub(super) fn note_heard_while_returning(&mut self, now: Instant, from: SocketAddr) {
        if let Some(Return { awaited, .. }) = &mut self.returning
            && awaited.remove(&from)
            && awaited.is_empty()
        {
            self.run_return(now);
        }
    }
}

/// How many hosts are waited for, and the interval of pings to each until it is heard.
const AWAITED_MAX: usize = 32;
const PING_INTERVAL: Duration = Duration::from_millis(20);

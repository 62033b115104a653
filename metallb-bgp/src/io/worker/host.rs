//! How a peer follows the addresses of this host, and the router of an unnumbered peer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ends, Link, Worker};
use crate::io::addresses::{self, Addresses};
use crate::io::netlink::route_to;
use crate::io::resolver::Resolver;
use crate::rib::NextHops;
use crate::session::{Slot, State};

/// The local address of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Source {
    /// The kernel does not list it, as for most addresses of 127.0.0.0/8.
    #[default]
    Unlisted,
    /// This host has it.
    Present,
    /// It was removed.
    Removed { since: Instant, check_at: Instant },
}

impl Source {
    pub(super) fn of(local: SocketAddr, addresses: &Addresses) -> Self {
        if addresses.has_end(local) { Self::Present } else { Self::Unlisted }
    }

    fn follow(self, now: Instant, is_present: bool) -> Self {
        match (self, is_present) {
            (_, true) => Self::Present,
            (Self::Present, false) => Self::Removed { since: now, check_at: now + GRACE },
            (source, false) => source,
        }
    }
}

impl Worker {
    /// The addresses of this host, or the announced ones, have changed.
    pub(super) fn follow_addresses(&mut self, now: Instant) {
        let addresses = Arc::clone(&self.host.borrow_and_update());
        for slot in Slot::ALL {
            let Link::Open(_, ends) = self.links[slot as usize] else {
                self.sources[slot as usize] = Source::Unlisted;
                continue;
            };
            let source = &mut self.sources[slot as usize];
            *source = source.follow(now, addresses.has_end(ends.0));
            let next_hops = self.next_hops(ends);
            self.peer().engine.set_next_hops(now, slot, next_hops);
        }
        if self.retry_on_change && self.peer().engine.state() == State::Idle {
            self.peer().engine.retry(now);
        }
    }

    /// The next hops of a connection.
    pub(super) fn next_hops(&self, ends: Ends) -> NextHops {
        let (local, remote) = ends;
        let route = route_to(remote.ip(), self.config.endpoint.device.as_deref());
        let peer = self.peer();
        let ends = addresses::Ends {
            local,
            route,
            current: peer.engine.next_hops().copied().unwrap_or_default(),
            is_announced: &|ip| peer.engine.rib().wants_host(ip),
        };
        self.host.borrow().next_hops(&ends)
    }

    /// When to look next at a connection whose local address was removed.
    pub(super) fn source_check_at(&self) -> Option<Instant> {
        let check_at = |source: &Source| match source {
            Source::Removed { check_at, .. } => Some(*check_at),
            Source::Unlisted | Source::Present => None,
        };
        self.sources.iter().filter_map(check_at).min()
    }

    /// Ends a connection whose local address is gone for good: the kernel would reach the router from another address,
    /// or the address has not returned for some time. A connection survives the removal of an address that is added
    /// again.
    pub(super) fn check_sources(&mut self, now: Instant) {
        for slot in Slot::ALL {
            let (Source::Removed { since, check_at }, Link::Open(_, (local, remote))) =
                (self.sources[slot as usize], &self.links[slot as usize])
            else {
                continue;
            };
            if check_at > now {
                continue;
            }
            let (local, remote) = (local.ip(), remote.ip());
            if now < since + PATIENCE && !self.reaches_otherwise(local, remote) {
                self.sources[slot as usize] = Source::Removed { since, check_at: now + GRACE };
                continue;
            }
            self.sources[slot as usize] = Source::Unlisted;
            self.retry_on_change = true;
            if let Link::Open(stream, _) = &self.links[slot as usize] {
                // With it the kernel sends from the removed address, so that the router gets the NOTIFICATION and drops
                // the routes with the old next hop. It needs CAP_NET_RAW; without it the router waits for its hold timer.
                let _ = socket2::SockRef::from(&**stream).set_ip_transparent_v4(true);
            }
            let mut peer = self.peer();
            peer.engine.handle_source_removed(now, slot, local);
            peer.engine.retry(now);
        }
    }

    /// Whether the kernel would connect to the router from another address.
    fn reaches_otherwise(&self, local: IpAddr, remote: IpAddr) -> bool {
        let endpoint = &self.config.endpoint;
        let is_direct = |via_gateway: bool| match endpoint.distance {
            crate::io::Distance::Direct => !via_gateway,
            crate::io::Distance::Routed => true,
        };
        let route = route_to(remote, endpoint.device.as_deref());
        route.is_some_and(|route| is_direct(route.via_gateway) && route.source.is_some_and(|source| source != local))
    }

    /// While there is no connection, BFD watches the path to the router that was found last. While there is one, BFD
    /// watches its path, so that a failure of it is still detected.
    pub(super) fn follow_router(&mut self) {
        let found = self.resolver.as_ref().and_then(Resolver::router);
        if let (Some(router), Some(client), None) = (found, &self.bfd, self.ends())
            && client.path().remote != IpAddr::V6(router)
        {
            self.start_bfd(router.into());
        }
    }
}

/// How long a connection is kept after its local address was removed, if the router is reachable from another one.
const GRACE: Duration = Duration::from_millis(600);

/// The same, if it is not.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_address_is_checked_after_a_grace_time_unless_it_returns() {
        let now = Instant::now();
        let removed = Source::Present.follow(now, false);
        assert_eq!(removed, Source::Removed { since: now, check_at: now + GRACE });
        assert_eq!(removed.follow(now + GRACE / 2, false), removed, "another change does not prolong the grace time");
        assert_eq!(removed.follow(now + GRACE / 2, true), Source::Present);
        assert_eq!(Source::Unlisted.follow(now, false), Source::Unlisted);
        assert_eq!(Source::Unlisted.follow(now, true), Source::Present);
    }
}

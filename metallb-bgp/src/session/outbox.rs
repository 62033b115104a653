//! What a session still has to tell its peer, and in which order.

use std::time::{Duration, Instant};

use super::{Session, Shared, State, Timer};
use crate::types::Family;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{self, Encoding};
use crate::wire::{EXTENDED_MESSAGE_MAX, MESSAGE_MAX};

/// What the peer is to be told as soon as the connection takes bytes. However often something changes before, it is told once: neither a
/// slow peer nor one that asks for everything all the time makes the output grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    updates: bool,
    end_of_rib: bool,
    refresh: [Refresh; 2],
}

/// Where the answer to a ROUTE-REFRESH stands, for one family.
#[derive(Clone, Copy, Debug, Default)]
struct Refresh {
    requested: bool,
    /// It has begun: the mark of its end must follow the routes (RFC 7313 §4.1).
    begun: bool,
    answered: Option<Instant>,
}

impl Owed {
    /// All routes and the mark that ends them.
    pub(super) fn everything() -> Self {
        Self { updates: true, end_of_rib: true, ..Self::default() }
    }

    /// The routes have changed.
    pub(super) const fn changed(&mut self) {
        self.updates = true;
    }

    /// The peer asked for the routes of a family again.
    pub(super) const fn request(&mut self, family: Family) {
        self.refresh[index(family)].requested = true;
    }
}

impl Session {
    /// The routes have changed.
    pub(crate) fn handle_routes(&mut self, now: Instant, shared: &mut Shared) {
        self.owed.changed();
        self.flush(now, shared);
    }

    /// Writes what is owed, as far as there is room.
    pub(crate) fn flush(&mut self, now: Instant, shared: &mut Shared) {
        if self.state != State::Established || self.blocked {
            return;
        }
        let before = self.output.len();
        let updates = shared.counters.updates_sent;
        self.write_updates(shared);
        if !self.owed.updates {
            self.write_end_of_rib(shared);
        }
        // What ends a refresh must come before what begins another.
        if !self.owed.updates {
            self.write_refresh_ends();
        }
        if !self.owed.end_of_rib {
            self.begin_refreshes(now, shared);
            self.write_updates(shared);
            if !self.owed.updates {
                self.write_refresh_ends();
            }
        }
        // An update tells the peer that we live.
        let told = self.output.len() > before && shared.counters.updates_sent > updates;
        if told && self.timers.at(Timer::Keepalive).is_some() {
            self.arm_keepalive(now, shared);
        }
    }

    fn write_updates(&mut self, shared: &mut Shared) {
        let Some(negotiated) = &self.negotiated else { return };
        let encoding = Encoding {
            asn: shared.config.asn,
            internal: negotiated.internal,
            four_octet_asn: negotiated.four_octet_asn,
        };
        let message_max = if negotiated.extended_messages { EXTENDED_MESSAGE_MAX } else { MESSAGE_MAX };
        while self.owed.updates && self.output.len() < OUTPUT_MAX {
            let start = self.output.len();
            self.output.resize(start + CHUNK.max(message_max), 0);
            let sent = shared.rib.poll_transmit(&mut self.output[start..], &encoding, &self.next_hops, message_max);
            self.output.truncate(start + sent.bytes);
            shared.counters.updates_sent += sent.messages;
            self.owed.updates = sent.messages > 0;
        }
    }

    /// The mark that ends the first exchange: the peer drops now what it kept over a restart and was not offered again. So it must wait
    /// until the routes are known.
    fn write_end_of_rib(&mut self, shared: &mut Shared) {
        let Some(negotiated) = self.negotiated.as_ref().filter(|_| shared.routes_known && self.owed.end_of_rib) else {
            return;
        };
        for &family in &negotiated.families {
            update::end_of_rib(&mut self.output, family);
            shared.counters.updates_sent += 1;
        }
        self.owed.end_of_rib = false;
    }

    /// RFC 7313 §4.1: never before End-of-RIB. A peer that asks all the time is answered once a second.
    fn begin_refreshes(&mut self, now: Instant, shared: &mut Shared) {
        let Some(negotiated) = &self.negotiated else { return };
        let mut again: Option<Instant> = None;
        for &family in &negotiated.families {
            let refresh = &mut self.owed.refresh[index(family)];
            if !refresh.requested {
                continue;
            }
            let due = refresh.answered.map_or(now, |at| at + REFRESH_PAUSE);
            if due > now {
                again = Some(again.map_or(due, |at| at.min(due)));
                continue;
            }
            if negotiated.enhanced_refresh && !refresh.begun {
                RouteRefresh::encode(&mut self.output, RefreshKind::Begin, family);
                refresh.begun = true;
            }
            refresh.requested = false;
            refresh.answered = Some(now);
            shared.rib.replay(Some(family));
            self.owed.updates = true;
        }
        self.timers.set(Timer::Refresh, again);
    }

    fn write_refresh_ends(&mut self) {
        for family in [Family::Ipv4, Family::Ipv6] {
            if std::mem::take(&mut self.owed.refresh[index(family)].begun) {
                RouteRefresh::encode(&mut self.output, RefreshKind::End, family);
            }
        }
    }
}

const fn index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// Bytes that are made at a time: several messages, so that one write carries them.
const CHUNK: usize = 4 * MESSAGE_MAX;

/// Bytes that may wait to be taken. More are made when these were handed to the connection.
const OUTPUT_MAX: usize = 256 * 1024;

/// The least time between two answers to ROUTE-REFRESH.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

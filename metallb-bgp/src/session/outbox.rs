//! The pending output of a session, and its order.

use std::time::{Duration, Instant};

use super::{Session, Shared, State, Timer};
use crate::types::Family;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{self, Encoding};
use crate::wire::{EXTENDED_MESSAGE_MAX, MESSAGE_MAX};

/// What is to be sent as soon as the connection accepts bytes. It is level-triggered: many changes in the meantime are
/// one update, so neither a slow peer nor a flood of ROUTE-REFRESH makes the output grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    updates: bool,
    end_of_rib: bool,
    refresh: [Refresh; 2],
}

/// The progress of a response to ROUTE-REFRESH, for one family.
#[derive(Clone, Copy, Debug, Default)]
struct Refresh {
    requested: bool,
    /// BoRR was sent: EoRR must follow the routes (RFC 7313 §4.1).
    begun: bool,
    answered: Option<Instant>,
}

impl Pending {
    /// All routes, then End-of-RIB.
    pub(super) fn everything() -> Self {
        Self { updates: true, end_of_rib: true, ..Self::default() }
    }

    /// The routes have changed.
    pub(super) const fn changed(&mut self) {
        self.updates = true;
    }

    /// The peer requested the routes of a family again.
    pub(super) const fn request(&mut self, family: Family) {
        self.refresh[index(family)].requested = true;
    }
}

impl Session {
    /// The routes have changed.
    pub(crate) fn handle_routes(&mut self, now: Instant, shared: &mut Shared) {
        self.pending.changed();
        self.flush(now, shared);
    }

    /// Writes the pending output, as far as there is room.
    pub(crate) fn flush(&mut self, now: Instant, shared: &mut Shared) {
        if self.state != State::Established || self.blocked {
            return;
        }
        let before = self.output.len();
        let updates = shared.counters.updates_sent;
        self.write_updates(shared);
        if !self.pending.updates {
            self.write_end_of_rib(shared);
        }
        // The end of a refresh must precede the begin of the next one.
        if !self.pending.updates {
            self.write_refresh_ends();
        }
        if !self.pending.end_of_rib {
            self.begin_refreshes(now, shared);
            self.write_updates(shared);
            if !self.pending.updates {
                self.write_refresh_ends();
            }
        }
        // An UPDATE restarts the peer's hold timer as a KEEPALIVE does.
        let updated = self.output.len() > before && shared.counters.updates_sent > updates;
        if updated && self.timers.at(Timer::Keepalive).is_some() {
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
        while self.pending.updates && self.output.len() < OUTPUT_MAX {
            let start = self.output.len();
            self.output.resize(start + CHUNK.max(message_max), 0);
            let sent = shared.rib.poll_transmit(&mut self.output[start..], &encoding, &self.next_hops, message_max);
            self.output.truncate(start + sent.bytes);
            shared.counters.updates_sent += sent.messages;
            self.pending.updates = sent.messages > 0;
        }
    }

    /// Writes End-of-RIB. On receipt the peer drops the routes that it kept over a restart and that were not announced
    /// again, so it must not be sent before the routes are known.
    fn write_end_of_rib(&mut self, shared: &mut Shared) {
        let Some(negotiated) = self.negotiated.as_ref().filter(|_| shared.routes_known && self.pending.end_of_rib)
        else {
            return;
        };
        for &family in &negotiated.families {
            update::end_of_rib(&mut self.output, family);
            shared.counters.updates_sent += 1;
        }
        self.pending.end_of_rib = false;
    }

    /// Starts the response to requests, not before End-of-RIB (RFC 7313 §4.1) and at most once a second.
    fn begin_refreshes(&mut self, now: Instant, shared: &mut Shared) {
        let Some(negotiated) = &self.negotiated else { return };
        let mut again: Option<Instant> = None;
        for &family in &negotiated.families {
            let refresh = &mut self.pending.refresh[index(family)];
            if !refresh.requested {
                continue;
            }
            let due = refresh.answered.map_or(now, |at| at + REFRESH_INTERVAL);
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
            self.pending.updates = true;
        }
        self.timers.set(Timer::Refresh, again);
    }

    fn write_refresh_ends(&mut self) {
        for family in [Family::Ipv4, Family::Ipv6] {
            if std::mem::take(&mut self.pending.refresh[index(family)].begun) {
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

/// Number of bytes produced at a time: several messages, so that one write carries them.
const CHUNK: usize = 4 * MESSAGE_MAX;

/// Limit of the output buffer. When it is reached, updates stay pending in the Adj-RIB-Out until the connection has
/// accepted bytes.
const OUTPUT_MAX: usize = 256 * 1024;

/// Minimum interval between two responses to ROUTE-REFRESH.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

//! Our own link. While it is down nothing is sent: a kernel that asks in vain for the neighbours' hardware addresses asks again a
//! second later, not when the link is back. When it is back, or an interface to announce on is, we are a newcomer: all others are
//! hailed at once, and we stand for election when they answered, or soon.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::join::ENTRY_PATIENCE;
use super::{Engine, Standing};
use crate::wire::message::Message;

/// Whether datagrams can leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// They can.
    Up,
    /// They would be lost.
    Down,
}

/// We could not announce, and can again.
#[derive(Debug)]
pub(super) struct Return {
    /// Who has not been heard since.
    awaited: BTreeSet<SocketAddr>,
    hail_at: Instant,
    until: Instant,
}

impl Return {
    pub(super) fn next(&self) -> Instant {
        self.hail_at.min(self.until)
    }
}

impl Engine {
    /// Says whether the link that membership uses is up. Nothing is sent while it is down.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Begins to come back: whoever has what was ours is to be heard before we claim it.
    pub(super) fn begin_return(&mut self, now: Instant) {
        let nodes = self.watch.watched().chain(&self.lost).take(HAILED);
        let awaited: BTreeSet<SocketAddr> = nodes.filter_map(|node| self.address_of(node)).collect();
        self.returning = Some(Return { awaited, hail_at: now, until: now + ENTRY_PATIENCE });
        self.run_return(now);
    }

    pub(super) fn run_return(&mut self, now: Instant) {
        let Some(Return { awaited, hail_at, until }) = &mut self.returning else { return };
        if awaited.is_empty() || *until <= now {
            self.returning = None;
            self.take_standing(now, Standing::Able);
        } else if *hail_at <= now {
            *hail_at = now + HAIL_PERIOD;
            let silent: Vec<SocketAddr> = awaited.iter().copied().collect();
            self.seek(silent.iter().copied());
            for address in silent {
                match self.peers.get(address) {
                    Some(_) => self.send_to(now, address, Message::Ping),
                    None => self.greet(address),
                }
            }
        }
    }

    /// A sign of life.
    pub(super) fn hear_while_returning(&mut self, now: Instant, from: SocketAddr) {
        if let Some(Return { awaited, .. }) = &mut self.returning
            && awaited.remove(&from)
            && awaited.is_empty()
        {
            self.run_return(now);
        }
    }
}

/// How many are hailed, and how often each is until it answers.
const HAILED: usize = 32;
const HAIL_PERIOD: Duration = Duration::from_millis(20);

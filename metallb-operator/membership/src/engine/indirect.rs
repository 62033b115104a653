//! Indirect probes: another member suspects a node and asks this one to ping it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use super::Engine;
use crate::wire::message::Message;

/// The `PingReq` messages that are being worked on. Bounded: beyond [`REQUESTS_MAX`] a new one is dropped; the asker
/// has other witnesses, and asks again.
#[derive(Debug, Default)]
pub(super) struct PingRequests(Vec<PingRequest>);

#[derive(Debug)]
struct PingRequest {
    target: NodeName,
    asker: SocketAddr,
    token: u32,
    /// When the second ping is sent; `None` when it has been.
    second_ping_at: Option<Instant>,
    until: Instant,
}

impl PingRequests {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().map(|request| request.second_ping_at.unwrap_or(request.until)).min()
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

impl Engine {
    /// Pings the target twice before it reports the target as unreachable.
    pub(super) fn handle_ping_req(&mut self, now: Instant, asker: SocketAddr, target: NodeName, token: u32) {
        if target == *self.config.me.node() {
            return self.send_to(now, asker, Message::PingReqReply { target, token, reachable: true });
        }
        let Some(address) = self.address_of(&target) else {
            // The node is unknown here: neither confirm nor contradict.
            return;
        };
        let requests = &mut self.ping_requests.0;
        requests.retain(|request| request.asker != asker || request.target != target);
        if requests.len() < REQUESTS_MAX {
            self.send_to(now, address, Message::Ping);
            let (second_ping_at, until) = (Some(now + REPLY_AFTER / 2), now + REPLY_AFTER);
            self.ping_requests.0.push(PingRequest { target, asker, token, second_ping_at, until });
        }
    }

    /// A node has answered: replies to the members that asked for it.
    pub(super) fn reply_reachable(&mut self, node: &NodeName) {
        let answered = self.ping_requests.0.extract_if(.., |request| request.target == *node).collect();
        self.send_replies(answered, true);
    }

    pub(super) fn run_ping_requests(&mut self, now: Instant) {
        let expired = self.ping_requests.0.extract_if(.., |request| request.until <= now).collect();
        self.send_replies(expired, false);
        let mut targets = Vec::new();
        for request in &mut self.ping_requests.0 {
            if request.second_ping_at.is_some_and(|at| at <= now) {
                request.second_ping_at = None;
                targets.push(request.target.clone());
            }
        }
        for node in targets {
            self.send(now, &node, Message::Ping);
        }
    }

    fn send_replies(&mut self, requests: Vec<PingRequest>, reachable: bool) {
        for PingRequest { target, asker, token, .. } in requests {
            if let Some(session) = self.hosts.get(asker).map(|host| host.session) {
                self.transmit(asker, session, Message::PingReqReply { target, token, reachable });
            }
        }
    }
}

pub(super) const REQUESTS_MAX: usize = 256;

/// How long the target may take to answer.
const REPLY_AFTER: Duration = Duration::from_millis(120);

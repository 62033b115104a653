//! The echo function (RFC 5880 §6.4, RFC 5881): our own packets, returned by the neighbour.
//!
//! It works like that of FRR for IPv6: a packet is sent to port 3785 of the neighbour with TTL 255, and the neighbour
//! returns it with TTL 254. A session fails if the neighbour stops returning packets, but not if it has never returned
//! one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::Discriminator;
use super::super::iana::VERSION;

#[derive(Debug, Default)]
pub(super) struct Echo {
    pub(super) interval: Option<Duration>,
    pub(super) transmit_at: Option<Instant>,
    pub(super) detect_at: Option<Instant>,
    /// Tags of packets in flight. Each tag is accepted once, so that neither a guess nor a replay keeps a failed path
    /// up.
    outstanding: VecDeque<u64>,
}

impl Echo {
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(super) fn sent(&mut self, tag: u64) {
        if self.outstanding.len() == IN_FLIGHT_MAX {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(tag);
    }

    /// Removes a tag. Returns whether a packet with this tag was in flight.
    pub(super) fn returned(&mut self, tag: u64) -> bool {
        let position = self.outstanding.iter().position(|sent| *sent == tag);
        position.is_some_and(|position| self.outstanding.remove(position).is_some())
    }
}

/// An echo packet, whose content only the sender interprets (RFC 5881 §4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::bfd) struct EchoPacket {
    pub(in crate::bfd) discriminator: Discriminator,
    pub(in crate::bfd) tag: u64,
}

impl EchoPacket {
    pub(in crate::bfd) const LENGTH: usize = 24;

    pub(in crate::bfd) fn encode(self) -> [u8; Self::LENGTH] {
        let mut octets = [0; Self::LENGTH];
        octets[0] = VERSION;
        octets[1] = Self::LENGTH as u8;
        octets[4..8].copy_from_slice(&self.discriminator.get().to_be_bytes());
        octets[8..16].copy_from_slice(&self.tag.to_be_bytes());
        octets
    }

    pub(in crate::bfd) fn decode(payload: &[u8]) -> Option<Self> {
        let octets = payload.first_chunk::<{ Self::LENGTH }>()?;
        let [VERSION, _, _, _, d0, d1, d2, d3, t0, t1, t2, t3, t4, t5, t6, t7, ..] = *octets else { return None };
        let discriminator = Discriminator::new(u32::from_be_bytes([d0, d1, d2, d3]))?;
        Some(Self { discriminator, tag: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]) })
    }
}

/// Limit of tags in flight; if it is reached, the oldest tag is dropped.
const IN_FLIGHT_MAX: usize = 16;

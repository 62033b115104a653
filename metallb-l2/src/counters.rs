//! Counters of frames and conflicts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::responder::DropReason;
use crate::vip::VipTable;

/// A snapshot of the counters of an engine. Counters never decrease; those of a removed address are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests received per announced address.
    pub requests: BTreeMap<IpAddr, u64>,
    /// Replies handed to the driver per address.
    pub responses: BTreeMap<IpAddr, u64>,
    /// Gratuitous frames handed to the driver per address.
    pub gratuitous: BTreeMap<IpAddr, u64>,
    /// Frames that got no reply, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Frames per address in which another host claimed it.
    pub conflicts: BTreeMap<IpAddr, u64>,
    /// Probes handed to the driver.
    pub probes: u64,
    /// Frames in which another speaker claimed an address that this engine announces.
    pub claims_of_speakers: u64,
    /// ARP messages whose sender hardware address differs from the Ethernet source.
    pub mismatched_senders: u64,
    /// Events that were dropped because the queue was full.
    pub lost_events: u64,
}

/// Counters that belong to no address.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    dropped: [u64; DropReason::ALL.len()],
    pub(crate) probes: u64,
    pub(crate) claims_of_speakers: u64,
    pub(crate) mismatched_senders: u64,
    pub(crate) lost_events: u64,
}

impl Tally {
    pub(crate) const fn count_drop(&mut self, reason: DropReason) {
        // The array has one element per variant.
        self.dropped[reason as usize] += 1;
    }

    pub(crate) fn snapshot(&self, vips: &VipTable) -> Counters {
        let mut counters = Counters {
            dropped: DropReason::ALL.into_iter().zip(self.dropped).filter(|(_, count)| *count > 0).collect(),
            probes: self.probes,
            claims_of_speakers: self.claims_of_speakers,
            mismatched_senders: self.mismatched_senders,
            lost_events: self.lost_events,
            ..Counters::default()
        };
        for (_, vip) in vips.iter() {
            for (count, by_ip) in [
                (vip.counts.requests, &mut counters.requests),
                (vip.counts.responses, &mut counters.responses),
                (vip.counts.gratuitous, &mut counters.gratuitous),
                (vip.counts.conflicts, &mut counters.conflicts),
            ] {
                if count > 0 {
                    by_ip.insert(vip.ip, count);
                }
            }
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_reasons_are_counted_separately() {
        let mut tally = Tally::default();
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| tally.count_drop(reason));
        }
        let counts: Vec<u64> = tally.snapshot(&VipTable::default()).dropped.into_values().collect();
        assert_eq!(counts, (1..=DropReason::ALL.len() as u64).collect::<Vec<_>>());
    }
}

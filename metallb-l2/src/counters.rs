//! What happened so far.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::responder::DropReason;
use crate::vip::VipTable;

/// A snapshot of everything that the engine counted. Counts never fall; an address that was given up keeps its.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Questions for addresses of ours.
    pub requests: BTreeMap<IpAddr, u64>,
    /// Answers handed out to be sent.
    pub responses: BTreeMap<IpAddr, u64>,
    /// Gratuitous frames handed out to be sent.
    pub gratuitous: BTreeMap<IpAddr, u64>,
    /// Frames without an answer.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Frames in which another host claimed an address of ours.
    pub conflicts: BTreeMap<IpAddr, u64>,
    /// Probes handed out to be sent.
    pub probes: u64,
    /// Frames in which another speaker claimed an address that we hold.
    pub claims_of_speakers: u64,
    /// ARP messages whose sender inside is not the sender of the frame.
    pub mismatched_senders: u64,
    /// Events that nobody took before they had to make room.
    pub lost_events: u64,
}

/// Counts that belong to no address, in place.
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
        // The array has a place for each variant.
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
    fn each_reason_has_its_own_place() {
        let mut tally = Tally::default();
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| tally.count_drop(reason));
        }
        let counts: Vec<u64> = tally.snapshot(&VipTable::default()).dropped.into_values().collect();
        assert_eq!(counts, (1..=DropReason::ALL.len() as u64).collect::<Vec<_>>());
    }
}

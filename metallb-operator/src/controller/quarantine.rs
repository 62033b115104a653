//! Addresses that foreign hosts use, by reports of speakers: out of circulation for some time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::QuarantinedAddress;

/// The quarantined addresses and the end of their quarantine.
#[derive(Debug, Default)]
pub(super) struct Quarantine(BTreeMap<IpAddr, Entry>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    mac: Arc<str>,
    until: Timestamp,
}

impl Quarantine {
    /// Restores the entries that an earlier controller wrote into the status of a pool.
    pub(super) fn adopt<'a>(&mut self, listed: impl IntoIterator<Item = &'a QuarantinedAddress>) {
        let read = |entry: &QuarantinedAddress| {
            Some((
                entry.ip.parse().ok()?,
                Entry { mac: entry.mac_address.as_str().into(), until: entry.until.parse().ok()? },
            ))
        };
        self.0.extend(listed.into_iter().filter_map(read));
    }

    /// Records a report of a speaker. True if the status must be written, which is rare while reports repeat.
    pub(super) fn report(&mut self, now: Timestamp, ip: IpAddr, mac: &str) -> bool {
        let fresh = Entry { mac: mac.into(), until: now.saturating_add(TERM).unwrap_or(now) };
        match self.0.get(&ip) {
            Some(known) if *known.mac == *mac && now.duration_until(known.until) > TERM / 2 => false,
            // Two hosts that alternate cause one write, not one per report.
            Some(known) if now.duration_until(known.until) > TERM - PATIENCE => false,
            _ => {
                self.0.insert(ip, fresh);
                true
            }
        }
    }

    /// Releases addresses without a recent report. True if there was any.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.0.len();
        self.0.retain(|_, entry| entry.until > now);
        self.0.len() != before
    }

    /// The addresses, for the assignment.
    pub(super) fn addresses(&self) -> BTreeMap<IpAddr, Arc<str>> {
        self.0.iter().map(|(ip, entry)| (*ip, Arc::clone(&entry.mac))).collect()
    }

    /// The entries for the status of a pool; `is_inside` selects the addresses of the pool.
    pub(super) fn listed(&self, is_inside: impl Fn(IpAddr) -> bool) -> Vec<QuarantinedAddress> {
        let inside = self.0.iter().filter(|(ip, _)| is_inside(**ip));
        inside
            .map(|(ip, entry)| QuarantinedAddress {
                ip: ip.to_string(),
                mac_address: entry.mac.to_string(),
                until: entry.until.to_string(),
            })
            .collect()
    }
}

/// Duration of the quarantine after the last report.
const TERM: SignedDuration = SignedDuration::from_mins(10);

/// For this long after a report, another host on the same address causes no write.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "02:00:00:00:00:0a";
    const B: &str = "02:00:00:00:00:0b";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn address_is_released_ten_minutes_after_the_last_report() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let mut quarantine = Quarantine::default();
        assert!(quarantine.report(at(0), ip, A));
        assert!(!quarantine.report(at(1), ip, A), "already written");
        assert!(!quarantine.report(at(200), ip, A));
        assert!(quarantine.report(at(301), ip, A), "half of the time is over");
        assert!(!quarantine.expire(at(900)));
        assert_eq!(quarantine.addresses().len(), 1);
        assert!(quarantine.expire(at(901)));
        assert!(quarantine.addresses().is_empty());
        assert!(!quarantine.expire(at(902)));
    }

    #[test]
    fn hosts_that_take_turns_are_written_down_once_a_minute() {
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let mut quarantine = Quarantine::default();
        let written = (0..180).filter(|&second| quarantine.report(at(second), ip, [A, B][second as usize % 2])).count();
        assert!((1..=4).contains(&written), "{written}");
    }

    #[test]
    fn successor_takes_over_what_the_status_says_and_nothing_that_cannot_be_read() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let mut quarantine = Quarantine::default();
        quarantine.report(at(0), ip, A);
        let mut listed = quarantine.listed(|_| true);
        assert!(quarantine.listed(|_| false).is_empty());
        listed.push(QuarantinedAddress { ip: "nonsense".to_owned(), ..listed[0].clone() });
        listed.push(QuarantinedAddress { ip: "192.0.2.2".to_owned(), until: "soon".to_owned(), ..listed[0].clone() });
        let mut successor = Quarantine::default();
        successor.adopt(&listed);
        assert_eq!(successor.addresses(), BTreeMap::from([(ip, A.into())]));
        assert!(successor.expire(at(600)));
    }
}

//! Which addresses are new to the cluster: only they are worth a probe. An address that moves from node to node is not, nor is one that
//! was there before this process.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The addresses of all Services, as of the last look; `None` before the first.
#[derive(Debug, Default)]
pub(super) struct Assigned(Option<BTreeSet<IpAddr>>);

impl Assigned {
    /// Takes in what is assigned now; returns what was not at the last look. Of the first look nothing is new.
    pub(super) fn see(&mut self, now: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let now: BTreeSet<IpAddr> = now.into_iter().collect();
        let before = self.0.replace(now.clone());
        before.map(|before| now.difference(&before).copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_new_when_no_service_had_it_at_the_last_look_and_never_at_the_first() {
        let mut assigned = Assigned::default();
        let [a, b]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(assigned.see([a]), BTreeSet::new());
        assert_eq!(assigned.see([a, b]), BTreeSet::from([b]));
        assert_eq!(assigned.see([a, b, a]), BTreeSet::new());
        assert_eq!(assigned.see([b]), BTreeSet::new());
        assert_eq!(assigned.see([a, b]), BTreeSet::from([a]), "it was free in between");
    }
}

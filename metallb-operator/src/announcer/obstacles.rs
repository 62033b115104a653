//! What speaks against announcing addresses on this node, and who else on it answers for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use metallb_l2::interface::ForeignAddress;

/// What was found when it was last looked.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    pub(super) refused: BTreeMap<IpAddr, ForeignAddress>,
    answered_by_kernel: BTreeMap<IpAddr, Vec<Arc<str>>>,
}

/// Something about an address that its operator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// The address.
    pub ip: IpAddr,
    /// What, in one word.
    pub kind: ObstacleKind,
    /// The same in words.
    pub text: String,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObstacleKind {
    /// This node is to answer for the address and does not.
    Refused,
    /// Its kernel answers for it too, whichever node is to.
    AnsweredByKernel,
}

impl Obstacles {
    /// Takes in what is refused now; says what of it is news.
    pub(super) fn see_refused(&mut self, now: BTreeMap<IpAddr, ForeignAddress>) -> Vec<Obstacle> {
        let before = std::mem::replace(&mut self.refused, now);
        let news = self.refused.iter().filter(|(ip, objection)| before.get(*ip) != Some(*objection));
        news.map(|(&ip, objection)| {
            let text = format!("{ip} is not announced: {objection}");
            Obstacle { ip, kind: ObstacleKind::Refused, text }
        })
        .collect()
    }

    /// Takes in what the kernel answers for now; says what of it is news.
    pub(super) fn see_answered_by_kernel(&mut self, now: BTreeMap<IpAddr, Vec<Arc<str>>>) -> Vec<Obstacle> {
        let before = std::mem::replace(&mut self.answered_by_kernel, now);
        let news = self.answered_by_kernel.iter().filter(|(ip, _)| !before.contains_key(*ip));
        news.map(|(&ip, interfaces)| {
            let text = format!(
                "the kernel of this node answers ARP for {ip} on {}, whichever node announces it: with kube-proxy in IPVS mode set strictARP, else arp_ignore",
                interfaces.join(", ")
            );
            Obstacle { ip, kind: ObstacleKind::AnsweredByKernel, text }
        })
        .collect()
    }

    /// How many addresses the kernel answers for.
    pub(super) fn answered_by_kernel(&self) -> usize {
        self.answered_by_kernel.len()
    }
}

impl ObstacleKind {
    /// The reason of an Event about it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "announceFailed",
            Self::AnsweredByKernel => "answeredByKernel",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn obstacle_is_told_once_and_again_with_another_reason_or_after_its_end() {
        let mut obstacles = Obstacles::default();
        let refused = |objection| BTreeMap::from([(ip("192.0.2.1"), objection)]);
        let texts = |found: Vec<Obstacle>| found.into_iter().map(|found| found.text).collect::<Vec<_>>();
        let gateway = ["192.0.2.1 is not announced: the default route of this node leads to it"];
        assert_eq!(texts(obstacles.see_refused(refused(ForeignAddress::Gateway))), gateway);
        assert_eq!(texts(obstacles.see_refused(refused(ForeignAddress::Gateway))), [""; 0]);
        let own = ["192.0.2.1 is not announced: this node has it on eth0"];
        assert_eq!(texts(obstacles.see_refused(refused(ForeignAddress::OwnAddress("eth0".into())))), own);
        assert_eq!(texts(obstacles.see_refused(BTreeMap::new())), [""; 0]);
        assert_eq!(texts(obstacles.see_refused(refused(ForeignAddress::Gateway))), gateway);
        let answered = || BTreeMap::from([(ip("192.0.2.2"), vec!["eth0".into(), "eth1".into()])]);
        let told = obstacles.see_answered_by_kernel(answered());
        assert!(told[0].text.contains("192.0.2.2 on eth0, eth1") && told[0].text.contains("strictARP"), "{told:?}");
        assert_eq!(obstacles.see_answered_by_kernel(answered()), []);
        assert_eq!(obstacles.answered_by_kernel(), 1);
    }
}

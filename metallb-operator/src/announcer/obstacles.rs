//! What speaks against announcing addresses on this node, and who else on it answers for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::local::Findings;
use super::unanswered::Unanswered;

/// What was found when it was last looked.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    pub(super) refused: BTreeMap<IpAddr, Unanswered>,
    /// The number of looks in a row at which an address had no link-local address to answer from.
    without_link_local: BTreeMap<IpAddr, u32>,
    answered_by_kernel: BTreeMap<IpAddr, Vec<Arc<str>>>,
    local: Findings,
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
    /// An interface of this node has it, and another node is to answer.
    OnInterface,
    /// This node answers for it, and has no address in its subnet.
    OtherSubnet,
}

impl Obstacles {
    /// Takes in what is refused now; says what of it is news.
    pub(super) fn see_refused(&mut self, mut now: BTreeMap<IpAddr, Unanswered>) -> Vec<Obstacle> {
        self.wait_for_link_local(&mut now);
        let before = std::mem::replace(&mut self.refused, now);
        let news = self.refused.iter().filter(|(ip, reason)| before.get(*ip) != Some(*reason));
        let news = news.filter(|(_, reason)| !reason.is_reported_as_failed());
        news.map(|(&ip, reason)| {
            let text = format!("{ip} is not announced: {reason}");
            Obstacle { ip, kind: ObstacleKind::Refused, text }
        })
        .collect()
    }

    /// Takes in what the addresses of this node say now; says what of it is news.
    pub(super) fn see_local(&mut self, now: Findings) -> Vec<Obstacle> {
        let before = std::mem::replace(&mut self.local, now);
        let news = self.local.iter().filter(|(ip, finding)| before.get(*ip) != Some(*finding));
        news.map(|(&ip, (kind, text))| Obstacle { ip, kind: *kind, text: text.clone() }).collect()
    }

    /// The findings about addresses of this node, as text.
    pub(super) fn local(&self) -> impl Iterator<Item = (IpAddr, String)> {
        self.local.iter().map(|(ip, (_, text))| (*ip, text.clone()))
    }

    /// An interface that has just come up gets its link-local address after duplicate address detection.
    fn wait_for_link_local(&mut self, now: &mut BTreeMap<IpAddr, Unanswered>) {
        let is_without = |reason: &Unanswered| matches!(reason, Unanswered::NoLinkLocal(_));
        self.without_link_local.retain(|ip, _| now.get(ip).is_some_and(is_without));
        now.retain(|ip, reason| {
            if !is_without(reason) {
                return true;
            }
            let looks = self.without_link_local.entry(*ip).or_default();
            *looks = looks.saturating_add(1);
            *looks > LOOKS_FOR_LINK_LOCAL
        });
    }

    /// The addresses that the kernel answers for, in words.
    pub(super) fn kernel_answers(&self) -> impl Iterator<Item = (IpAddr, String)> {
        self.answered_by_kernel.iter().map(|(ip, interfaces)| (*ip, answered_by_kernel(*ip, interfaces)))
    }

    /// Takes in what the kernel answers for now; says what of it is news.
    pub(super) fn see_answered_by_kernel(&mut self, now: BTreeMap<IpAddr, Vec<Arc<str>>>) -> Vec<Obstacle> {
        let before = std::mem::replace(&mut self.answered_by_kernel, now);
        let news = self.answered_by_kernel.iter().filter(|(ip, _)| !before.contains_key(*ip));
        news.map(|(&ip, interfaces)| {
            let text = answered_by_kernel(ip, interfaces);
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
            Self::OnInterface => "addressOnInterface",
            Self::OtherSubnet => "otherSubnet",
        }
    }
}

fn answered_by_kernel(ip: IpAddr, interfaces: &[Arc<str>]) -> String {
    format!(
        "the kernel of this node answers ARP for {ip} on {}, whichever node announces it: with kube-proxy in IPVS mode \
         set strictARP, else arp_ignore",
        interfaces.join(", ")
    )
}

/// How often an address may lack a link-local address before it is reported.
const LOOKS_FOR_LINK_LOCAL: u32 = 2;

#[cfg(test)]
mod tests {
    use metallb_l2::interface::ForeignAddress;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn obstacle_is_told_once_and_again_with_another_reason_or_after_its_end() {
        let mut obstacles = Obstacles::default();
        let refused = |objection| BTreeMap::from([(ip("192.0.2.1"), Unanswered::Foreign(objection))]);
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

    #[test]
    fn missing_link_local_address_is_told_when_it_lasts() {
        let mut obstacles = Obstacles::default();
        let off = || BTreeMap::from([(ip("fd00::1"), Unanswered::NoLinkLocal(vec!["eth0".into()]))]);
        let mut told = |now| obstacles.see_refused(now).len();
        assert_eq!([off(), off(), off(), off()].map(&mut told), [0, 0, 1, 0]);
        assert_eq!([BTreeMap::new(), off(), off(), off()].map(&mut told), [0, 0, 0, 1]);
    }
}

//! The problems of the configuration that concern one node.
//!
//! A peer that only other nodes hold, or a BGPAdvertisement whose next hops are other nodes, says nothing about the
//! configuration of this node. Upstream's speaker parses neither.

use std::collections::BTreeSet;

use metallb_core::config::Problem;
use metallb_core::config::spec::{BgpAdvertisementSpec, Resources};
use metallb_core::model::{LabelSelector, Labels, Selector};

/// The problems among `problems` that concern a node with these labels.
pub(super) fn concerning(problems: Vec<Problem>, resources: &Resources, labels: &Labels) -> BTreeSet<Problem> {
    problems.into_iter().filter(|problem| concerns(problem, resources, labels)).collect()
}

fn concerns(problem: &Problem, resources: &Resources, labels: &Labels) -> bool {
    let name = &problem.object.name;
    let selectors = match problem.object.kind {
        "BGPPeer" => resources.peers.iter().find(|peer| peer.meta.name == **name).map(|peer| &peer.node_selectors),
        "BGPAdvertisement" => {
            let named = |advertisement: &&BgpAdvertisementSpec| advertisement.meta.name == **name;
            resources.bgp_advertisements.iter().find(named).map(|advertisement| &advertisement.node_selectors)
        }
        _ => None,
    };
    selectors
        .is_none_or(|selectors| selectors.is_empty() || selectors.iter().any(|selector| may_match(selector, labels)))
}

/// Whether the selector matches, or cannot be judged because it is invalid.
fn may_match(selector: &LabelSelector, labels: &Labels) -> bool {
    Selector::parse(selector).map_or(true, |selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use metallb_core::config::ConfigReason;
    use metallb_core::config::spec::{BgpAdvertisementSpec, PeerSpec};
    use metallb_core::model::ObjectRef;

    use super::*;

    fn selector(role: &str) -> LabelSelector {
        LabelSelector { match_labels: Labels::from([("role".to_owned(), role.to_owned())]), ..LabelSelector::default() }
    }

    #[test]
    fn problem_of_a_peer_or_advertisement_of_other_nodes_is_left_out() {
        let mut resources = Resources::default();
        for (name, selectors) in [
            ("everywhere", vec![]),
            ("here", vec![selector("edge")]),
            ("there", vec![selector("core")]),
            ("both", vec![selector("core"), selector("edge")]),
            ("invalid", vec![selector("not a label")]),
        ] {
            let mut peer = PeerSpec::default();
            peer.meta.name = name.to_owned();
            peer.node_selectors.clone_from(&selectors);
            resources.peers.push(peer);
            let mut advertisement = BgpAdvertisementSpec::default();
            advertisement.meta.name = name.to_owned();
            advertisement.node_selectors = selectors;
            resources.bgp_advertisements.push(advertisement);
        }
        let labels = Labels::from([("role".to_owned(), "edge".to_owned())]);
        let rows = [("everywhere", true), ("here", true), ("there", false), ("both", true), ("invalid", true)];
        for kind in ["BGPPeer", "BGPAdvertisement", "IPAddressPool"] {
            for (name, concerns) in rows {
                let object = ObjectRef::new(kind, "ns", name);
                let problem = Problem::error(object, "spec", ConfigReason::Malformed, "no".to_owned());
                let left = concerning(vec![problem], &resources, &labels);
                assert_eq!(left.len() == 1, concerns || kind == "IPAddressPool", "{kind} {name}");
            }
        }
    }
}

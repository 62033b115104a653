//! Obstacles to the assignment of addresses, for readiness, ConfigurationState and Events.

use std::collections::BTreeMap;

use metallb_core::model::ServiceKey;

use crate::sink::lease::Claim;

/// Reason and text of the Event about a claim that the Role forbids.
pub(super) const fn about_claim(claim: Claim) -> Option<(&'static str, &'static str)> {
    match claim {
        Claim::Possible => None,
        Claim::Refused => Some(("noLeader", NO_LEADER)),
        Claim::Waived => Some(("leaseWaived", WAIVED)),
    }
}

/// Text of the Event about a webhook configuration that was left behind.
pub(super) const WEBHOOK: &str = "the API server refuses changes of the configuration, because no admission webhook is \
                                  served; delete ValidatingWebhookConfiguration metallb-webhook-configuration";

/// The texts for ConfigurationState.
pub(super) fn texts(claim: Claim, denied: &BTreeMap<ServiceKey, String>, is_blocked: bool) -> Vec<String> {
    let mut texts = Vec::new();
    if is_blocked {
        texts.push(WEBHOOK.to_owned());
    }
    if claim == Claim::Refused {
        texts.push(NO_LEADER.to_owned());
    }
    if let Some((service, text)) = denied.first_key_value() {
        let number = denied.len();
        texts.push(format!("no address is assigned to {number} Services, the first is {service}: {text}"));
    }
    texts
}

/// Whether the API server refused a status because the Role forbids it.
pub(super) fn is_denial(text: &str) -> bool {
    ["cannot patch resource", "cannot update resource"].iter().any(|denial| text.contains(denial))
}

const NO_LEADER: &str = "no controller leads: the Role of the controller must allow get, list, watch, create and \
                         update of leases in coordination.k8s.io";
const WAIVED: &str = "the controller goes on without a Lease, which its Role forbids: run one controller only, or \
                      allow get, list, watch, create and update of leases in coordination.k8s.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_name_the_missing_permission() {
        let denied = BTreeMap::from([(
            ServiceKey::new("default", "web"),
            "services \"web\" is forbidden: User \"u\" cannot update resource \"services/status\"".to_owned(),
        )]);
        assert!(texts(Claim::Possible, &BTreeMap::new(), false).is_empty());
        assert!(texts(Claim::Waived, &BTreeMap::new(), false).is_empty(), "addresses are assigned");
        assert_eq!(texts(Claim::Possible, &BTreeMap::new(), true), [WEBHOOK]);
        let all = texts(Claim::Refused, &denied, false);
        assert!(all[0].contains("leases") && all[1].contains("default/web"), "{all:?}");
        assert!(is_denial(&all[1]) && !is_denial("admission webhook \"x\" denied the request"));
    }
}

//! Checks on the text readers of `metallb-core`: they never panic, and what they print they read back as the same.

use metallb_core::address::{AddressBlock, canonical};
use metallb_core::config::Community;
use metallb_core::config::duration::parse_go_duration;
use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
use metallb_core::model::{Cluster, LabelSelector, Labels, Requirement, Selector, Service, ServiceKey};
use metallb_core::plan::{PlanOptions, plan};

/// An entry of `spec.addresses`.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(block) = text.parse::<AddressBlock>() else { return };
    assert!(!block.prefixes().is_empty(), "{text:?} is accepted but empty");
    // A range over all of `::ffff:0:0/96` holds it as IPv6, though its text alone means IPv4.
    for prefix in block.prefixes().iter().filter(|prefix| canonical(prefix.addr()) == prefix.addr()) {
        let again: AddressBlock = prefix.to_string().parse().expect("a prefix of ours is a CIDR");
        assert_eq!(again.prefixes(), &[*prefix], "{text:?}");
    }
    for pair in block.prefixes().windows(2) {
        assert!(pair[0].broadcast() < pair[1].network(), "{text:?}: {} and {}", pair[0], pair[1]);
    }
}

/// A community of an advertisement.
pub fn community(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(community) = text.parse::<Community>() else { return };
    let again = match community {
        Community::Standard(_) => community.to_string(),
        Community::Large(..) => format!("large:{community}"),
    };
    assert_eq!(again.parse(), Ok(community), "{text:?}");
}

/// A duration of a peer.
pub fn go_duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(duration) = parse_go_duration(text) else { return };
    assert_eq!(parse_go_duration(&format!("{}ns", duration.as_nanos())), Some(duration), "{text:?}");
}

/// A label selector: per line a key, an operator and values, parted by blanks; a line `key=value` is a label to match.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut raw = LabelSelector::default();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            raw.match_labels.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let mut words = line.split(' ').map(ToOwned::to_owned);
        let (key, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        raw.match_expressions.push(Requirement { key, operator, values: words.collect() });
    }
    let Ok(parsed) = Selector::parse(&raw) else { return };
    let satisfying = raw.match_labels.clone();
    if raw.match_expressions.is_empty() {
        assert!(parsed.matches(&satisfying), "{text:?} does not match its own labels");
    }
    raw.match_expressions.reverse();
    assert_eq!(Selector::parse(&raw), Ok(parsed), "{text:?}");
}

/// The annotations of a Service: the first line is `loadBalancerIPs`, the second `address-pool`, the third `allow-shared-ip`.
pub fn annotations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = ServiceKey::new("default", "web");
    let mut service = Service::load_balancer(key.clone());
    service.cluster_ips = vec!["10.96.0.1".to_owned(), "fd96::1".to_owned()];
    for (name, value) in ["loadBalancerIPs", "address-pool", "allow-shared-ip"].iter().zip(text.lines()) {
        service.annotations.insert(format!("metallb.io/{name}"), value.to_owned());
    }
    let pool = PoolSpec {
        meta: ObjectMeta { name: "pool".to_owned(), labels: Labels::new(), ..ObjectMeta::default() },
        addresses: vec!["1.2.3.0/24".to_owned(), "fc00::/120".to_owned()],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    };
    let resources = Resources { pools: vec![pool], ..Resources::default() };
    let cluster = Cluster { services: [(key.clone(), service)].into(), ..Cluster::default() };
    let plan = plan(&resources, &cluster, &[key], &PlanOptions::default());
    let planned = &plan.services[0];
    assert_eq!(planned.ips.is_empty(), planned.pool.is_none(), "{text:?}: {planned:?}");
}

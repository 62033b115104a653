//! Properties of the parsers and of the configuration: no panic, round trips, shortest covers of ranges, and
//! independence of the order of objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use metallb_core::address::{self, AddressBlock};
use metallb_core::config::duration::parse_go_duration;
use metallb_core::config::{Community, Config};
use metallb_core::model::{LabelSelector, Labels, Requirement, Selector};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::objects::World;

proptest! {
    #[test]
    fn parsers_never_panic(
        text in "\\PC{0,40}",
        near in "[0-9a-f:./ ,+-]{0,40}",
        duration in "[-+0-9.hmsunµ]{0,24}",
    ) {
        for text in [&text, &near, &duration] {
            let _ = text.parse::<AddressBlock>();
            let _ = text.parse::<Community>();
            let _ = address::parse_ip(text);
            let _ = parse_go_duration(text);
        }
    }

    #[test]
    fn community_is_parsed_from_its_display(high: u16, low: u16, x: u32, y: u32, z: u32) {
        let standard: Community = format!("{high}:{low}").parse().unwrap();
        prop_assert_eq!(standard.to_string(), format!("{high}:{low}"));
        let large: Community = format!("large:{x}:{y}:{z}").parse().unwrap();
        prop_assert_eq!(large, Community::Large(x, y, z));
        prop_assert_eq!(large.to_string(), format!("{x}:{y}:{z}"));
    }

    #[test]
    fn cidr_of_any_address_is_its_network(bits: u32, length in 0_u8..=32, bits6: u128, length6 in 0_u8..=128) {
        let v4 = IpNet::new(Ipv4Addr::from(bits).into(), length).unwrap();
        let v6 = IpNet::new(Ipv6Addr::from(bits6).into(), length6).unwrap();
        prop_assume!(address::canonical(v6.addr()) == v6.addr());
        for net in [v4, v6] {
            let block: AddressBlock = net.to_string().parse().unwrap();
            prop_assert_eq!(block.prefixes(), &[net.trunc()]);
            prop_assert_eq!(block.as_str(), net.to_string());
        }
    }

    #[test]
    fn v4_range_is_covered_exactly_and_by_the_fewest_prefixes(a: u32, b: u32) {
        let (first, last) = (a.min(b), a.max(b));
        let block: AddressBlock = format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(last)).parse().unwrap();
        check_cover(block.prefixes(), u128::from(first), u128::from(last), 32)?;
    }

    #[test]
    fn v6_range_is_covered_exactly_and_by_the_fewest_prefixes(start: u128, spread in 0_u32..128, more: u128) {
        let last = start.saturating_add(more >> spread);
        let (first, last_ip) = (Ipv6Addr::from(start), Ipv6Addr::from(last));
        prop_assume!(first.to_ipv4_mapped().is_none() && last_ip.to_ipv4_mapped().is_none());
        let block: AddressBlock = format!("{first}-{last_ip}").parse().unwrap();
        check_cover(block.prefixes(), start, last, 128)?;
    }

    #[test]
    fn capacity_counts_addresses_and_those_that_are_buggy(base: u32, length in 20_u8..=32) {
        let net = IpNet::new(Ipv4Addr::from(base).into(), length).unwrap().trunc();
        let ends = [net.network(), net.broadcast()];
        let usable = net.hosts().chain(ends).collect::<std::collections::BTreeSet<IpAddr>>();
        let buggy = usable.iter().filter(|&&ip| address::is_buggy(ip)).count();
        prop_assert_eq!(address::capacity(&net), i64::try_from(usable.len()).unwrap());
        prop_assert_eq!(address::buggy_count(&net), i64::try_from(buggy).unwrap());
    }

    #[test]
    fn selector_is_independent_of_the_order_of_its_parts(selector in selectors(), labels in labels(), seed: u64) {
        let Ok(parsed) = Selector::parse(&selector) else { return Ok(()) };
        let mut shuffled = selector.clone();
        for requirement in &mut shuffled.match_expressions {
            shuffle(&mut requirement.values, seed);
        }
        shuffle(&mut shuffled.match_expressions, seed);
        let reparsed = Selector::parse(&shuffled).unwrap();
        prop_assert_eq!(&reparsed, &parsed);
        prop_assert_eq!(reparsed.to_string(), parsed.to_string());
        prop_assert_eq!(parsed.matches(&labels), matches_naively(&selector, &labels));
    }

    #[test]
    fn configuration_is_independent_of_the_order_of_objects(case in 0_usize..131, seed: u64) {
        let cases = include_str!("../data/conformance/config.jsonl");
        let case: Value = serde_json::from_str(cases.lines().nth(case).unwrap()).unwrap();
        let mut objects = case["objects"].as_array().unwrap().clone();
        let before = World::read(&objects);
        shuffle(&mut objects, seed);
        let after = World::read(&objects);
        let before = Config::parse(&before.resources, &before.cluster);
        let after = Config::parse(&after.resources, &after.cluster);
        prop_assert_eq!(before.config, after.config);
        prop_assert_eq!(before.problems, after.problems);
    }
}

/// The prefixes are ascending, without gaps, from the first to the last address, and no two neighbours form one prefix.
fn check_cover(prefixes: &[IpNet], first: u128, last: u128, width: u32) -> Result<(), TestCaseError> {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    prop_assert_eq!(number(prefixes.first().unwrap().network()), first);
    prop_assert_eq!(number(prefixes.last().unwrap().broadcast()), last);
    for pair in prefixes.windows(2) {
        prop_assert_eq!(number(pair[0].broadcast()) + 1, number(pair[1].network()));
        let halves = pair[0].prefix_len() == pair[1].prefix_len() && pair[0].supernet() == pair[1].supernet();
        prop_assert!(!halves, "{} and {} are one prefix", pair[0], pair[1]);
    }
    prop_assert!(prefixes.iter().all(|net| u32::from(net.max_prefix_len()) == width && net.trunc() == *net));
    Ok(())
}

fn matches_naively(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let among = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator.as_str() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("operator {other} was accepted"),
            }
        })
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map("[ab]", "[xyz]", 0..3)
}

fn selectors() -> impl Strategy<Value = LabelSelector> {
    let operator = prop_oneof![Just("In"), Just("NotIn"), Just("Exists"), Just("DoesNotExist"), Just("Near")];
    let requirement = ("[abc]", operator, proptest::collection::vec("[xyz]", 0..3))
        .prop_map(|(key, operator, values)| Requirement { key, operator: operator.to_owned(), values });
    (labels(), proptest::collection::vec(requirement, 0..3))
        .prop_map(|(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions })
}

/// Fisher–Yates shuffle with a linear congruential generator, so that the seed determines the order.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for index in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(index, (seed >> 33) as usize % (index + 1));
    }
}

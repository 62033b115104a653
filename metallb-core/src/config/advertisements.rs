//! Advertisements and community aliases, and which pools they reach
//! (`docs/upstream-behaviour.md#configuration-advertisements`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::community::{Community, CommunityError};
use super::spec::{BgpAdvertisementSpec, CommunitySpec, L2AdvertisementSpec, Resources, Spec as _};
use super::{
    BgpAdvertisement, ConfigReason, Incumbents, L2Advertisement, Pool, Problem, check_unique, node_selection,
    parse_selectors, unique,
};
use crate::model::{Cluster, IpFamily, LabelSelector, NodeName, ObjectRef, PoolName, Selector};

/// Aliases of all Community objects in one flat map.
pub(super) type Aliases = BTreeMap<String, Community>;

pub(super) fn parse_communities(specs: Vec<&CommunitySpec>, problems: &mut Vec<Problem>) -> Aliases {
    let mut aliases = Aliases::new();
    for spec in specs {
        let mut own = Aliases::new();
        let before = problems.len();
        for (index, (alias, value)) in spec.communities.iter().enumerate() {
            let field = format!("spec.communities[{index}]");
            let report = |code, message| Problem::error(spec.reference(), field.clone(), code, message);
            if own.contains_key(alias) || aliases.contains_key(alias) {
                let message = format!("duplicate definition of community \"{alias}\"");
                problems.push(report(ConfigReason::DuplicateCommunity, message));
                continue;
            }
            match value.parse() {
                Ok(community) => {
                    own.insert(alias.clone(), community);
                }
                Err(error) => {
                    let message = format!("parsing community \"{alias}\": {error}");
                    problems.push(report(ConfigReason::InvalidCommunity, message));
                }
            }
        }
        if problems.len() == before {
            aliases.append(&mut own);
        }
    }
    aliases
}

/// Parses the advertisements and attaches each to the pools that it selects.
pub(super) fn attach(
    resources: &Resources,
    incumbents: &Incumbents,
    mut pools: BTreeMap<PoolName, Pool>,
    aliases: &Aliases,
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<PoolName, Pool> {
    let known_pools: BTreeSet<&str> = resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect();
    let known_peers: BTreeSet<&str> = resources.peers.iter().map(|peer| peer.meta.name.as_str()).collect();
    for spec in unique(&resources.l2_advertisements, incumbents, problems) {
        warn_unknown(&spec.pools, &known_pools, &spec.reference(), "spec.ipAddressPools", problems);
        let Some((reach, advertisement)) = parse_l2(spec, problems) else { continue };
        let advertisement = Arc::new(advertisement);
        for pool in pools.values_mut().filter(|pool| reach.includes(pool)) {
            // An advertisement without preferences that is equivalent to an attached one is dropped
            // (`docs/upstream-behaviour.md#configuration-advertisements`).
            let is_equivalent = |other: &Arc<L2Advertisement>| {
                other.preferences.is_empty()
                    && advertisement.preferences.is_empty()
                    && other.nodes == advertisement.nodes
                    && other.interfaces == advertisement.interfaces
                    && other.service_selectors == advertisement.service_selectors
            };
            if !pool.l2.iter().any(is_equivalent) {
                pool.l2.push(Arc::clone(&advertisement));
            }
        }
    }
    for spec in unique(&resources.bgp_advertisements, incumbents, problems) {
        warn_unknown(&spec.pools, &known_pools, &spec.reference(), "spec.ipAddressPools", problems);
        warn_unknown(&spec.peers, &known_peers, &spec.reference(), "spec.peers", problems);
        let Some((reach, advertisement)) = parse_bgp(spec, aliases, problems) else { continue };
        let before = problems.len();
        for pool in pools.values().filter(|pool| reach.includes(pool)) {
            check_aggregation(spec, &advertisement, pool, problems);
            check_local_preference(spec, &advertisement, pool, cluster, problems);
        }
        if problems.len() > before {
            continue;
        }
        let advertisement = Arc::new(advertisement);
        for pool in pools.values_mut().filter(|pool| reach.includes(pool)) {
            pool.bgp.push(Arc::clone(&advertisement));
        }
    }
    for pool in pools.values_mut() {
        pool.l2.sort_by(|a, b| a.name.cmp(&b.name));
        pool.bgp.sort_by(|a, b| a.name.cmp(&b.name));
    }
    pools
}

/// Pools that an advertisement reaches: by name, by label, or all if neither is given. Unknown names are ignored.
struct Reach<'a> {
    names: BTreeSet<&'a str>,
    selectors: Vec<Selector>,
}

impl Reach<'_> {
    fn includes(&self, pool: &Pool) -> bool {
        (self.names.is_empty() && self.selectors.is_empty())
            || self.names.contains(pool.name.as_str())
            || self.selectors.iter().any(|selector| selector.matches(&pool.labels))
    }
}

/// Warns of unknown names. They are allowed because the object may be created later, but may also be typing errors.
fn warn_unknown(
    names: &[String],
    known: &BTreeSet<&str>,
    object: &ObjectRef,
    field: &str,
    problems: &mut Vec<Problem>,
) {
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(name.as_str())) {
        let message = format!("unknown name \"{name}\": the entry has no effect");
        problems.push(Problem::warning(
            object.clone(),
            format!("{field}[{index}]"),
            ConfigReason::UnknownName,
            message,
        ));
    }
}

fn parse_reach<'a>(
    names: &'a [String],
    selectors: &[LabelSelector],
    object: &ObjectRef,
    problems: &mut Vec<Problem>,
) -> Option<Reach<'a>> {
    let names_ok = check_unique(names, "ipAddressPool", object, "spec.ipAddressPools", problems);
    let selectors = parse_selectors(selectors, object, "spec.ipAddressPoolSelectors", problems)?;
    names_ok.then(|| Reach { names: names.iter().map(String::as_str).collect(), selectors })
}

fn parse_l2<'a>(spec: &'a L2AdvertisementSpec, problems: &mut Vec<Problem>) -> Option<(Reach<'a>, L2Advertisement)> {
    let object = spec.reference();
    let reach = parse_reach(&spec.pools, &spec.pool_selectors, &object, problems);
    let nodes = parse_selectors(&spec.node_selectors, &object, "spec.nodeSelectors", problems);
    let service_selectors = parse_selectors(&spec.service_selectors, &object, "spec.serviceSelectors", problems);
    let mut preferences = Vec::with_capacity(spec.preferences.len());
    let before = problems.len();
    for (index, (weight, preference)) in spec.preferences.iter().enumerate() {
        let field = format!("spec.preferredNodeSelectors[{index}]");
        let bounded = u32::try_from(*weight).ok().filter(|weight| (1..=100).contains(weight));
        match (Selector::parse(preference), bounded) {
            (Ok(selector), Some(weight)) => preferences.push((weight, selector)),
            (Err(error), _) => {
                let field = format!("{field}.preference");
                problems.push(Problem::error(object.clone(), field, ConfigReason::InvalidSelector, error.to_string()));
            }
            (_, None) => {
                let message = format!("weight {weight} is not in 1..=100");
                problems.push(Problem::error(
                    object.clone(),
                    format!("{field}.weight"),
                    ConfigReason::OutOfRange,
                    message,
                ));
            }
        }
    }
    let (reach, nodes, service_selectors) = (reach?, nodes?, service_selectors?);
    (problems.len() == before).then(|| {
        let advertisement = L2Advertisement {
            name: spec.meta.name.as_str().into(),
            nodes: node_selection(nodes),
            interfaces: spec.interfaces.iter().map(|name| name.as_str().into()).collect(),
            service_selectors,
            preferences,
        };
        (reach, advertisement)
    })
}

fn parse_bgp<'a>(
    spec: &'a BgpAdvertisementSpec,
    aliases: &Aliases,
    problems: &mut Vec<Problem>,
) -> Option<(Reach<'a>, BgpAdvertisement)> {
    let object = spec.reference();
    let before = problems.len();
    let reach = parse_reach(&spec.pools, &spec.pool_selectors, &object, problems);
    let nodes = parse_selectors(&spec.node_selectors, &object, "spec.nodeSelectors", problems);
    let service_selectors = parse_selectors(&spec.service_selectors, &object, "spec.serviceSelectors", problems);
    check_unique(&spec.peers, "peer", &object, "spec.peers", problems);
    check_unique(&spec.communities, "community", &object, "spec.communities", problems);
    let mut report =
        |field: String, code, message: String| problems.push(Problem::error(object.clone(), field, code, message));
    let length = |value: i64, max: u8| u8::try_from(value).ok().filter(|&length| length <= max);
    let (v4, v6) = (length(spec.aggregation_length, 32), length(spec.aggregation_length_v6, 128));
    for (name, value, parsed) in
        [("aggregationLength", spec.aggregation_length, v4), ("aggregationLengthV6", spec.aggregation_length_v6, v6)]
    {
        if parsed.is_none() {
            let message = format!("invalid aggregation length {value}");
            report(format!("spec.{name}"), ConfigReason::InvalidAggregationLength, message);
        }
    }
    if !spec.service_selectors.is_empty() && (v4 != Some(32) || v6 != Some(128)) {
        let message = "serviceSelectors and aggregationLength are mutually exclusive".to_owned();
        report("spec.serviceSelectors".to_owned(), ConfigReason::SelectorsWithAggregation, message);
    }
    let local_pref = u32::try_from(spec.local_pref);
    if local_pref.is_err() {
        let message = format!("local preference {} is not in 0..=4294967295", spec.local_pref);
        report("spec.localPref".to_owned(), ConfigReason::OutOfRange, message);
    }
    let mut communities = BTreeSet::new();
    for (index, text) in spec.communities.iter().enumerate() {
        let field = format!("spec.communities[{index}]");
        match aliases.get(text).copied().map_or_else(|| text.parse(), Ok) {
            Ok(community) => {
                communities.insert(community);
            }
            Err(error @ CommunityError::Format(_)) => {
                let message = format!(
                    "{error}: no Community object defines this alias, and a value is written A:B or large:A:B:C \
                     (invalid community \"{text}\" in BGP advertisement)"
                );
                report(field, ConfigReason::UnknownCommunity, message);
            }
            Err(error) => report(field, ConfigReason::InvalidCommunity, error.to_string()),
        }
    }
    if problems.len() > before {
        return None;
    }
    let advertisement = BgpAdvertisement {
        name: spec.meta.name.as_str().into(),
        aggregation_length: v4?,
        aggregation_length_v6: v6?,
        local_pref: local_pref.ok().filter(|&preference| preference != 0),
        communities,
        nodes: node_selection(nodes?),
        peers: (!spec.peers.is_empty()).then(|| spec.peers.iter().map(|peer| peer.as_str().into()).collect()),
        service_selectors: service_selectors?,
    };
    Some((reach?, advertisement))
}

fn check_aggregation(spec: &BgpAdvertisementSpec, parsed: &BgpAdvertisement, pool: &Pool, problems: &mut Vec<Problem>) {
    for block in &pool.blocks {
        let (field, length) = match block.family() {
            IpFamily::V4 => ("spec.aggregationLength", parsed.aggregation_length),
            IpFamily::V6 => ("spec.aggregationLengthV6", parsed.aggregation_length_v6),
        };
        let prefix = block.shortest_prefix();
        if length < prefix {
            // A range consists of several prefixes, so another length may be the only remedy.
            let remedy = if block.prefixes().len() > 1 {
                format!(": write the range as one CIDR (with avoidBuggyIPs if needed), or use {prefix} or more")
            } else {
                String::new()
            };
            let message = format!(
                "invalid aggregation length {length}: prefix {prefix} in this pool is more specific than the \
                 aggregation length for addresses {block}{remedy}"
            );
            problems.push(Problem::error(spec.reference(), field, ConfigReason::InvalidAggregationLength, message));
            return;
        }
    }
}

/// Two advertisements of one pool must not set different local preferences of one prefix at one peer. Advertisements
/// with `serviceSelectors` are checked per Service when routes are computed.
fn check_local_preference(
    spec: &BgpAdvertisementSpec,
    parsed: &BgpAdvertisement,
    pool: &Pool,
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) {
    if !parsed.service_selectors.is_empty() {
        return;
    }
    let clash = pool.bgp.iter().find(|other| {
        other.service_selectors.is_empty()
            && local_preferences_clash(parsed, other, pool, &|a, b| nodes_meet(a, b, cluster))
    });
    if let Some(other) = clash {
        let preference = |value: Option<u32>| value.unwrap_or(0);
        let message = format!(
            "invalid local preference {}: local preference {} was already set by advertisement \"{}\" for pool \"{}\"",
            preference(parsed.local_pref),
            preference(other.local_pref),
            other.name,
            pool.name
        );
        problems.push(Problem::error(spec.reference(), "spec.localPref", ConfigReason::LocalPreferenceClash, message));
    }
}

/// Whether two advertisements of a pool set different local preferences of one prefix at one peer on one node
/// (`docs/upstream-behaviour.md#configuration-advertisements`). `nodes_meet` tells whether both select a common node.
pub(crate) fn local_preferences_clash(
    a: &BgpAdvertisement,
    b: &BgpAdvertisement,
    pool: &Pool,
    nodes_meet: &dyn Fn(&BgpAdvertisement, &BgpAdvertisement) -> bool,
) -> bool {
    let peers_meet = match (&a.peers, &b.peers) {
        (Some(a), Some(b)) => !a.is_disjoint(b),
        _ => true,
    };
    let v4_differs = a.aggregation_length != b.aggregation_length;
    let v6_differs = a.aggregation_length_v6 != b.aggregation_length_v6;
    let lengths_differ = match (pool.has_family(IpFamily::V4), pool.has_family(IpFamily::V6)) {
        (true, false) => v4_differs,
        (false, true) => v6_differs,
        _ => v4_differs && v6_differs,
    };
    a.local_pref != b.local_pref && !lengths_differ && peers_meet && nodes_meet(a, b)
}

fn nodes_meet(a: &BgpAdvertisement, b: &BgpAdvertisement, cluster: &Cluster) -> bool {
    let of_a: BTreeSet<&NodeName> = a.nodes.names(&cluster.nodes).collect();
    b.nodes.names(&cluster.nodes).any(|name| of_a.contains(name))
}

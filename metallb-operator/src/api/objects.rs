//! Converts configuration from plain values to Kubernetes objects, for printing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::Resource;
use metallb_core::config::spec;
use metallb_core::model::LabelSelector;
use serde::Serialize;
use serde_json::Value;

use crate::api;

/// All configuration objects: peers, pools, BGP and L2 advertisements, BFD profiles, communities
/// (`docs/upstream-behaviour.md#configuration-legacy`).
/// Secrets are not configuration and are left out.
///
/// # Errors
/// A number is out of range of its field in the API.
pub fn objects(resources: &spec::Resources) -> Result<Vec<Value>, serde_json::Error> {
    let mut all = Vec::new();
    for from in &resources.peers {
        all.push(object(&from.meta, api::BgpPeer::new(&from.meta.name, peer(from)?))?);
    }
    for from in &resources.pools {
        all.push(object(&from.meta, api::IpAddressPool::new(&from.meta.name, pool(from)))?);
    }
    for from in &resources.bgp_advertisements {
        all.push(object(&from.meta, api::BgpAdvertisement::new(&from.meta.name, bgp_advertisement(from)?))?);
    }
    for from in &resources.l2_advertisements {
        all.push(object(&from.meta, api::L2Advertisement::new(&from.meta.name, l2_advertisement(from)?))?);
    }
    for from in &resources.bfd_profiles {
        all.push(object(&from.meta, api::BfdProfile::new(&from.meta.name, bfd_profile(from)?))?);
    }
    for from in &resources.communities {
        all.push(object(&from.meta, api::Community::new(&from.meta.name, community(from)))?);
    }
    Ok(all)
}

fn object<K: Resource + Serialize>(meta: &spec::ObjectMeta, mut object: K) -> Result<Value, serde_json::Error> {
    let metadata = object.meta_mut();
    metadata.namespace = Some(meta.namespace.clone());
    metadata.labels = Some(meta.labels.clone()).filter(|labels| !labels.is_empty());
    serde_json::to_value(object)
}

fn peer(from: &spec::PeerSpec) -> Result<api::BgpPeerSpec, serde_json::Error> {
    Ok(api::BgpPeerSpec {
        my_asn: from.my_asn,
        peer_asn: Some(from.peer_asn).filter(|asn| *asn != 0),
        local_asn: Some(from.local_asn).filter(|asn| *asn != 0),
        dynamic_asn: filled(&from.dynamic_asn),
        peer_address: filled(&from.address),
        interface: filled(&from.interface),
        source_address: filled(&from.source_address),
        peer_port: Some(narrow(from.port)?).filter(|port| *port != 0),
        hold_time: from.hold_time.clone(),
        keepalive_time: from.keepalive_time.clone(),
        connect_time: from.connect_time.clone(),
        router_id: filled(&from.router_id),
        node_selectors: selectors(&from.node_selectors),
        password: filled(from.password.expose()),
        password_secret: filled(&from.password_secret)
            .map(|name| api::SecretReference { name: Some(name), namespace: Some(from.meta.namespace.clone()) }),
        bfd_profile: filled(&from.bfd_profile),
        enable_graceful_restart: from.graceful_restart.then_some(true),
        ebgp_multi_hop: from.ebgp_multihop.then_some(true),
        vrf: filled(&from.vrf),
        disable_mp: from.disable_mp,
        dual_stack_address_family: from.dual_stack,
    })
}

fn pool(from: &spec::PoolSpec) -> api::IpAddressPoolSpec {
    api::IpAddressPoolSpec {
        addresses: from.addresses.clone(),
        auto_assign: from.auto_assign,
        avoid_buggy_ips: from.avoid_buggy_ips,
        service_allocation: from.service_allocation.as_ref().map(|allocation| api::ServiceAllocation {
            priority: Some(allocation.priority).filter(|priority| *priority != 0),
            namespaces: list(&allocation.namespaces),
            namespace_selectors: selectors(&allocation.namespace_selectors),
            service_selectors: selectors(&allocation.service_selectors),
        }),
    }
}

fn bgp_advertisement(from: &spec::BgpAdvertisementSpec) -> Result<api::BgpAdvertisementSpec, serde_json::Error> {
    Ok(api::BgpAdvertisementSpec {
        aggregation_length: narrow(from.aggregation_length)?,
        aggregation_length_v6: narrow(from.aggregation_length_v6)?,
        local_pref: Some(from.local_pref).filter(|preference| *preference != 0),
        communities: list(&from.communities),
        ip_address_pools: list(&from.pools),
        ip_address_pool_selectors: selectors(&from.pool_selectors),
        node_selectors: selectors(&from.node_selectors),
        peers: list(&from.peers),
        service_selectors: selectors(&from.service_selectors),
    })
}

fn l2_advertisement(from: &spec::L2AdvertisementSpec) -> Result<api::L2AdvertisementSpec, serde_json::Error> {
    let mut preferences = Vec::new();
    for (weight, preference) in &from.preferences {
        preferences.push(api::NodePreference { weight: narrow(*weight)?, preference: selector(preference) });
    }
    Ok(api::L2AdvertisementSpec {
        ip_address_pools: list(&from.pools),
        ip_address_pool_selectors: selectors(&from.pool_selectors),
        node_selectors: selectors(&from.node_selectors),
        service_selectors: selectors(&from.service_selectors),
        interfaces: list(&from.interfaces),
        preferred_node_selectors: Some(preferences).filter(|preferences| !preferences.is_empty()),
    })
}

fn bfd_profile(from: &spec::BfdProfileSpec) -> Result<api::BfdProfileSpec, serde_json::Error> {
    let number = |value: Option<i64>| value.map(narrow).transpose();
    Ok(api::BfdProfileSpec {
        receive_interval: number(from.receive_interval)?,
        transmit_interval: number(from.transmit_interval)?,
        detect_multiplier: number(from.detect_multiplier)?,
        echo_interval: number(from.echo_interval)?,
        echo_mode: Some(from.echo_mode),
        passive_mode: Some(from.passive_mode),
        minimum_ttl: number(from.minimum_ttl)?,
    })
}

fn community(from: &spec::CommunitySpec) -> api::CommunitySpec {
    let alias =
        |(name, value): &(String, String)| api::CommunityAlias { name: Some(name.clone()), value: Some(value.clone()) };
    api::CommunitySpec { communities: Some(from.communities.iter().map(alias).collect()) }
}

fn selectors(from: &[LabelSelector]) -> Option<Vec<meta::LabelSelector>> {
    Some(from.iter().map(selector).collect()).filter(|selectors: &Vec<_>| !selectors.is_empty())
}

fn selector(from: &LabelSelector) -> meta::LabelSelector {
    let requirements = from.match_expressions.iter().map(|requirement| meta::LabelSelectorRequirement {
        key: requirement.key.clone(),
        operator: requirement.operator.clone(),
        values: list(&requirement.values),
    });
    meta::LabelSelector {
        match_labels: Some(from.match_labels.clone()).filter(|labels| !labels.is_empty()),
        match_expressions: Some(requirements.collect()).filter(|requirements: &Vec<_>| !requirements.is_empty()),
    }
}

fn filled(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn list(items: &[String]) -> Option<Vec<String>> {
    Some(items.to_vec()).filter(|items| !items.is_empty())
}

/// Numbers of the API have 32 bits.
fn narrow(number: i64) -> Result<i32, serde_json::Error> {
    i32::try_from(number).map_err(serde::ser::Error::custom)
}

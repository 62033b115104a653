//! Translates Kubernetes objects to plain values of `metallb-core`. Pure and total: a missing field has its default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::ResourceExt as _;
use metallb_core::config::spec;
use metallb_core::model::{
    Endpoint, Ingress, IpFamily, IpFamilyPolicy, LabelSelector, Labels, Namespace, NamespaceName, Node, Protocol,
    Requirement, Service, ServiceKey, ServicePort, ServiceType, Timestamp, TrafficPolicy, Uid,
};

use crate::api;

/// A Service.
#[must_use]
pub fn service(object: &core::Service) -> Service {
    let spec = object.spec.clone().unwrap_or_default();
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let ingress =
        object.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    let mut service = Service::load_balancer(service_key(object));
    service.labels = object.labels().clone();
    service.annotations = object.annotations().clone();
    service.uid = object.metadata.uid.as_deref().map(Into::into);
    service.created = created(&object.metadata);
    service.assigned = assigned(&object.metadata);
    service.service_type = match spec.type_.as_deref() {
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        _ => ServiceType::Other,
    };
    service.load_balancer_class = spec.load_balancer_class;
    service.load_balancer_ip = filled(spec.load_balancer_ip);
    service.cluster_ips = match spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips,
        _ => filled(spec.cluster_ip).into_iter().collect(),
    };
    service.ip_families = spec
        .ip_families
        .unwrap_or_default()
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(IpFamily::V4),
            "IPv6" => Some(IpFamily::V6),
            _ => None,
        })
        .collect();
    service.ip_family_policy = spec.ip_family_policy.as_deref().and_then(|policy| match policy {
        "SingleStack" => Some(IpFamilyPolicy::SingleStack),
        "PreferDualStack" => Some(IpFamilyPolicy::PreferDualStack),
        "RequireDualStack" => Some(IpFamilyPolicy::RequireDualStack),
        _ => None,
    });
    service.traffic_policy = match spec.external_traffic_policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    service.selector = spec.selector.unwrap_or_default();
    service.ports = spec
        .ports
        .unwrap_or_default()
        .iter()
        .map(|port| ServicePort {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: u16::try_from(port.port).unwrap_or(0),
        })
        .collect();
    service.ingress = ingress
        .into_iter()
        .flatten()
        .map(|ingress| Ingress { ip: filled(ingress.ip.clone()), hostname: filled(ingress.hostname.clone()) })
        .collect();
    service
}

/// Namespace and name of a Service.
#[must_use]
pub fn service_key(object: &core::Service) -> ServiceKey {
    ServiceKey::new(object.namespace().as_deref().unwrap_or(DEFAULT_NAMESPACE), &object.name_any())
}

/// The Service of a slice, and its endpoints; `None` for a slice without the label that names the Service.
#[must_use]
pub fn endpoint_slice(object: &EndpointSlice) -> Option<(ServiceKey, Vec<Endpoint>)> {
    let service = object.labels().get("kubernetes.io/service-name")?;
    let key = ServiceKey::new(object.namespace().as_deref().unwrap_or(DEFAULT_NAMESPACE), service);
    let endpoints = object
        .endpoints
        .iter()
        .map(|endpoint| Endpoint {
            has_address: !endpoint.addresses.is_empty(),
            node: endpoint.node_name.as_deref().map(Into::into),
            ready: endpoint.conditions.as_ref().and_then(|conditions| conditions.ready),
            serving: endpoint.conditions.as_ref().and_then(|conditions| conditions.serving),
        })
        .collect();
    Some((key, endpoints))
}

/// A node.
#[must_use]
pub fn node(object: &core::Node) -> Node {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = |kind: &str| conditions.into_iter().flatten().find(|condition| condition.type_ == kind);
    let mut node = Node::new(&object.name_any());
    node.labels = object.labels().clone();
    node.network_unavailable = condition("NetworkUnavailable").is_some_and(|condition| condition.status == "True");
    node.ready = condition("Ready").map(|condition| condition.status == "True");
    let addresses = object.status.as_ref().and_then(|status| status.addresses.as_ref());
    for address in addresses.into_iter().flatten() {
        let (internal, external) = (&mut node.addresses, &mut node.external_addresses);
        let list = match address.type_.as_str() {
            "InternalIP" => internal,
            "ExternalIP" => external,
            _ => continue,
        };
        list.extend(address.address.parse::<IpAddr>().ok());
    }
    node
}

/// A namespace.
#[must_use]
pub fn namespace(object: &core::Namespace) -> Namespace {
    let mut labels = object.labels().clone();
    // The API server sets it on every namespace.
    labels.entry(NAMESPACE_LABEL.to_owned()).or_insert_with(|| object.name_any());
    Namespace { name: object.name_any().into(), labels }
}

/// A namespace that no manifest defines, as the API server would make it.
#[must_use]
pub fn undefined_namespace(name: &NamespaceName) -> Namespace {
    let labels = Labels::from([(NAMESPACE_LABEL.to_owned(), name.to_string())]);
    Namespace { name: name.clone(), labels }
}

/// A Secret, reduced to the password of a peer.
#[must_use]
pub fn secret(object: &core::Secret) -> spec::SecretSpec {
    let data = object.data.as_ref().and_then(|data| data.get("password")).map(|bytes| bytes.0.clone());
    let plain = object.string_data.as_ref().and_then(|data| data.get("password")).map(|text| text.clone().into_bytes());
    let password = plain.or(data).map(|bytes| spec::Password::new(String::from_utf8_lossy(&bytes).into_owned()));
    spec::SecretSpec {
        meta: object_meta(&object.metadata),
        secret_type: object.type_.clone().unwrap_or_default(),
        password,
    }
}

/// An `IPAddressPool`.
#[must_use]
pub fn pool(object: &api::IpAddressPool) -> spec::PoolSpec {
    spec::PoolSpec {
        meta: object_meta(&object.metadata),
        addresses: object.spec.addresses.clone(),
        auto_assign: object.spec.auto_assign,
        avoid_buggy_ips: object.spec.avoid_buggy_ips,
        service_allocation: object.spec.service_allocation.as_ref().map(|allocation| spec::ServiceAllocationSpec {
            priority: allocation.priority.unwrap_or(0),
            namespaces: allocation.namespaces.clone().unwrap_or_default(),
            namespace_selectors: selectors(allocation.namespace_selectors.as_deref()),
            service_selectors: selectors(allocation.service_selectors.as_deref()),
        }),
    }
}

/// The quarantined addresses in the status of an `IPAddressPool`; `None` if it has no status. Malformed entries are
/// skipped: only the controller writes them.
#[must_use]
pub fn quarantined(object: &api::IpAddressPool) -> Option<BTreeMap<IpAddr, Arc<str>>> {
    let listed = &object.status.as_ref()?.quarantined;
    Some(listed.iter().filter_map(|entry| Some((entry.ip.parse().ok()?, entry.mac_address.as_str().into()))).collect())
}

/// An `L2Advertisement`.
#[must_use]
pub fn l2_advertisement(object: &api::L2Advertisement) -> spec::L2AdvertisementSpec {
    let from = &object.spec;
    spec::L2AdvertisementSpec {
        meta: object_meta(&object.metadata),
        pools: from.ip_address_pools.clone().unwrap_or_default(),
        pool_selectors: selectors(from.ip_address_pool_selectors.as_deref()),
        node_selectors: selectors(from.node_selectors.as_deref()),
        service_selectors: selectors(from.service_selectors.as_deref()),
        interfaces: from.interfaces.clone().unwrap_or_default(),
        preferences: from
            .preferred_node_selectors
            .iter()
            .flatten()
            .map(|preference| (i64::from(preference.weight), selector(&preference.preference)))
            .collect(),
    }
}

/// A `BGPAdvertisement`.
#[must_use]
pub fn bgp_advertisement(object: &api::BgpAdvertisement) -> spec::BgpAdvertisementSpec {
    let from = &object.spec;
    spec::BgpAdvertisementSpec {
        meta: object_meta(&object.metadata),
        aggregation_length: from.aggregation_length.into(),
        aggregation_length_v6: from.aggregation_length_v6.into(),
        local_pref: from.local_pref.unwrap_or(0),
        communities: from.communities.clone().unwrap_or_default(),
        pools: from.ip_address_pools.clone().unwrap_or_default(),
        pool_selectors: selectors(from.ip_address_pool_selectors.as_deref()),
        node_selectors: selectors(from.node_selectors.as_deref()),
        peers: from.peers.clone().unwrap_or_default(),
        service_selectors: selectors(from.service_selectors.as_deref()),
    }
}

/// A `BGPPeer` v1beta2.
#[must_use]
pub fn bgp_peer(object: &api::BgpPeer) -> spec::PeerSpec {
    let from = object.spec.clone();
    spec::PeerSpec {
        meta: object_meta(&object.metadata),
        my_asn: from.my_asn,
        peer_asn: from.peer_asn.unwrap_or(0),
        dynamic_asn: from.dynamic_asn.unwrap_or_default(),
        local_asn: from.local_asn.unwrap_or(0),
        address: from.peer_address.unwrap_or_default(),
        interface: from.interface.unwrap_or_default(),
        source_address: from.source_address.unwrap_or_default(),
        port: from.peer_port.unwrap_or(0).into(),
        hold_time: from.hold_time,
        keepalive_time: from.keepalive_time,
        connect_time: from.connect_time,
        router_id: from.router_id.unwrap_or_default(),
        node_selectors: selectors(from.node_selectors.as_deref()),
        password: spec::Password::new(from.password.unwrap_or_default()),
        password_secret: from.password_secret.and_then(|secret| secret.name).unwrap_or_default(),
        bfd_profile: from.bfd_profile.unwrap_or_default(),
        graceful_restart: from.enable_graceful_restart.unwrap_or(false),
        ebgp_multihop: from.ebgp_multi_hop.unwrap_or(false),
        vrf: from.vrf.unwrap_or_default(),
        disable_mp: from.disable_mp,
        dual_stack: from.dual_stack_address_family,
    }
}

/// Converts a `BGPPeer` v1beta1 to v1beta2. Timers that are not set stay unset: upstream's conversion makes them 0s,
/// which turns them off (`docs/upstream-behaviour.md#crds`).
#[must_use]
pub fn bgp_peer_v1beta1(object: &api::BgpPeerV1Beta1) -> spec::PeerSpec {
    let from = object.spec.clone();
    spec::PeerSpec {
        meta: object_meta(&object.metadata),
        my_asn: from.my_asn,
        peer_asn: from.peer_asn,
        address: from.peer_address,
        source_address: from.source_address.unwrap_or_default(),
        port: from.peer_port.unwrap_or(0).into(),
        hold_time: from.hold_time,
        keepalive_time: from.keepalive_time,
        router_id: from.router_id.unwrap_or_default(),
        node_selectors: from.node_selectors.into_iter().flatten().map(|nodes| selector(&nodes.into())).collect(),
        password: spec::Password::new(from.password.unwrap_or_default()),
        bfd_profile: from.bfd_profile.unwrap_or_default(),
        ebgp_multihop: from.ebgp_multi_hop.unwrap_or(false),
        ..spec::PeerSpec::default()
    }
}

/// A `BFDProfile`.
#[must_use]
pub fn bfd_profile(object: &api::BfdProfile) -> spec::BfdProfileSpec {
    let from = &object.spec;
    let number = |value: Option<i32>| value.map(i64::from);
    spec::BfdProfileSpec {
        meta: object_meta(&object.metadata),
        receive_interval: number(from.receive_interval),
        transmit_interval: number(from.transmit_interval),
        detect_multiplier: number(from.detect_multiplier),
        echo_interval: number(from.echo_interval),
        echo_mode: from.echo_mode.unwrap_or(false),
        passive_mode: from.passive_mode.unwrap_or(false),
        minimum_ttl: number(from.minimum_ttl),
    }
}

/// A `Community`.
#[must_use]
pub fn community(object: &api::Community) -> spec::CommunitySpec {
    let aliases = object.spec.communities.iter().flatten();
    spec::CommunitySpec {
        meta: object_meta(&object.metadata),
        communities: aliases
            .map(|alias| (alias.name.clone().unwrap_or_default(), alias.value.clone().unwrap_or_default()))
            .collect(),
    }
}

fn object_meta(metadata: &meta::ObjectMeta) -> spec::ObjectMeta {
    spec::ObjectMeta {
        namespace: metadata.namespace.clone().unwrap_or_else(|| CONFIG_NAMESPACE.to_owned()),
        name: metadata.name.clone().unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: own_annotations(metadata),
        created: created(metadata),
        uid: metadata.uid.as_deref().map(Uid::from),
    }
}

/// The annotations under our prefix: others change without any effect on the configuration.
fn own_annotations(metadata: &meta::ObjectMeta) -> Labels {
    let all = metadata.annotations.iter().flatten();
    let own = all.filter(|(key, _)| key.starts_with("metallb.io/"));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn assigned(metadata: &meta::ObjectMeta) -> Option<Timestamp> {
    let owns_ingress = |entry: &&meta::ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        entry.subresource.as_deref() == Some("status")
            && fields.is_some_and(|fields| !fields["f:status"]["f:loadBalancer"]["f:ingress"].is_null())
    };
    let entries = metadata.managed_fields.iter().flatten().filter(owns_ingress);
    let seconds = entries.filter_map(|entry| entry.time.as_ref()).map(|time| time.0.as_second());
    seconds.max().map(Timestamp::from_unix)
}

fn created(metadata: &meta::ObjectMeta) -> Option<Timestamp> {
    metadata.creation_timestamp.as_ref().map(|time| Timestamp::from_unix(time.0.as_second()))
}

fn selectors(from: Option<&[meta::LabelSelector]>) -> Vec<LabelSelector> {
    from.unwrap_or_default().iter().map(selector).collect()
}

fn selector(from: &meta::LabelSelector) -> LabelSelector {
    LabelSelector {
        match_labels: from.match_labels.clone().unwrap_or_default(),
        match_expressions: from
            .match_expressions
            .iter()
            .flatten()
            .map(|requirement| Requirement {
                key: requirement.key.clone(),
                operator: requirement.operator.clone(),
                values: requirement.values.clone().unwrap_or_default(),
            })
            .collect(),
    }
}

/// Label that every namespace has: its name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespace of a Kubernetes object without one.
const DEFAULT_NAMESPACE: &str = "default";

/// Namespace of a configuration object without one.
pub const CONFIG_NAMESPACE: &str = "metallb-system";

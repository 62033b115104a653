//! The properties of a Service that decisions use, and its annotations.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::annotations::{self, CANONICAL_PREFIX, DEPRECATED_PREFIX};
use super::{IpFamily, Labels, ServiceKey, Timestamp, Uid};

/// A Kubernetes Service. Text that may be malformed is kept as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// Labels, for selectors of pools and advertisements.
    pub labels: Labels,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.uid`; absent for manifests.
    pub uid: Option<Uid>,
    /// `metadata.creationTimestamp`; absent for manifests.
    pub created: Option<Timestamp>,
    /// Time of the last write of the addresses in its status, from `metadata.managedFields`.
    pub assigned: Option<Timestamp>,
    /// `spec.type`
    pub service_type: ServiceType,
    /// `spec.loadBalancerClass`
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP`, as written; empty is the same as absent.
    pub load_balancer_ip: Option<String>,
    /// `spec.clusterIPs`, or `spec.clusterIP` if only that is set.
    pub cluster_ips: Vec<String>,
    /// `spec.ipFamilies`
    pub ip_families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// `spec.externalTrafficPolicy`
    pub traffic_policy: TrafficPolicy,
    /// `spec.selector`
    pub selector: BTreeMap<String, String>,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
    /// `status.loadBalancer.ingress` as ordered there.
    pub ingress: Vec<Ingress>,
}

impl Service {
    /// A Service of type LoadBalancer; everything else is empty.
    #[must_use]
    pub fn load_balancer(key: ServiceKey) -> Self {
        Self {
            key,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            uid: None,
            created: None,
            assigned: None,
            service_type: ServiceType::LoadBalancer,
            load_balancer_class: None,
            load_balancer_ip: None,
            cluster_ips: Vec::new(),
            ip_families: Vec::new(),
            ip_family_policy: None,
            traffic_policy: TrafficPolicy::Cluster,
            selector: BTreeMap::new(),
            ports: Vec::new(),
            ingress: Vec::new(),
        }
    }

    /// The value of an input annotation. If the canonical key is present, even with an empty value, the deprecated key
    /// is ignored (`docs/upstream-behaviour.md#annotations`).
    #[must_use]
    pub fn annotation(&self, key: AnnotationKey) -> Option<&str> {
        self.annotations
            .get(&format!("{CANONICAL_PREFIX}{key}"))
            .or_else(|| self.annotations.get(&format!("{DEPRECATED_PREFIX}{key}")))
            .map(String::as_str)
    }

    /// Whether the annotation is present under one of the two prefixes, with any value.
    #[must_use]
    pub fn has_annotation(&self, key: AnnotationKey) -> bool {
        self.annotation(key).is_some()
    }

    /// The pool of the current addresses as recorded in the annotation [`ALLOCATED_FROM`].
    #[must_use]
    pub fn recorded_pool(&self) -> Option<&str> {
        self.annotations.get(ALLOCATED_FROM).map(String::as_str)
    }

    /// Input annotations under the deprecated prefix, in key order.
    pub fn deprecated_annotations(&self) -> impl Iterator<Item = &str> {
        self.annotations.keys().map(String::as_str).filter(|key| annotations::is_deprecated(key))
    }

    /// Whether a controller or speaker that handles `class` (`None`: Services without a class) handles this Service.
    #[must_use]
    pub fn is_of_class(&self, class: Option<&str>) -> bool {
        self.load_balancer_class.as_deref() == class
    }

    /// The addresses of the status, if there are any and each entry is one.
    #[must_use]
    pub fn status_ips(&self) -> Option<Vec<IpAddr>> {
        if self.ingress.is_empty() || self.ingress.iter().any(|ingress| ingress.ip.is_none()) {
            return None;
        }
        self.ingress_ips().collect()
    }

    /// The addresses of the status. Hostnames are skipped; malformed addresses become `None`.
    pub fn ingress_ips(&self) -> impl Iterator<Item = Option<IpAddr>> {
        self.ingress.iter().filter_map(|ingress| ingress.ip.as_deref()).map(crate::address::parse_ip)
    }
}

/// `spec.type`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceType {
    /// `LoadBalancer`
    LoadBalancer,
    /// Any other type.
    Other,
}

/// `spec.ipFamilyPolicy`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Both families if possible.
    PreferDualStack,
    /// Both families, or no address.
    RequireDualStack,
}

/// `spec.externalTrafficPolicy`
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum TrafficPolicy {
    /// Any node may receive the traffic.
    #[default]
    Cluster,
    /// Only nodes with an endpoint of the Service.
    Local,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// One port of a Service. Services that share an address must not have a port in common.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServicePort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ingress {
    /// The address, as written.
    pub ip: Option<String>,
    /// The hostname; only other load balancers set it.
    pub hostname: Option<String>,
}

impl From<IpAddr> for Ingress {
    /// An entry with this address and no hostname.
    fn from(ip: IpAddr) -> Self {
        Self { ip: Some(ip.to_string()), hostname: None }
    }
}

/// Annotations that configure a Service (`docs/upstream-behaviour.md#annotations`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnnotationKey {
    /// `address-pool`: the requested pool.
    AddressPool,
    /// `loadBalancerIPs`: the requested addresses.
    LoadBalancerIps,
    /// `allow-shared-ip`: the sharing key.
    AllowSharedIp,
}

impl fmt::Display for AnnotationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressPool => "address-pool",
            Self::LoadBalancerIps => "loadBalancerIPs",
            Self::AllowSharedIp => "allow-shared-ip",
        })
    }
}

/// Annotation that a controller sets and removes to create a new `resourceVersion` of a Service. The API server then
/// rejects an earlier write whose result is unknown.
pub const WRITE_SETTLED: &str = "metallb.io/write-settled";

/// Annotation that the controller writes: the pool of the current addresses.
pub const ALLOCATED_FROM: &str = "metallb.io/ip-allocated-from-pool";

#[cfg(test)]
mod tests {
    use super::*;

    fn service(annotations: &[(&str, &str)]) -> Service {
        let mut service = Service::load_balancer(ServiceKey::new("default", "web"));
        service.annotations = annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        service
    }

    #[test]
    fn canonical_annotation_precedes_the_deprecated_one_even_when_empty() {
        let (canonical, deprecated) = ("metallb.io/address-pool", "metallb.universe.tf/address-pool");
        let rows = [
            (vec![], None),
            (vec![(deprecated, "old")], Some("old")),
            (vec![(canonical, "new"), (deprecated, "old")], Some("new")),
            (vec![(canonical, ""), (deprecated, "old")], Some("")),
        ];
        for (annotations, expected) in rows {
            let service = service(&annotations);
            assert_eq!(service.annotation(AnnotationKey::AddressPool), expected, "{annotations:?}");
            assert_eq!(service.has_annotation(AnnotationKey::AddressPool), expected.is_some(), "{annotations:?}");
        }
    }

    #[test]
    fn annotation_is_deprecated_only_if_it_exists_under_the_present_prefix() {
        let keys = ["address-pool", "pool-name", "ip-allocated-from-pool", "allow-shared-ip"];
        let keys = keys.map(|name| format!("metallb.universe.tf/{name}"));
        let written: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        let service = service(&written);
        let found: Vec<&str> = service.deprecated_annotations().collect();
        assert_eq!(found, ["metallb.universe.tf/address-pool", "metallb.universe.tf/allow-shared-ip"]);
    }

    #[test]
    fn service_is_handled_only_if_its_class_is_equal() {
        let mut service = service(&[]);
        for (ours, theirs, handled) in [
            (None, None, true),
            (None, Some("foo"), false),
            (Some("foo"), None, false),
            (Some("foo"), Some("bar"), false),
            (Some("foo"), Some("foo"), true),
        ] {
            service.load_balancer_class = theirs.map(ToOwned::to_owned);
            assert_eq!(service.is_of_class(ours), handled, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn ingress_addresses_skip_hostnames_and_mark_malformed_text() {
        let mut service = service(&[]);
        let ip = |text: &str| Ingress { ip: Some(text.to_owned()), hostname: None };
        let hostname = Ingress { ip: None, hostname: Some("lb.example".to_owned()) };
        service.ingress = vec![hostname, ip("::ffff:1.2.3.4"), ip("1.2.3"), ip("fc00::1")];
        let found: Vec<Option<IpAddr>> = service.ingress_ips().collect();
        assert_eq!(found, [Some([1, 2, 3, 4].into()), None, "fc00::1".parse().ok()]);
    }
}

//! The request in the specification of a Service: families, addresses, a pool.

use std::net::IpAddr;

use thiserror::Error;

use crate::address::parse_ip;
use crate::allocator::FamilyDemand;
use crate::model::{AnnotationKey, IpFamily, IpFamilyPolicy, Service};
use crate::spelling::quoted;

/// The families of a Service, from its cluster addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceFamily {
    /// One family.
    Single(IpFamily),
    /// Both.
    Dual,
}

impl ServiceFamily {
    /// The family of a set of addresses: one, or one of each.
    #[must_use]
    pub fn of(ips: &[IpAddr]) -> Option<Self> {
        match ips {
            [ip] => Some(Self::Single(IpFamily::of(*ip))),
            [a, b] if IpFamily::of(*a) != IpFamily::of(*b) => Some(Self::Dual),
            _ => None,
        }
    }

    /// The family of a Service. Without cluster addresses, as in a manifest that no API server has processed,
    /// `ipFamilies` and `ipFamilyPolicy` decide; the default is IPv4.
    ///
    /// # Errors
    /// The cluster addresses are no addresses (`None` of a headless Service), or not of a valid number and families.
    pub fn of_service(service: &Service) -> Result<Self, WishError> {
        if service.cluster_ips.is_empty() {
            let wants_both = matches!(
                service.ip_family_policy,
                Some(IpFamilyPolicy::PreferDualStack | IpFamilyPolicy::RequireDualStack)
            );
            return Ok(match service.ip_families[..] {
                [_, _, ..] => Self::Dual,
                _ if wants_both => Self::Dual,
                [family] => Self::Single(family),
                [] => Self::Single(IpFamily::V4),
            });
        }
        let ips: Option<Vec<IpAddr>> = service.cluster_ips.iter().map(|text| parse_ip(text)).collect();
        ips.and_then(|ips| Self::of(&ips)).ok_or_else(|| WishError::ClusterIps(service.cluster_ips.clone()))
    }

    /// The families to allocate; `None` if the policy forbids those of the cluster addresses.
    #[must_use]
    pub fn demand(self, service: &Service) -> Option<FamilyDemand> {
        match (self, service.ip_family_policy) {
            (Self::Single(IpFamily::V4), _) => Some(FamilyDemand::V4),
            (Self::Single(IpFamily::V6), _) => Some(FamilyDemand::V6),
            (Self::Dual, Some(IpFamilyPolicy::RequireDualStack)) => Some(FamilyDemand::Both),
            (Self::Dual, Some(IpFamilyPolicy::PreferDualStack)) => {
                Some(FamilyDemand::PreferBoth { first: service.ip_families.first().copied().unwrap_or(IpFamily::V4) })
            }
            (Self::Dual, Some(IpFamilyPolicy::SingleStack) | None) => None,
        }
    }
}

/// Why the request of a Service is invalid.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum WishError {
    /// `spec.clusterIPs` is not one address, or one of each family.
    #[error("can't tell the IP family of cluster IPs {0:?}")]
    ClusterIps(Vec<String>),
    /// Both the annotation and the field request addresses.
    #[error("service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP")]
    AskedTwice,
    /// The annotation contains a value that is not an address.
    #[error("invalid metallb.io/loadBalancerIPs: {}: {WANTED}", quoted(.0))]
    Annotation(String),
    /// The field contains a value that is not an address.
    #[error("invalid spec.loadBalancerIP {}: expected one address, such as 192.0.2.7", quoted(.0))]
    Field(String),
    /// Two addresses of one family, or more than two.
    #[error("invalid metallb.io/loadBalancerIPs: {}: one IP, or one of each family", quoted(.0))]
    Families(String),
}

/// The addresses that a Service requests, in written order; empty if it requests none.
///
/// # Errors
/// The request is invalid, see [`WishError`].
pub fn desired_ips(service: &Service) -> Result<Vec<IpAddr>, WishError> {
    let field = service.load_balancer_ip.as_deref().unwrap_or_default();
    let annotation = service.annotation(AnnotationKey::LoadBalancerIps).unwrap_or_default();
    match (field.is_empty(), annotation.is_empty()) {
        (true, true) => Ok(Vec::new()),
        (false, false) => Err(WishError::AskedTwice),
        (false, true) => parse_ip(field).map(|ip| vec![ip]).ok_or_else(|| WishError::Field(field.to_owned())),
        (true, false) => {
            let ips: Option<Vec<IpAddr>> = annotation.split(',').map(|part| parse_ip(part.trim())).collect();
            let ips = ips.ok_or_else(|| WishError::Annotation(annotation.to_owned()))?;
            if ServiceFamily::of(&ips).is_none() {
                return Err(WishError::Families(annotation.to_owned()));
            }
            Ok(ips)
        }
    }
}

/// The pool that a Service requests.
#[must_use]
pub fn desired_pool(service: &Service) -> Option<&str> {
    service.annotation(AnnotationKey::AddressPool).filter(|pool| !pool.is_empty())
}

/// The form of the annotation `loadBalancerIPs`.
const WANTED: &str = "expected one address, or one of each family, such as 192.0.2.7,2001:db8::7";

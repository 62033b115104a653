//! Annotations under the prefixes of this product: which exist, and what an unknown one probably means.

use std::collections::BTreeMap;
use std::fmt;

use super::{ALLOCATED_FROM, AnnotationKey, WRITE_SETTLED};
use crate::spelling::nearest;

/// An annotation that looks like one of this product and has no effect.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnknownAnnotation {
    /// The key as written.
    pub key: String,
    /// The key that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownAnnotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = crate::spelling::quoted(&self.key);
        match &self.nearest {
            Some(nearest) => write!(f, "unknown annotation {key} has no effect: did you mean \"{nearest}\"?"),
            None => {
                let known: Vec<String> = INPUTS.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "unknown annotation {key} has no effect: under {CANONICAL_PREFIX} a Service can have {}",
                    known.join(", ")
                )
            }
        }
    }
}

/// The unknown annotations of a Service under `metallb.io/`, under `metallb.universe.tf/`, and under a prefix that
/// looks like a misspelling of one of them.
#[must_use]
pub fn unknown_annotations(annotations: &BTreeMap<String, String>) -> Vec<UnknownAnnotation> {
    annotations.keys().filter_map(|key| unknown(key)).collect()
}

/// Whether this is a key of an input annotation under the deprecated prefix.
#[must_use]
pub(super) fn is_deprecated(key: &str) -> bool {
    key.strip_prefix(DEPRECATED_PREFIX).is_some_and(is_input)
}

fn unknown(key: &str) -> Option<UnknownAnnotation> {
    let (prefix, name) = key.split_once('/')?;
    let own = [CANONICAL_PREFIX, DEPRECATED_PREFIX].iter().any(|known| known.strip_suffix('/') == Some(prefix));
    let written_by_us = [ALLOCATED_FROM, WRITE_SETTLED].iter().any(|known| known.ends_with(&format!("/{name}")));
    if own && (is_input(name) || written_by_us) {
        return None;
    }
    let names: Vec<String> = INPUTS.iter().map(ToString::to_string).collect();
    let nearest_name = nearest(name, names.iter().map(String::as_str));
    if !own {
        // Other products have annotations too: both parts must look like ours.
        let looks_like = prefix.to_ascii_lowercase().contains("metallb") || nearest(prefix, PREFIXES).is_some();
        if !looks_like || nearest_name.is_none() {
            return None;
        }
    }
    let nearest = nearest_name.map(|name| format!("{CANONICAL_PREFIX}{name}"));
    Some(UnknownAnnotation { key: key.to_owned(), nearest })
}

fn is_input(name: &str) -> bool {
    INPUTS.iter().any(|known| known.to_string() == name)
}

pub(super) const CANONICAL_PREFIX: &str = "metallb.io/";
pub(super) const DEPRECATED_PREFIX: &str = "metallb.universe.tf/";
const PREFIXES: [&str; 2] = ["metallb.io", "metallb.universe.tf"];
const INPUTS: [AnnotationKey; 3] =
    [AnnotationKey::AddressPool, AnnotationKey::LoadBalancerIps, AnnotationKey::AllowSharedIp];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_annotation_is_found_with_the_key_that_was_meant() {
        let rows = [
            ("metallb.io/address-pool", None),
            ("metallb.universe.tf/allow-shared-ip", None),
            ("metallb.io/loadBalancerIPs", None),
            ("metallb.io/ip-allocated-from-pool", None),
            ("metallb.universe.tf/ip-allocated-from-pool", None),
            ("metallb.io/write-settled", None),
            ("example.org/address-pool", None),
            ("kubernetes.io/ingress.class", None),
            ("lb.example.org/metallb", None),
            ("address-pool", None),
            ("metallb.universe.tf/L2Advertisement", Some(None)),
            ("metallb.io/pool-name", Some(None)),
            ("metallb.io/interfaces", Some(None)),
            ("metallb.io/loadbalancerips", Some(Some("metallb.io/loadBalancerIPs"))),
            ("metallb.universe.tf/loadBalancerIP", Some(Some("metallb.io/loadBalancerIPs"))),
            ("metallb.io/load-balancer-ips", Some(Some("metallb.io/loadBalancerIPs"))),
            ("metallb.io/addresspool", Some(Some("metallb.io/address-pool"))),
            ("metallb.io/address_pool", Some(Some("metallb.io/address-pool"))),
            ("metallb.io/address-pools", Some(Some("metallb.io/address-pool"))),
            ("metallb.io/allow-share-ip", Some(Some("metallb.io/allow-shared-ip"))),
            ("metallb.io/allow-shared-ips", Some(Some("metallb.io/allow-shared-ip"))),
            ("metalb.io/address-pool", Some(Some("metallb.io/address-pool"))),
            ("metallb/address-pool", Some(Some("metallb.io/address-pool"))),
            ("metallb.universe.io/allow-shared-ip", Some(Some("metallb.io/allow-shared-ip"))),
            ("metallb.org/loadBalancerIPs", Some(Some("metallb.io/loadBalancerIPs"))),
        ];
        for (key, expected) in rows {
            let found = unknown_annotations(&BTreeMap::from([(key.to_owned(), String::new())]));
            let nearest = found.first().map(|unknown| unknown.nearest.as_deref());
            assert_eq!(nearest, expected, "{key}");
        }
    }
}

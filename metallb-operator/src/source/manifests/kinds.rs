//! Which objects are read, and which were meant to be read: misspelled kinds, unknown versions.

use metallb_core::spelling::{hint, nearest, quoted};
use serde_json::{Map, Value};

/// The meaning of a version and kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Recognized {
    /// It is read.
    Known,
    /// Nothing here uses it.
    Foreign,
    /// It was meant to be read: the error, and the kind that was meant.
    Slip(String, &'static str),
}

/// Recognizes a kind. Other products have kinds of the same names, so the group must be ours, Kubernetes' or similar.
pub(super) fn recognize(version: &str, kind: &str) -> Recognized {
    if KNOWN.contains(&(version, kind)) {
        return Recognized::Known;
    }
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let ours = KNOWN.iter().filter(|(version, _)| version.starts_with(OUR_GROUP)).map(|(_, kind)| *kind);
    if group == "metallb.io" {
        // The custom resource of MetalLB's own operator.
        if kind == "MetalLB" {
            return Recognized::Foreign;
        }
        if let Some(known) = ours.clone().find(|known| *known == kind) {
            let versions = versions_of(known);
            let message = format!("{} has no version {}: use {versions}", known, quoted(version));
            return Recognized::Slip(message, known);
        }
        if kind == "AddressPool" {
            let message = "the kind AddressPool no longer exists: use IPAddressPool and an L2Advertisement or \
                           BGPAdvertisement";
            return Recognized::Slip(message.to_owned(), "IPAddressPool");
        }
        let meant = nearest(kind, ours.clone());
        let message = match meant {
            Some(_) => format!("metallb.io has no kind {}{}", quoted(kind), hint(meant)),
            None => {
                let mut kinds: Vec<&str> = ours.collect();
                kinds.dedup();
                format!("metallb.io has no kind {}: its kinds are {}", quoted(kind), kinds.join(", "))
            }
        };
        return Recognized::Slip(message, meant.unwrap_or("Object"));
    }
    let any = KNOWN.iter().map(|(_, kind)| *kind);
    let exact = any.clone().find(|known| known.eq_ignore_ascii_case(kind));
    let ours = |kind: &str| KNOWN.iter().any(|(version, known)| *known == kind && version.starts_with(OUR_GROUP));
    let similar_group = group.contains("metallb") || nearest(group, ["metallb.io"]).is_some();
    match (group, exact) {
        // Without a group: a version is missing or wrong, or the kind is one of Kubernetes.
        ("" | "core", Some(known)) => {
            let message = if known != kind {
                format!("there is no kind {}{}", quoted(kind), hint(Some(known)))
            } else if version.is_empty() {
                format!("apiVersion is missing: use {}", versions_of(known))
            } else {
                format!("{known} has no version {}: use {}", quoted(version), versions_of(known))
            };
            Recognized::Slip(message, known)
        }
        ("", None) if matches!(number, "v1" | "") && !CORE_KINDS.contains(&kind) => match nearest(kind, any) {
            Some(known) => Recognized::Slip(format!("there is no kind {}{}", quoted(kind), hint(Some(known))), known),
            None => Recognized::Foreign,
        },
        ("discovery.k8s.io", _) => match nearest(kind, ["EndpointSlice"]) {
            Some(known) => {
                let message = format!("{} of {} does not exist: use {}", quoted(kind), version, of(known));
                Recognized::Slip(message, known)
            }
            None => Recognized::Foreign,
        },
        (_, Some(known)) if similar_group && ours(known) => {
            let message = format!("{} has no version {}: use {}", known, quoted(version), versions_of(known));
            Recognized::Slip(message, known)
        }
        ("apps" | "v1", Some(known)) if !ours(known) => {
            Recognized::Slip(format!("{known} has no version {}: use {}", quoted(version), of(known)), known)
        }
        _ => Recognized::Foreign,
    }
}

/// Whether a document without a kind was meant to be an object. Values of a Helm chart are not.
pub(super) fn is_object(fields: &Map<String, Value>) -> bool {
    let version = fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let metadata = fields.get("metadata").is_some_and(Value::is_object);
    version.starts_with(OUR_GROUP) || (metadata && (fields.contains_key("spec") || !version.is_empty()))
}

/// Whether a ConfigMap that is not read has the configuration of MetalLB before 0.13.
pub(super) fn is_old_configuration(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("address-pools:") || line.starts_with("peer-autodiscovery:"))
        || (text.lines().any(|line| line.starts_with("peers:")) && text.contains("peer-address"))
}

fn of(kind: &str) -> String {
    KNOWN
        .iter()
        .find(|(_, known)| *known == kind)
        .map(|(version, kind)| format!("apiVersion {version} and kind {kind}"))
        .unwrap_or_default()
}

fn versions_of(kind: &str) -> String {
    let versions: Vec<&str> = KNOWN.iter().filter(|(_, known)| *known == kind).map(|(version, _)| *version).collect();
    format!("apiVersion {}", versions.join(" or "))
}

const OUR_GROUP: &str = "metallb.io/";

/// Versions and kinds that are read or written here; the preferred version first.
const KNOWN: [(&str, &str); 16] = [
    ("metallb.io/v1beta1", "IPAddressPool"),
    ("metallb.io/v1beta1", "L2Advertisement"),
    ("metallb.io/v1beta1", "BGPAdvertisement"),
    ("metallb.io/v1beta2", "BGPPeer"),
    ("metallb.io/v1beta1", "BGPPeer"),
    ("metallb.io/v1beta1", "BFDProfile"),
    ("metallb.io/v1beta1", "Community"),
    ("metallb.io/v1beta1", "ConfigurationState"),
    ("metallb.io/v1beta1", "ServiceBGPStatus"),
    ("metallb.io/v1beta1", "ServiceL2Status"),
    ("v1", "Service"),
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
];

/// Other kinds of the core group; some are close to one that is read.
const CORE_KINDS: [&str; 14] = [
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "LimitRange",
    "List",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "ServiceAccount",
    "Status",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slip_in_kind_or_version_is_told_from_a_kind_of_no_concern() {
        let rows = [
            ("metallb.io/v1beta1", "IPAddressPool", ""),
            ("v1", "Service", ""),
            ("v1", "Pod", "foreign"),
            ("v1", "ServiceAccount", "foreign"),
            ("v1", "Endpoints", "foreign"),
            ("apps/v1", "Deployment", "foreign"),
            ("serving.knative.dev/v1", "Service", "foreign"),
            ("management.cattle.io/v3", "Node", "foreign"),
            ("crd.projectcalico.org/v1", "BGPPeer", "foreign"),
            ("kustomize.config.k8s.io/v1beta1", "Kustomization", "foreign"),
            ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration", "foreign"),
            ("metallb.io/v1beta1", "MetalLB", "foreign"),
            ("frrk8s.metallb.io/v1beta1", "FRRConfiguration", "foreign"),
            ("metallb.io/v1", "IPAddressPool", "use apiVersion metallb.io/v1beta1"),
            ("metallb.io/v1beta3", "BGPPeer", "use apiVersion metallb.io/v1beta2 or metallb.io/v1beta1"),
            ("metallb.io/v1beta2", "IPAddressPool", "use apiVersion metallb.io/v1beta1"),
            ("metallb.io/v1beta1", "IPAddresspool", "did you mean \"IPAddressPool\"?"),
            ("metallb.io/v1beta1", "ipaddresspool", "did you mean \"IPAddressPool\"?"),
            ("metallb.io/v1beta1", "IPAddressPools", "did you mean \"IPAddressPool\"?"),
            ("metallb.io/v1beta1", "L2Advertisment", "did you mean \"L2Advertisement\"?"),
            ("metallb.io/v1beta1", "BgpPeer", "did you mean \"BGPPeer\"?"),
            ("metallb.io/v1beta1", "AddressPool", "use IPAddressPool"),
            ("metallb.io/v1beta1", "Widget", "its kinds are"),
            ("metalb.io/v1beta1", "IPAddressPool", "use apiVersion metallb.io/v1beta1"),
            ("metallb.universe.tf/v1beta1", "BGPPeer", "use apiVersion metallb.io/v1beta2"),
            ("metallb/v1beta1", "L2Advertisement", "use apiVersion metallb.io/v1beta1"),
            ("v1beta1", "IPAddressPool", "use apiVersion metallb.io/v1beta1"),
            ("v1", "IPAddressPool", "use apiVersion metallb.io/v1beta1"),
            ("", "IPAddressPool", "apiVersion is missing"),
            ("", "Service", "apiVersion is missing: use apiVersion v1"),
            ("v1", "service", "did you mean \"Service\"?"),
            ("v1", "Services", "did you mean \"Service\"?"),
            ("v1", "Servise", "did you mean \"Service\"?"),
            ("apps/v1", "Service", "use apiVersion v1 and kind Service"),
            ("core/v1", "Service", "use apiVersion v1"),
            ("v1", "EndpointSlice", "use apiVersion discovery.k8s.io/v1"),
            ("discovery.k8s.io/v1beta1", "EndpointSlice", "use apiVersion discovery.k8s.io/v1"),
            ("discovery.k8s.io/v1", "Endpointslice", "use apiVersion discovery.k8s.io/v1 and kind EndpointSlice"),
        ];
        for (version, kind, expected) in rows {
            match recognize(version, kind) {
                Recognized::Known => assert_eq!(expected, "", "{version} {kind}"),
                Recognized::Foreign => assert_eq!(expected, "foreign", "{version} {kind}"),
                Recognized::Slip(message, _) => {
                    assert!(!expected.is_empty() && message.contains(expected), "{version} {kind}: {message}");
                }
            }
        }
    }
}

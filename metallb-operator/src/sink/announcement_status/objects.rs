//! Names, labels and contents of the status objects (`docs/upstream-behaviour.md#statuses`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::core::object::HasStatus;
use metallb_core::model::ServiceKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::announcer::L2Announcement;
use crate::api::{
    AddressConflict, InterfaceInfo, RefusedAddress, ServiceBgpStatus, ServiceBgpStatusSpec, ServiceBgpStatusStatus,
    ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
};
use crate::source::changes::Metadata;

use super::AddressChecks;
use super::ledger::Object;

/// A kind of status objects.
pub(super) trait StatusKind:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: Clone + PartialEq + Serialize + Debug + Send + Sync + 'static>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// Prefix of the names.
    const PREFIX: &'static str;
    /// Nodes that may have an object for a Service at one time.
    const HOLDERS: Holders;
    /// Fields of the status that may be absent.
    const OPTIONAL: &'static [&'static str];

    /// An object without a status.
    fn blank() -> Self;
}

/// The nodes that have an object for one Service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Holders {
    /// The node that answers. The next one takes the object over.
    One,
    /// Every node that advertises a route.
    Each,
}

impl StatusKind for ServiceL2Status {
    const PREFIX: &'static str = "l2-";
    const HOLDERS: Holders = Holders::One;
    const OPTIONAL: &'static [&'static str] = &["interfaces", "conflicts", "refused"];

    fn blank() -> Self {
        Self::new("", ServiceL2StatusSpec {})
    }
}

impl StatusKind for ServiceBgpStatus {
    const PREFIX: &'static str = "bgp-";
    const HOLDERS: Holders = Holders::Each;
    const OPTIONAL: &'static [&'static str] = &[];

    fn blank() -> Self {
        Self::new("", ServiceBgpStatusSpec {})
    }
}

/// The node and Pod whose objects these are.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The node.
    pub(super) node: String,
    /// The Pod; `None` for a process without one.
    pub(super) pod: Option<OwnerReference>,
}

impl Owner {
    /// The name of the object for a Service. It is derived, so that a write needs no request to find the object.
    pub(super) fn name<K: StatusKind>(&self, service: &ServiceKey) -> String {
        let mut hash = Sha256::new();
        hash.update(service.namespace.as_str());
        hash.update("/");
        hash.update(&*service.name);
        if K::HOLDERS == Holders::Each {
            hash.update("#");
            hash.update(&self.node);
        }
        let digest: String = hash.finalize().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
        format!("{}{digest}", K::PREFIX)
    }

    /// The metadata of the object for a Service.
    pub(super) fn metadata<K: StatusKind>(&self, service: &ServiceKey) -> ObjectMeta {
        let labels = BTreeMap::from([
            (NODE_LABEL.to_owned(), self.node.clone()),
            (SERVICE_LABEL.to_owned(), service.name.to_string()),
            (NAMESPACE_LABEL.to_owned(), service.namespace.to_string()),
        ]);
        ObjectMeta {
            name: Some(self.name::<K>(service)),
            labels: Some(labels),
            owner_references: self.pod.clone().map(|pod| vec![pod]),
            ..ObjectMeta::default()
        }
    }

    /// Reads an object. `Err` holds the name of an object that no Service leads to, such as one of an older release.
    pub(super) fn read<K: StatusKind>(&self, object: &K) -> Result<(ServiceKey, Object<K::Status>), String> {
        let meta = object.meta();
        let name = meta.name.clone().unwrap_or_default();
        let service = meta.labels.as_ref().and_then(service_of).filter(|service| self.name::<K>(service) == name);
        let owners = meta.owner_references.iter().flatten();
        let owned = self.pod.as_ref().is_none_or(|pod| owners.map(|owner| &owner.uid).any(|uid| *uid == pod.uid));
        let read = Object { identity: Metadata::of(meta).identity, owned, status: object.status().cloned() };
        service.map(|service| (service, read)).ok_or(name)
    }

    /// The L2 status of a Service.
    pub(super) fn l2_status(
        &self,
        key: &ServiceKey,
        announcement: &L2Announcement,
        checks: &AddressChecks,
    ) -> ServiceL2StatusStatus {
        let conflict =
            |ip: &IpAddr| Some(AddressConflict { ip: ip.to_string(), mac_address: checks.conflicts.get(ip)?.clone() });
        let conflicts: Vec<AddressConflict> = announcement.ips.iter().filter_map(conflict).collect();
        let refused =
            |ip: &IpAddr| Some(RefusedAddress { ip: ip.to_string(), reason: checks.refused.get(ip)?.clone() });
        let refused: Vec<RefusedAddress> = announcement.ips.iter().filter_map(refused).collect();
        let interfaces: Vec<_> =
            announcement.interfaces.iter().map(|name| InterfaceInfo { name: Some(name.to_string()) }).collect();
        ServiceL2StatusStatus {
            node: Some(self.node.clone()),
            service_name: Some(key.name.to_string()),
            service_namespace: Some(key.namespace.to_string()),
            interfaces: (!interfaces.is_empty()).then_some(interfaces),
            conflicts: (!conflicts.is_empty()).then_some(conflicts),
            refused: (!refused.is_empty()).then_some(refused),
        }
    }

    /// The BGP status of a Service.
    pub(super) fn bgp_status(&self, key: &ServiceKey, peers: Vec<String>) -> ServiceBgpStatusStatus {
        ServiceBgpStatusStatus {
            node: Some(self.node.clone()),
            service_name: Some(key.name.to_string()),
            service_namespace: Some(key.namespace.to_string()),
            peers: Some(peers),
        }
    }
}

/// A merge patch that sets the whole status, with `null` for absent fields: a merge patch keeps fields that it does not
/// name.
pub(super) fn status_patch<K: StatusKind>(status: &K::Status) -> Value {
    let mut value = json!(status);
    for field in K::OPTIONAL {
        if value.get(field).is_none() {
            value[field] = Value::Null;
        }
    }
    json!({ "status": value })
}

/// The Service that the labels of an object name.
pub(super) fn service_of(labels: &BTreeMap<String, String>) -> Option<ServiceKey> {
    Some(ServiceKey::new(labels.get(NAMESPACE_LABEL)?, labels.get(SERVICE_LABEL)?))
}

pub(super) const NODE_LABEL: &str = "metallb.io/node";
const SERVICE_LABEL: &str = "metallb.io/service-name";
const NAMESPACE_LABEL: &str = "metallb.io/service-namespace";

/// Bytes of the hash in a name: two of a million Services have one name with a probability of 3 in 10^8.
const NAME_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> Owner {
        let pod = OwnerReference {
            kind: "Pod".to_owned(),
            name: "speaker-x".to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        Owner { node: "node-1".to_owned(), pod: Some(pod) }
    }

    #[test]
    fn status_objects_are_labelled_and_owned_as_upstream_does_and_named_by_their_service() {
        let key = ServiceKey::new("shop", "web");
        let metadata = owner("u").metadata::<ServiceL2Status>(&key);
        let labels = metadata.labels.unwrap();
        let expected = [
            ("metallb.io/node", "node-1"),
            ("metallb.io/service-name", "web"),
            ("metallb.io/service-namespace", "shop"),
        ];
        assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(service_of(&labels), Some(key.clone()), "the labels lead back to the Service");
        let owners: Vec<String> = metadata.owner_references.unwrap().into_iter().map(|owner| owner.name).collect();
        assert_eq!(owners, ["speaker-x"]);
        let alone = Owner { pod: None, ..owner("u") };
        assert_eq!(alone.metadata::<ServiceL2Status>(&key).owner_references, None);

        let other = Owner { node: "node-2".to_owned(), ..owner("v") };
        assert_eq!(owner("u").name::<ServiceL2Status>(&key), other.name::<ServiceL2Status>(&key), "one node answers");
        assert_ne!(owner("u").name::<ServiceBgpStatus>(&key), other.name::<ServiceBgpStatus>(&key), "each advertises");
        let ambiguous =
            [ServiceKey::new("shop", "web"), ServiceKey::new("sho", "pweb"), ServiceKey::new("shop", "webs")];
        let names: std::collections::BTreeSet<_> =
            ambiguous.iter().map(|key| owner("u").name::<ServiceL2Status>(key)).collect();
        assert_eq!(names.len(), ambiguous.len());
    }

    #[test]
    fn object_of_an_earlier_pod_or_release_is_recognised() {
        let key = ServiceKey::new("shop", "web");
        let mut object = ServiceL2Status::blank();
        object.metadata = owner("old").metadata::<ServiceL2Status>(&key);
        let owned = |owner: Owner| owner.read(&object).map(|(_, object)| object.owned);
        assert_eq!(owned(owner("old")), Ok(true));
        assert_eq!(owned(owner("new")), Ok(false));
        let alone = Owner { pod: None, ..owner("new") };
        assert_eq!(owned(alone), Ok(true), "without a Pod there is no owner to compare");
        object.metadata.name = Some("l2-x7k2p".to_owned());
        assert_eq!(owner("old").read(&object), Err("l2-x7k2p".to_owned()), "a generated name");
        object.metadata.labels = None;
        assert!(owner("old").read(&object).is_err(), "no labels");
    }

    #[test]
    fn l2_status_names_interfaces_where_the_advertisement_does_and_what_is_found_about_its_addresses() {
        let key = ServiceKey::new("shop", "web");
        let status = |interfaces: &[&str], conflicts: &[(&str, &str)], refused: &[(&str, &str)]| {
            let announcement = L2Announcement {
                ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
                interfaces: interfaces.iter().map(|&name| name.into()).collect(),
                failed: false,
            };
            let by_ip =
                |list: &[(&str, &str)]| list.iter().map(|(ip, v)| (ip.parse().unwrap(), (*v).to_owned())).collect();
            let checks = AddressChecks { conflicts: by_ip(conflicts), refused: by_ip(refused) };
            owner("u").l2_status(&key, &announcement, &checks)
        };
        let all = status(&[], &[("192.0.2.9", "02:00:00:00:00:09")], &[("192.0.2.9", "a router has it")]);
        let bare = json!({ "node": "node-1", "serviceName": "web", "serviceNamespace": "shop" });
        assert_eq!(serde_json::to_value(&all).unwrap(), bare, "results for other addresses are left out");
        let null = json!(null);
        let written = &status_patch::<ServiceL2Status>(&all)["status"];
        assert_eq!([&written["interfaces"], &written["conflicts"], &written["refused"]], [&null; 3]);
        let conflicts = [("2001:db8::1", "02:00:00:00:00:09")];
        let some = status(&["eth0", "eth1"], &conflicts, &[("192.0.2.1", "a router has it")]);
        let some = &status_patch::<ServiceL2Status>(&some)["status"];
        assert_eq!(some["interfaces"], json!([{ "name": "eth0" }, { "name": "eth1" }]));
        assert_eq!(some["conflicts"], json!([{ "ip": "2001:db8::1", "macAddress": "02:00:00:00:00:09" }]));
        assert_eq!(some["refused"], json!([{ "ip": "192.0.2.1", "reason": "a router has it" }]));
    }
}

//! Writes `ServiceL2Status` and `ServiceBGPStatus`: what this node announces
//! (`docs/upstream-behaviour.md#statuses`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::core::object::HasStatus;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error, Resource as _, ResourceExt as _};
use metallb_core::model::{PeerName, ServiceKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Notify;

use crate::announcer::{Announced, L2Announcement};
use crate::api::{
    AddressConflict, InterfaceInfo, RefusedAddress, ServiceBgpStatus, ServiceBgpStatusSpec, ServiceBgpStatusStatus,
    ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
};

/// Reconciles the status objects in the background. A newer desired state replaces an older one.
pub(crate) struct StatusWriter {
    desired: Arc<DesiredStatuses>,
}

/// The desired statuses, and the Services whose statuses changed. The speaker writes them and the writer task takes
/// them, so that an update costs as much as it changes.
#[derive(Default)]
struct DesiredStatuses {
    inner: Mutex<(Wanted, BTreeSet<ServiceKey>)>,
    updated: Notify,
}

/// The desired content of the objects.
#[derive(Clone, Default)]
struct Wanted {
    announced: Announced,
    checks: AddressChecks,
}

/// Results of the checks of addresses.
#[derive(Clone, Default)]
pub(crate) struct AddressChecks {
    /// Foreign hosts that use an address.
    pub(crate) conflicts: BTreeMap<IpAddr, String>,
    /// Why an address is not announced.
    pub(crate) refused: BTreeMap<IpAddr, String>,
}

impl DesiredStatuses {
    fn with<T>(&self, act: impl FnOnce(&mut Wanted, &mut BTreeSet<ServiceKey>) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, changed) = &mut *inner;
        act(wanted, changed)
    }

    /// The desired state of the Services that changed since the last call; of all Services if many changed.
    fn take(&self, everything: bool) -> (Wanted, Option<BTreeSet<ServiceKey>>) {
        self.with(|wanted, changed| {
            let changed = std::mem::take(changed);
            if everything || changed.len() > MAX_SINGLE {
                return (wanted.clone(), None);
            }
            let Announced { l2, bgp } = &wanted.announced;
            let l2 = changed.iter().filter_map(|key| Some((key.clone(), l2.get(key)?.clone()))).collect();
            let bgp = changed.iter().filter_map(|key| Some((key.clone(), bgp.get(key)?.clone()))).collect();
            (Wanted { announced: Announced { l2, bgp }, checks: wanted.checks.clone() }, Some(changed))
        })
    }
}

impl StatusWriter {
    pub(crate) fn spawn(client: Client, namespace: String, node: String, pod: String) -> Self {
        let desired = Arc::new(DesiredStatuses::default());
        let shared = Arc::clone(&desired);
        resync::<ServiceL2Status>(Api::namespaced(client.clone(), &namespace), &node, Arc::clone(&desired));
        resync::<ServiceBgpStatus>(Api::namespaced(client.clone(), &namespace), &node, Arc::clone(&desired));
        tokio::spawn(async move {
            let mut writer = Writer {
                l2: Api::namespaced(client.clone(), &namespace),
                bgp: Api::namespaced(client.clone(), &namespace),
                pods: Api::namespaced(client, &namespace),
                pod,
                manager: FieldManager { node, owner: None },
            };
            // The first pass covers all objects: an earlier run may have left some.
            let mut everything = true;
            loop {
                let (wanted, changed) = shared.take(everything);
                match writer.converge(&wanted, changed.as_ref()).await {
                    Ok(()) => {
                        everything = tokio::time::timeout(RESYNC, shared.updated.notified()).await.is_err();
                    }
                    Err(error) => {
                        tracing::warn!(
                            %error, event = "statusWriteFailed",
                            "cannot write the announcement statuses, retrying"
                        );
                        tokio::time::sleep(RETRY).await;
                        everything = true;
                    }
                }
            }
        });
        Self { desired }
    }

    /// Sets the announcements; only the Services in `changed` differ from the last call.
    pub(crate) fn update(&self, announced: &Announced, changed: &BTreeSet<ServiceKey>) {
        if changed.is_empty() {
            return;
        }
        self.desired.with(|wanted, changes| {
            for key in changed {
                follow(&mut wanted.announced.l2, &announced.l2, key);
                follow(&mut wanted.announced.bgp, &announced.bgp, key);
                changes.insert(key.clone());
            }
        });
        self.desired.updated.notify_one();
    }

    /// Sets the results of the checks; `is_changed` tells whether the result of one of these addresses changed.
    pub(crate) fn update_checks(&self, checks: AddressChecks, is_changed: impl Fn(&[IpAddr]) -> bool) {
        self.desired.with(|wanted, changes| {
            wanted.checks = checks;
            let touched = wanted.announced.l2.iter().filter(|(_, announcement)| is_changed(&announcement.ips));
            changes.extend(touched.map(|(key, _)| key.clone()));
        });
        self.desired.updated.notify_one();
    }
}

/// Reconciles Services again after somebody changed or deleted their status objects of this node. Our own writes
/// trigger it too; the pass that follows finds nothing to do.
fn resync<K>(api: Api<PartialObjectMeta<K>>, node: &str, desired: Arc<DesiredStatuses>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let mine = watcher::Config::default().labels(&format!("{NODE_LABEL}={node}"));
    tokio::spawn(async move {
        let mut events = watcher::watcher(api, mine).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                // An object of an unknown Service is removed by the next full pass.
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    if let Some(key) = key_of(object.labels()) {
                        desired.with(|_, changes| changes.insert(key));
                        desired.updated.notify_one();
                    }
                }
                Ok(Event::Init | Event::InitApply(_) | Event::InitDone) => {}
                Err(error) => tracing::debug!(
                    %error, event = "statusWatchInterrupted", "the watch of statuses was interrupted, retrying"
                ),
            }
        }
    });
}

fn follow<V: Clone>(copy: &mut BTreeMap<ServiceKey, V>, original: &BTreeMap<ServiceKey, V>, key: &ServiceKey) {
    match original.get(key) {
        Some(value) => drop(copy.insert(key.clone(), value.clone())),
        None => drop(copy.remove(key)),
    }
}

struct Writer {
    l2: Api<ServiceL2Status>,
    bgp: Api<ServiceBgpStatus>,
    pods: Api<Pod>,
    pod: String,
    manager: FieldManager,
}

/// The owner of the objects; it is the same for all writes.
struct FieldManager {
    node: String,
    owner: Option<OwnerReference>,
}

impl Writer {
    /// Reconciles the objects of these Services, or of all Services.
    async fn converge(&mut self, wanted: &Wanted, only: Option<&BTreeSet<ServiceKey>>) -> Result<(), Error> {
        let Wanted { announced: wanted, checks } = wanted;
        if self.manager.owner.is_none() && !self.pod.is_empty() {
            let pod = self.pods.get(&self.pod).await?;
            self.manager.owner = pod.owner_ref(&());
        }
        let Some(only) = only else {
            let mine = ListParams::default().labels(&format!("{NODE_LABEL}={}", self.manager.node));
            self.converge_l2(wanted, checks, &mine).await?;
            return self.converge_bgp(wanted, &mine).await;
        };
        for key in only {
            let of_service = ListParams::default().labels(&format!(
                "{NODE_LABEL}={},{SERVICE_LABEL}={},{NAMESPACE_LABEL}={}",
                self.manager.node, key.name, key.namespace
            ));
            let l2 = wanted.l2.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()));
            let bgp = wanted.bgp.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()));
            let wanted = Announced { l2: l2.into_iter().collect(), bgp: bgp.into_iter().collect() };
            self.converge_l2(&wanted, checks, &of_service).await?;
            self.converge_bgp(&wanted, &of_service).await?;
        }
        Ok(())
    }

    async fn converge_l2(&self, wanted: &Announced, checks: &AddressChecks, mine: &ListParams) -> Result<(), Error> {
        let status = |(key, announcement)| {
            let status = self.manager.l2_status(key, announcement, checks);
            (ServiceKey::clone(key), status)
        };
        let blank = ServiceL2Status::new("", ServiceL2StatusSpec {});
        self.manager.converge(&self.l2, &L2, blank, wanted.l2.iter().map(status).collect(), mine).await
    }

    async fn converge_bgp(&self, wanted: &Announced, mine: &ListParams) -> Result<(), Error> {
        let status = |(key, (_, peers)): (&ServiceKey, &(Vec<IpAddr>, Arc<BTreeSet<PeerName>>))| {
            (key.clone(), self.manager.bgp_status(key, peers.iter().map(ToString::to_string).collect()))
        };
        let blank = ServiceBgpStatus::new("", ServiceBgpStatusSpec {});
        self.manager.converge(&self.bgp, &BGP, blank, wanted.bgp.iter().map(status).collect(), mine).await
    }
}

/// How the objects of one kind are named and written.
struct Schema {
    /// Prefix of their names.
    prefix: &'static str,
    /// Fields of the status that may be absent.
    optional: &'static [&'static str],
    owners: Owners,
}

/// Which nodes write an object for a Service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owners {
    /// The node that answers.
    One,
    /// Every node that advertises a route.
    Each,
}

const L2: Schema = Schema { prefix: "l2-", optional: &["interfaces", "conflicts", "refused"], owners: Owners::One };
const BGP: Schema = Schema { prefix: "bgp-", optional: &[], owners: Owners::Each };

impl Schema {
    /// The status with `null` for absent fields, because a merge patch keeps fields that it does not name.
    fn whole(&self, status: &impl Serialize) -> serde_json::Value {
        let mut value = json!(status);
        for field in self.optional {
            if value.get(field).is_none() {
                value[field] = serde_json::Value::Null;
            }
        }
        value
    }
}

impl FieldManager {
    /// Makes our objects among those that `mine` selects equal to the wanted ones, and deletes the others.
    async fn converge<K>(
        &self,
        api: &Api<K>,
        schema: &Schema,
        blank: K,
        mut wanted: BTreeMap<ServiceKey, K::Status>,
        mine: &ListParams,
    ) -> Result<(), Error>
    where
        K: kube::Resource<DynamicType = ()> + HasStatus + Clone + Debug + DeserializeOwned + Serialize,
        K::Status: PartialEq + Serialize,
    {
        let remove =
            async |object: K| api.delete(&object.name_any(), &DeleteParams::default()).await.map(|_| ()).or_else(gone);
        for object in api.list(mine).await? {
            let ours = key_of(object.labels()).filter(|_| self.owns(&object));
            match ours.and_then(|key| wanted.remove(&key)) {
                Some(status) if object.status() == Some(&status) => {}
                Some(status) => {
                    let patch = Patch::Merge(json!({ "status": schema.whole(&status) }));
                    api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await?;
                }
                None => remove(object).await?,
            }
        }
        for (key, status) in wanted {
            if schema.owners == Owners::One {
                // The former owner may be dead; the new owner deletes its object.
                let others = ListParams::default().labels(&format!(
                    "{SERVICE_LABEL}={},{NAMESPACE_LABEL}={},{NODE_LABEL}!={}",
                    key.name, key.namespace, self.node
                ));
                for object in api.list(&others).await? {
                    remove(object).await?;
                }
            }
            let mut object = blank.clone();
            *object.meta_mut() = self.metadata(schema.prefix, &key);
            let created = api.create(&PostParams::default(), &object).await?;
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(&created.name_any(), &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// Whether our Pod owns the object. The object of an earlier Pod is about to be collected and is created again.
    fn owns(&self, object: &impl kube::ResourceExt) -> bool {
        let is_ours = |owner: &OwnerReference| object.owner_references().iter().any(|other| other.uid == owner.uid);
        self.owner.as_ref().is_none_or(is_ours)
    }

    fn metadata(&self, prefix: &str, key: &ServiceKey) -> ObjectMeta {
        let labels = BTreeMap::from([
            (NODE_LABEL.to_owned(), self.node.clone()),
            (SERVICE_LABEL.to_owned(), key.name.to_string()),
            (NAMESPACE_LABEL.to_owned(), key.namespace.to_string()),
        ]);
        ObjectMeta {
            generate_name: Some(prefix.to_owned()),
            labels: Some(labels),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn l2_status(
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

    fn bgp_status(&self, key: &ServiceKey, peers: Vec<String>) -> ServiceBgpStatusStatus {
        ServiceBgpStatusStatus {
            node: Some(self.node.clone()),
            service_name: Some(key.name.to_string()),
            service_namespace: Some(key.namespace.to_string()),
            peers: Some(peers),
        }
    }
}

/// Treats a missing object as deleted.
fn gone(error: Error) -> Result<(), Error> {
    match error {
        Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error),
    }
}

fn key_of(labels: &BTreeMap<String, String>) -> Option<ServiceKey> {
    Some(ServiceKey::new(labels.get(NAMESPACE_LABEL)?, labels.get(SERVICE_LABEL)?))
}

const NODE_LABEL: &str = "metallb.io/node";
const SERVICE_LABEL: &str = "metallb.io/service-name";
const NAMESPACE_LABEL: &str = "metallb.io/service-namespace";
/// Up to this number, changed Services are fetched one by one; above it, all objects are listed.
const MAX_SINGLE: usize = 16;
/// Interval of full passes, in case an event was missed.
const RESYNC: std::time::Duration = std::time::Duration::from_secs(60);
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> FieldManager {
        let owner =
            OwnerReference { kind: "Pod".to_owned(), name: "speaker-x".to_owned(), ..OwnerReference::default() };
        FieldManager { node: "node-1".to_owned(), owner: Some(owner) }
    }

    #[test]
    fn status_objects_are_named_labelled_and_owned_as_upstream_does() {
        let key = ServiceKey::new("shop", "web");
        for prefix in ["l2-", "bgp-"] {
            let metadata = manager().metadata(prefix, &key);
            assert_eq!((metadata.generate_name.as_deref(), metadata.name), (Some(prefix), None));
            let labels = metadata.labels.unwrap();
            let expected = [
                ("metallb.io/node", "node-1"),
                ("metallb.io/service-name", "web"),
                ("metallb.io/service-namespace", "shop"),
            ];
            assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
            assert_eq!(key_of(&labels), Some(key.clone()), "the labels lead back to the Service");
            let owners: Vec<String> = metadata.owner_references.unwrap().into_iter().map(|owner| owner.name).collect();
            assert_eq!(owners, ["speaker-x"]);
        }
        assert_eq!(FieldManager { owner: None, ..manager() }.metadata("l2-", &key).owner_references, None);
    }

    #[test]
    fn object_of_an_earlier_pod_is_not_ours() {
        let of = |uid: &str| {
            let mut manager = manager();
            manager.owner.as_mut().unwrap().uid = uid.to_owned();
            manager
        };
        let mut object = ServiceL2Status::new("l2-1", ServiceL2StatusSpec {});
        object.metadata = of("old").metadata("l2-", &ServiceKey::new("shop", "web"));
        assert!(of("old").owns(&object));
        assert!(!of("new").owns(&object));
        assert!(FieldManager { owner: None, ..manager() }.owns(&object), "without a Pod there is no owner to compare");
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
            manager().l2_status(&key, &announcement, &checks)
        };
        let all = status(&[], &[("192.0.2.9", "02:00:00:00:00:09")], &[("192.0.2.9", "a router has it")]);
        let bare = json!({ "node": "node-1", "serviceName": "web", "serviceNamespace": "shop" });
        assert_eq!(serde_json::to_value(&all).unwrap(), bare, "results for other addresses are left out");
        let null = json!(null);
        let written = L2.whole(&all);
        assert_eq!([&written["interfaces"], &written["conflicts"], &written["refused"]], [&null; 3]);
        let conflicts = [("2001:db8::1", "02:00:00:00:00:09")];
        let some = L2.whole(&status(&["eth0", "eth1"], &conflicts, &[("192.0.2.1", "a router has it")]));
        assert_eq!(some["interfaces"], json!([{ "name": "eth0" }, { "name": "eth1" }]));
        assert_eq!(some["conflicts"], json!([{ "ip": "2001:db8::1", "macAddress": "02:00:00:00:00:09" }]));
        assert_eq!(some["refused"], json!([{ "ip": "192.0.2.1", "reason": "a router has it" }]));
    }
}

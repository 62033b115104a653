//! `ServiceL2Status` and `ServiceBGPStatus`: what this node announces, as objects
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

/// Brings the objects in step in the background; only the last wish counts.
pub(crate) struct StatusWriter {
    wishes: Arc<Wishes>,
}

/// What is wanted, and of which Services that is news. It is the speaker's to write and the writer's to take, so that telling costs what
/// changed.
#[derive(Default)]
struct Wishes {
    inner: Mutex<(Wanted, BTreeSet<ServiceKey>)>,
    news: Notify,
}

/// What the objects are to say.
#[derive(Clone, Default)]
struct Wanted {
    announced: Announced,
    findings: Findings,
}

/// What is known of addresses besides that they are announced.
#[derive(Clone, Default)]
pub(crate) struct Findings {
    /// Hosts outside of the cluster that use them.
    pub(crate) conflicts: BTreeMap<IpAddr, String>,
    /// Why they are not answered for.
    pub(crate) refused: BTreeMap<IpAddr, String>,
}

impl Wishes {
    fn with<T>(&self, act: impl FnOnce(&mut Wanted, &mut BTreeSet<ServiceKey>) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, changed) = &mut *inner;
        act(wanted, changed)
    }

    /// What is wanted of the Services that changed since the last time; of all of them where they are many.
    fn take(&self, everything: bool) -> (Wanted, Option<BTreeSet<ServiceKey>>) {
        self.with(|wanted, changed| {
            let changed = std::mem::take(changed);
            if everything || changed.len() > FEW {
                return (wanted.clone(), None);
            }
            let Announced { l2, bgp } = &wanted.announced;
            let l2 = changed.iter().filter_map(|key| Some((key.clone(), l2.get(key)?.clone()))).collect();
            let bgp = changed.iter().filter_map(|key| Some((key.clone(), bgp.get(key)?.clone()))).collect();
            (Wanted { announced: Announced { l2, bgp }, findings: wanted.findings.clone() }, Some(changed))
        })
    }
}

impl StatusWriter {
    pub(crate) fn spawn(client: Client, namespace: String, node: String, pod: String) -> Self {
        let wishes = Arc::new(Wishes::default());
        let shared = Arc::clone(&wishes);
        mend::<ServiceL2Status>(Api::namespaced(client.clone(), &namespace), &node, Arc::clone(&wishes));
        mend::<ServiceBgpStatus>(Api::namespaced(client.clone(), &namespace), &node, Arc::clone(&wishes));
        tokio::spawn(async move {
            let mut writer = Writer {
                l2: Api::namespaced(client.clone(), &namespace),
                bgp: Api::namespaced(client.clone(), &namespace),
                pods: Api::namespaced(client, &namespace),
                pod,
                author: Author { node, owner: None },
            };
            // What an earlier run of this speaker left behind is looked at once, even if nothing is announced.
            let mut everything = true;
            loop {
                let (wanted, changed) = shared.take(everything);
                match writer.converge(&wanted, changed.as_ref()).await {
                    Ok(()) => {
                        everything = tokio::time::timeout(RESYNC, shared.news.notified()).await.is_err();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "statuses could not be written, retrying");
                        tokio::time::sleep(RETRY).await;
                        everything = true;
                    }
                }
            }
        });
        Self { wishes }
    }

    /// Tells what is announced now, and of which Services that is news.
    pub(crate) fn update(&self, announced: &Announced, changed: &BTreeSet<ServiceKey>) {
        if changed.is_empty() {
            return;
        }
        self.wishes.with(|wanted, news| {
            for key in changed {
                follow(&mut wanted.announced.l2, &announced.l2, key);
                follow(&mut wanted.announced.bgp, &announced.bgp, key);
                news.insert(key.clone());
            }
        });
        self.wishes.news.notify_one();
    }

    /// Tells what is known of addresses now; `is_news` says of the addresses of a Service whether that is.
    pub(crate) fn update_findings(&self, findings: Findings, is_news: impl Fn(&[IpAddr]) -> bool) {
        self.wishes.with(|wanted, news| {
            wanted.findings = findings;
            let touched = wanted.announced.l2.iter().filter(|(_, announcement)| is_news(&announcement.ips));
            news.extend(touched.map(|(key, _)| key.clone()));
        });
        self.wishes.news.notify_one();
    }
}

/// Has Services looked at again whose objects of this node somebody changed or deleted. Our own writes are among them; the look that
/// follows finds nothing to do.
fn mend<K>(api: Api<PartialObjectMeta<K>>, node: &str, wishes: Arc<Wishes>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let mine = watcher::Config::default().labels(&format!("{NODE_LABEL}={node}"));
    tokio::spawn(async move {
        let mut events = watcher::watcher(api, mine).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                // An object of no Service is removed when everything is looked at.
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    if let Some(key) = key_of(object.labels()) {
                        wishes.with(|_, news| news.insert(key));
                        wishes.news.notify_one();
                    }
                }
                Ok(Event::Init | Event::InitApply(_) | Event::InitDone) => {}
                Err(error) => tracing::debug!(%error, "watch of statuses interrupted, retrying"),
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
    author: Author,
}

/// Who writes: what it says is the same whatever the API server does.
struct Author {
    node: String,
    owner: Option<OwnerReference>,
}

impl Writer {
    /// Brings the objects of these Services in step, or of all of them.
    async fn converge(&mut self, wanted: &Wanted, only: Option<&BTreeSet<ServiceKey>>) -> Result<(), Error> {
        let Wanted { announced: wanted, findings } = wanted;
        if self.author.owner.is_none() && !self.pod.is_empty() {
            let pod = self.pods.get(&self.pod).await?;
            self.author.owner = pod.owner_ref(&());
        }
        let Some(only) = only else {
            let mine = ListParams::default().labels(&format!("{NODE_LABEL}={}", self.author.node));
            self.converge_l2(wanted, findings, &mine).await?;
            return self.converge_bgp(wanted, &mine).await;
        };
        for key in only {
            let of_service = ListParams::default().labels(&format!(
                "{NODE_LABEL}={},{SERVICE_LABEL}={},{NAMESPACE_LABEL}={}",
                self.author.node, key.name, key.namespace
            ));
            let l2 = wanted.l2.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()));
            let bgp = wanted.bgp.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()));
            let wanted = Announced { l2: l2.into_iter().collect(), bgp: bgp.into_iter().collect() };
            self.converge_l2(&wanted, findings, &of_service).await?;
            self.converge_bgp(&wanted, &of_service).await?;
        }
        Ok(())
    }

    async fn converge_l2(&self, wanted: &Announced, findings: &Findings, mine: &ListParams) -> Result<(), Error> {
        let status = |(key, announcement)| {
            let status = self.author.l2_status(key, announcement, findings);
            (ServiceKey::clone(key), status)
        };
        let blank = ServiceL2Status::new("", ServiceL2StatusSpec {});
        self.author.converge(&self.l2, &L2, blank, wanted.l2.iter().map(status).collect(), mine).await
    }

    async fn converge_bgp(&self, wanted: &Announced, mine: &ListParams) -> Result<(), Error> {
        let status = |(key, (_, peers)): (&ServiceKey, &(Vec<IpAddr>, Arc<BTreeSet<PeerName>>))| {
            (key.clone(), self.author.bgp_status(key, peers.iter().map(ToString::to_string).collect()))
        };
        let blank = ServiceBgpStatus::new("", ServiceBgpStatusSpec {});
        self.author.converge(&self.bgp, &BGP, blank, wanted.bgp.iter().map(status).collect(), mine).await
    }
}

/// How the objects of one kind are kept.
struct Form {
    /// How their names begin.
    prefix: &'static str,
    /// What a status leaves out when there is none.
    optional: &'static [&'static str],
    owners: Owners,
}

/// Which nodes have an object for a Service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owners {
    /// The one that answers.
    One,
    /// All that offer a route.
    Each,
}

const L2: Form = Form { prefix: "l2-", optional: &["interfaces", "conflicts", "refused"], owners: Owners::One };
const BGP: Form = Form { prefix: "bgp-", optional: &[], owners: Owners::Each };

impl Form {
    /// With a null for what is not said any more: a merge leaves alone what it does not name.
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

impl Author {
    /// Makes our objects among those that `mine` selects say what is wanted, and removes those of which nothing is.
    async fn converge<K>(
        &self,
        api: &Api<K>,
        form: &Form,
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
                    let patch = Patch::Merge(json!({ "status": form.whole(&status) }));
                    api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await?;
                }
                None => remove(object).await?,
            }
        }
        for (key, status) in wanted {
            if form.owners == Owners::One {
                // The new owner removes what the old one, which may be dead, left behind.
                let others = ListParams::default().labels(&format!(
                    "{SERVICE_LABEL}={},{NAMESPACE_LABEL}={},{NODE_LABEL}!={}",
                    key.name, key.namespace, self.node
                ));
                for object in api.list(&others).await? {
                    remove(object).await?;
                }
            }
            let mut object = blank.clone();
            *object.meta_mut() = self.metadata(form.prefix, &key);
            let created = api.create(&PostParams::default(), &object).await?;
            let patch = Patch::Merge(json!({ "status": status }));
            api.patch_status(&created.name_any(), &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// Whether the object goes with our pod. One of an earlier pod is about to be collected, and is made anew.
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

    fn l2_status(&self, key: &ServiceKey, announcement: &L2Announcement, findings: &Findings) -> ServiceL2StatusStatus {
        let conflict = |ip: &IpAddr| {
            Some(AddressConflict { ip: ip.to_string(), mac_address: findings.conflicts.get(ip)?.clone() })
        };
        let conflicts: Vec<AddressConflict> = announcement.ips.iter().filter_map(conflict).collect();
        let refused =
            |ip: &IpAddr| Some(RefusedAddress { ip: ip.to_string(), reason: findings.refused.get(ip)?.clone() });
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

/// Deleting what is gone already is fine.
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
/// So many Services are looked at one by one; more of them by one look at all.
const FEW: usize = 16;
/// How often everything is looked at, in case something was missed.
const RESYNC: std::time::Duration = std::time::Duration::from_secs(60);
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn author() -> Author {
        let owner =
            OwnerReference { kind: "Pod".to_owned(), name: "speaker-x".to_owned(), ..OwnerReference::default() };
        Author { node: "node-1".to_owned(), owner: Some(owner) }
    }

    #[test]
    fn status_objects_are_named_labelled_and_owned_as_upstream_does() {
        let key = ServiceKey::new("shop", "web");
        for prefix in ["l2-", "bgp-"] {
            let metadata = author().metadata(prefix, &key);
            assert_eq!((metadata.generate_name.as_deref(), metadata.name), (Some(prefix), None));
            let labels = metadata.labels.unwrap();
            let expected = [
                ("metallb.io/node", "node-1"),
                ("metallb.io/service-name", "web"),
                ("metallb.io/service-namespace", "shop"),
            ];
            assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
            assert_eq!(key_of(&labels), Some(key.clone()), "and are found again by them");
            let owners: Vec<String> = metadata.owner_references.unwrap().into_iter().map(|owner| owner.name).collect();
            assert_eq!(owners, ["speaker-x"]);
        }
        assert_eq!(Author { owner: None, ..author() }.metadata("l2-", &key).owner_references, None);
    }

    #[test]
    fn object_of_an_earlier_pod_is_not_ours() {
        let of = |uid: &str| {
            let mut author = author();
            author.owner.as_mut().unwrap().uid = uid.to_owned();
            author
        };
        let mut object = ServiceL2Status::new("l2-1", ServiceL2StatusSpec {});
        object.metadata = of("old").metadata("l2-", &ServiceKey::new("shop", "web"));
        assert!(of("old").owns(&object));
        assert!(!of("new").owns(&object));
        assert!(Author { owner: None, ..author() }.owns(&object), "who has no pod has nothing to compare with");
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
            let findings = Findings { conflicts: by_ip(conflicts), refused: by_ip(refused) };
            author().l2_status(&key, &announcement, &findings)
        };
        let all = status(&[], &[("192.0.2.9", "02:00:00:00:00:09")], &[("192.0.2.9", "a router has it")]);
        let bare = json!({ "node": "node-1", "serviceName": "web", "serviceNamespace": "shop" });
        assert_eq!(serde_json::to_value(&all).unwrap(), bare, "what is found about others is not its");
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

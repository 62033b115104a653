//! Keeps a [`World`] in step with the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::{Client, Resource, ResourceExt as _};
use metallb_core::config::spec::Spec;
use metallb_core::model::ServiceKey;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::api;
use crate::kubernetes::watches::{self, Change};
use crate::translate;
use crate::world::World;

/// A change of one kind.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few are alive at once, in a bounded queue; a box would cost each one an allocation"
)]
pub enum Update {
    /// Services
    Services(Change<core::Service>),
    /// EndpointSlices
    Slices(Change<EndpointSlice>),
    /// Nodes
    Nodes(Change<core::Node>),
    /// Namespaces
    Namespaces(Change<core::Namespace>),
    /// Secrets
    Secrets(Change<core::Secret>),
    /// IPAddressPools
    Pools(Change<api::IpAddressPool>),
    /// L2Advertisements
    L2Advertisements(Change<api::L2Advertisement>),
    /// BGPAdvertisements
    BgpAdvertisements(Change<api::BgpAdvertisement>),
    /// BGPPeers
    Peers(Change<api::BgpPeer>),
    /// BFDProfiles
    BfdProfiles(Change<api::BfdProfile>),
    /// Communities
    Communities(Change<api::Community>),
    /// ServiceL2Statuses
    L2Statuses(Change<api::ServiceL2Status>),
}

/// What a Service needs beside its facts to be written: identity and version.
#[derive(Clone, Debug)]
pub struct ServiceMeta {
    /// `metadata.uid`
    pub uid: Option<String>,
    /// `metadata.resourceVersion`
    pub resource_version: Option<String>,
}

/// A world that follows the API.
#[derive(Debug, Default)]
pub struct Feed {
    /// The picture.
    pub world: World,
    /// Identity and version of each Service.
    pub services: BTreeMap<ServiceKey, ServiceMeta>,
    /// What the statuses of pools say about quarantine.
    pub quarantined: Vec<api::QuarantinedAddress>,
    /// Addresses that hosts outside of the cluster use, by the status object that says so.
    pub conflicts: BTreeMap<String, Vec<api::AddressConflict>>,
    expected: usize,
    seen: BTreeSet<&'static str>,
}

/// What a batch of updates touched.
#[derive(Debug, Default)]
pub struct Touched {
    /// Configuration, or what it is resolved against: namespaces, labels of nodes.
    pub config: bool,
    /// Nodes.
    pub nodes: bool,
    /// Services whose own object or endpoints changed.
    pub services: BTreeSet<ServiceKey>,
    /// Conflicts.
    pub conflicts: bool,
}

/// Which kinds are watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// What assigning needs.
    Controller,
    /// The same, and what speakers say of other hosts that use addresses.
    Quarantine,
    /// What announcing needs.
    Speaker,
}

impl Feed {
    /// Starts the watches that `role` needs. Configuration is read in `namespace` only.
    #[must_use]
    pub fn start(client: &Client, namespace: &str, role: Role) -> (Self, mpsc::Receiver<Update>) {
        let (queue, updates) = mpsc::channel(QUEUE);
        all(client, &queue, Update::Services);
        all(client, &queue, Update::Namespaces);
        all(client, &queue, Update::Nodes);
        local(client, namespace, &queue, Update::Pools);
        local(client, namespace, &queue, Update::Communities);
        local(client, namespace, &queue, Update::L2Advertisements);
        local(client, namespace, &queue, Update::BgpAdvertisements);
        let mut expected = 7;
        if role == Role::Speaker {
            all(client, &queue, Update::Slices);
            local(client, namespace, &queue, Update::Secrets);
            local(client, namespace, &queue, Update::Peers);
            local(client, namespace, &queue, Update::BfdProfiles);
            expected += 4;
        }
        if role == Role::Quarantine {
            local(client, namespace, &queue, Update::L2Statuses);
            expected += 1;
        }
        (Self { expected, ..Self::default() }, updates)
    }

    /// Whether every kind was listed once: before that the picture has holes, and nothing may be decided.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.seen.len() >= self.expected
    }

    /// Takes an update in.
    pub fn apply(&mut self, update: Update, touched: &mut Touched) {
        let resources = &mut self.world.resources;
        let cluster = &mut self.world.cluster;
        let name = match update {
            Update::Services(change) => {
                self.apply_services(change, touched);
                "Service"
            }
            Update::Slices(change) => {
                self.apply_slices(change, touched);
                "EndpointSlice"
            }
            Update::Nodes(change) => {
                // Heartbeats change nothing that matters.
                let changed = keyed(&mut cluster.nodes, change, translate::node, |node| node.name.clone());
                touched.nodes |= changed;
                touched.config |= changed;
                "Node"
            }
            Update::Namespaces(change) => {
                touched.config |=
                    keyed(&mut cluster.namespaces, change, translate::namespace, |namespace| namespace.name.clone());
                "Namespace"
            }
            Update::Secrets(change) => listed(&mut resources.secrets, change, translate::secret, touched),
            Update::L2Statuses(change) => {
                touched.conflicts |= conflicts(&mut self.conflicts, change);
                "ServiceL2Status"
            }
            Update::Pools(change) => {
                if let Change::Reset(pools) = &change {
                    let statuses = pools.iter().filter_map(|pool| pool.status.as_ref());
                    self.quarantined = statuses.flat_map(|status| status.quarantined.iter().cloned()).collect();
                }
                listed(&mut resources.pools, change, translate::pool, touched)
            }
            Update::L2Advertisements(change) => {
                listed(&mut resources.l2_advertisements, change, translate::l2_advertisement, touched)
            }
            Update::BgpAdvertisements(change) => {
                listed(&mut resources.bgp_advertisements, change, translate::bgp_advertisement, touched)
            }
            Update::Peers(change) => listed(&mut resources.peers, change, translate::bgp_peer, touched),
            Update::BfdProfiles(change) => listed(&mut resources.bfd_profiles, change, translate::bfd_profile, touched),
            Update::Communities(change) => listed(&mut resources.communities, change, translate::community, touched),
        };
        self.seen.insert(name);
    }

    fn apply_services(&mut self, change: Change<core::Service>, touched: &mut Touched) {
        let mut put = |object: &core::Service, touched: &mut Touched| {
            let service = translate::service(object);
            let key = service.key.clone();
            let meta = ServiceMeta { uid: object.uid(), resource_version: object.resource_version() };
            self.services.insert(key.clone(), meta);
            if self.world.cluster.services.get(&key) != Some(&service) {
                self.world.cluster.services.insert(key.clone(), service);
                touched.services.insert(key);
            }
        };
        let gone: Vec<ServiceKey> = match change {
            Change::Apply(object) => {
                put(&object, touched);
                Vec::new()
            }
            Change::Delete(object) => vec![translate::service_key(&object)],
            Change::Reset(objects) => {
                let live: BTreeSet<ServiceKey> = objects.iter().map(translate::service_key).collect();
                objects.iter().for_each(|object| put(object, touched));
                self.world.cluster.services.keys().filter(|key| !live.contains(*key)).cloned().collect()
            }
        };
        for key in gone {
            self.services.remove(&key);
            self.world.cluster.services.remove(&key);
            touched.services.insert(key);
        }
    }

    fn apply_slices(&mut self, change: Change<EndpointSlice>, touched: &mut Touched) {
        let id = |object: &EndpointSlice| (object.namespace().unwrap_or_default(), object.name_any());
        match change {
            Change::Apply(object) => {
                let (namespace, name) = id(&object);
                touched.services.extend(self.world.set_slice(&namespace, &name, translate::endpoint_slice(&object)));
            }
            Change::Delete(object) => {
                let (namespace, name) = id(&object);
                touched.services.extend(self.world.set_slice(&namespace, &name, None));
            }
            Change::Reset(objects) => {
                let slices = objects.iter().filter_map(|object| Some((id(object), translate::endpoint_slice(object)?)));
                touched.services.extend(self.world.reset_slices(slices.collect()));
            }
        }
    }
}

fn all<K>(client: &Client, queue: &mpsc::Sender<Update>, wrap: impl Fn(Change<K>) -> Update + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    watches::spawn(api, queue.clone(), wrap);
}

fn local<K>(
    client: &Client,
    namespace: &str,
    queue: &mpsc::Sender<Update>,
    wrap: impl Fn(Change<K>) -> Update + Send + 'static,
) where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    watches::spawn(api, queue.clone(), wrap);
}

/// Applies a change to what speakers say of other hosts. True when it says something new.
fn conflicts(
    by_object: &mut BTreeMap<String, Vec<api::AddressConflict>>,
    change: Change<api::ServiceL2Status>,
) -> bool {
    let said = |object: &api::ServiceL2Status| {
        let conflicts = object.status.as_ref().and_then(|status| status.conflicts.clone()).unwrap_or_default();
        (object.name_any(), conflicts)
    };
    let is_any = |(_, conflicts): &(String, Vec<api::AddressConflict>)| !conflicts.is_empty();
    match change {
        Change::Reset(objects) => {
            let new = objects.iter().map(said).filter(is_any).collect();
            let changed = *by_object != new;
            *by_object = new;
            changed
        }
        Change::Apply(object) => {
            let (name, conflicts) = said(&object);
            let before = match conflicts.is_empty() {
                true => by_object.remove(&name),
                false => by_object.insert(name.clone(), conflicts),
            };
            before.as_ref() != by_object.get(&name)
        }
        Change::Delete(object) => by_object.remove(&object.name_any()).is_some(),
    }
}

/// Applies a change to a map of facts. True when it says something new.
fn keyed<K, V: PartialEq, N: Ord>(
    map: &mut BTreeMap<N, V>,
    change: Change<K>,
    translate: impl Fn(&K) -> V,
    name: impl Fn(&V) -> N,
) -> bool {
    match change {
        Change::Reset(objects) => {
            let new = objects.iter().map(&translate).map(|value| (name(&value), value)).collect();
            let changed = *map != new;
            *map = new;
            changed
        }
        Change::Apply(object) => {
            let value = translate(&object);
            let key = name(&value);
            let changed = map.get(&key) != Some(&value);
            if changed {
                map.insert(key, value);
            }
            changed
        }
        Change::Delete(object) => map.remove(&name(&translate(&object))).is_some(),
    }
}

/// Applies a change to a list of configuration objects. Returns the kind.
fn listed<K, S: Spec + PartialEq>(
    list: &mut Vec<S>,
    change: Change<K>,
    translate: impl Fn(&K) -> S,
    touched: &mut Touched,
) -> &'static str {
    match change {
        Change::Reset(objects) => {
            let new: Vec<S> = objects.iter().map(&translate).collect();
            touched.config |= *list != new;
            *list = new;
        }
        Change::Apply(object) => {
            let new = translate(&object);
            match list.iter_mut().find(|old| old.meta().name == new.meta().name) {
                // A status or an annotation of no interest.
                Some(old) if *old == new => {}
                Some(old) => {
                    *old = new;
                    touched.config = true;
                }
                None => {
                    list.push(new);
                    touched.config = true;
                }
            }
        }
        Change::Delete(object) => {
            let gone = translate(&object);
            list.retain(|old| old.meta().name != gone.meta().name);
            touched.config = true;
        }
    }
    S::KIND
}

/// Updates that may wait; a full queue slows the watches down, which the API server copes with.
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<K: DeserializeOwned>(object: Value) -> K {
        serde_json::from_value(object).unwrap()
    }

    fn node(labels: Value, spec: Value, conditions: Value) -> Change<core::Node> {
        Change::Apply(read(json!({"metadata": {"name": "iris", "labels": labels, "resourceVersion": "1"},
            "spec": spec, "status": {"conditions": conditions}})))
    }

    fn touched(feed: &mut Feed, update: Update) -> Touched {
        let mut touched = Touched::default();
        feed.apply(update, &mut touched);
        touched
    }

    /// Fact 118 of contract control-plane, 156 and 157 of contract speaker.
    #[test]
    fn node_wakes_whoever_elects_by_labels_and_network_alone() {
        let heartbeat = |at: &str| json!({"type": "Ready", "status": "True", "lastHeartbeatTime": at});
        let (early, late) = (heartbeat("2026-01-01T00:00:00Z"), heartbeat("2026-01-01T00:00:10Z"));
        let without_network = json!({"type": "NetworkUnavailable", "status": "True"});
        let with_network = json!({"type": "NetworkUnavailable", "status": "False"});
        let rows = [
            ("created", json!({}), json!({}), json!([early]), true),
            ("nothing", json!({}), json!({}), json!([early]), false),
            ("heartbeat", json!({}), json!({}), json!([late]), false),
            ("cordon", json!({}), json!({"unschedulable": true}), json!([late]), false),
            ("pod CIDR", json!({}), json!({"podCIDR": "10.244.0.0/24"}), json!([late]), false),
            ("label", json!({"rack": "1"}), json!({}), json!([late]), true),
            ("network lost", json!({"rack": "1"}), json!({}), json!([late, without_network]), true),
            ("network still lost", json!({"rack": "1"}), json!({}), json!([early, without_network]), false),
            ("network back", json!({"rack": "1"}), json!({}), json!([late, with_network]), true),
        ];
        let mut feed = Feed::default();
        for (name, labels, spec, conditions, wakes) in rows {
            let touched = touched(&mut feed, Update::Nodes(node(labels, spec, conditions)));
            assert_eq!((touched.nodes, touched.config), (wakes, wakes), "{name}");
        }
        let gone = Change::Delete(read(json!({"metadata": {"name": "iris"}})));
        assert!(touched(&mut feed, Update::Nodes(gone)).nodes, "deleted");
    }

    /// Fact 116 of contract control-plane, 153 of contract speaker.
    #[test]
    fn picture_is_incomplete_until_every_kind_was_listed() {
        let mut feed = Feed { expected: 3, ..Feed::default() };
        let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"type": "LoadBalancer"}});
        assert!(!touched(&mut feed, Update::Services(Change::Reset(vec![read(service)]))).services.is_empty());
        assert!(!feed.is_complete(), "a Service alone decides nothing");
        touched(&mut feed, Update::Pools(Change::Reset(Vec::new())));
        assert!(!feed.is_complete());
        touched(&mut feed, Update::Nodes(Change::Reset(Vec::new())));
        assert!(feed.is_complete());
    }

    #[test]
    fn service_that_only_got_a_status_or_a_field_of_others_wakes_nobody_twice() {
        let service = |labels: Value, version: &str| {
            Change::Apply(read(json!({
                "metadata": {"namespace": "default", "name": "web", "labels": labels, "resourceVersion": version},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            })))
        };
        let mut feed = Feed::default();
        let key = ServiceKey::new("default", "web");
        assert_eq!(touched(&mut feed, Update::Services(service(json!({}), "1"))).services, [key.clone()].into());
        assert!(touched(&mut feed, Update::Services(service(json!({}), "2"))).services.is_empty());
        assert_eq!(
            feed.services[&key].resource_version.as_deref(),
            Some("2"),
            "the version to write against is new all the same"
        );
        assert_eq!(touched(&mut feed, Update::Services(service(json!({"app": "web"}), "3"))).services, [key].into());
    }
}

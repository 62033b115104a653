//! One picture of the cluster, kept up to date with the Kubernetes API: [`Index::apply`] takes what the watches report
//! and returns what it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::{Client, Resource};
use metallb_core::config::spec::Resources;
use metallb_core::model::{Cluster, ObjectRef, ServiceKey};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use self::facts::{conflicts, keyed, listed};
use crate::api;
use crate::source::changes::{Change, Identity, Metadata, ObjectName, Round, Uid, raise};
use crate::source::translate;
use crate::source::versions::{Step, Versions};
use crate::source::watches::{self, Demand};
use crate::source::world::World;

mod facts;

/// A change of one kind.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few values exist at once, in a bounded queue; a box would cost each one an allocation"
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

/// A watched kind.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Service
    Service,
    /// EndpointSlice
    EndpointSlice,
    /// Node
    Node,
    /// Namespace
    Namespace,
    /// Secret
    Secret,
    /// IPAddressPool
    Pool,
    /// L2Advertisement
    L2Advertisement,
    /// BGPAdvertisement
    BgpAdvertisement,
    /// BGPPeer
    Peer,
    /// BFDProfile
    BfdProfile,
    /// Community
    Community,
    /// ServiceL2Status
    L2Status,
}

/// A picture that follows the API and never goes back to an older state.
#[derive(Debug, Default)]
pub struct Index {
    world: World,
    /// Addresses that foreign hosts use, by the status object that reports them.
    conflicts: BTreeMap<String, Vec<api::AddressConflict>>,
    quarantined: BTreeMap<ObjectName, Vec<api::QuarantinedAddress>>,
    versions: BTreeMap<Kind, Versions>,
    demands: BTreeMap<Kind, watch::Sender<Demand>>,
    round: Round,
    /// Kinds that were not listed in this round.
    missing: BTreeSet<Kind>,
    was_complete: bool,
}

/// The changes of a batch of updates.
#[derive(Debug, Default)]
pub struct Touched {
    /// The configuration, or what it refers to: namespaces and labels of nodes.
    pub config: bool,
    /// Nodes.
    pub nodes: bool,
    /// Services whose own object or endpoints changed.
    pub services: BTreeSet<ServiceKey>,
    /// Services with a new version, and deleted ones, whether or not a fact changed.
    pub versions: BTreeSet<ServiceKey>,
    /// Conflicts.
    pub conflicts: bool,
}

impl Touched {
    /// Adds the changes of a later batch.
    pub fn merge(&mut self, later: Self) {
        self.config |= later.config;
        self.nodes |= later.nodes;
        self.services.extend(later.services);
        self.versions.extend(later.versions);
        self.conflicts |= later.conflicts;
    }
}

/// The set of watched kinds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The kinds that assignment needs.
    Controller {
        /// Also the statuses in which speakers report addresses that foreign hosts use.
        conflicts: bool,
    },
    /// The kinds that announcing needs.
    Speaker,
}

/// Why everything is listed again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relist {
    /// To see all writes of others until now. Outdated objects are ignored.
    Again,
    /// The store was restored from a snapshot: all known versions belong to a history that was discarded.
    Forget,
}

impl Index {
    /// Starts the watches that `role` needs. Configuration is read from `namespace` only.
    #[must_use]
    pub fn start(client: &Client, namespace: &str, role: Role) -> (Self, mpsc::Receiver<Update>) {
        let (queue, updates) = mpsc::channel(QUEUE);
        let mut watches = Watches { client, namespace, queue, demands: BTreeMap::new() };
        watches.all(Kind::Service, Update::Services);
        watches.all(Kind::Namespace, Update::Namespaces);
        watches.all(Kind::Node, Update::Nodes);
        watches.local(Kind::Pool, Update::Pools);
        watches.local(Kind::Community, Update::Communities);
        watches.local(Kind::L2Advertisement, Update::L2Advertisements);
        watches.local(Kind::BgpAdvertisement, Update::BgpAdvertisements);
        if role == Role::Speaker {
            watches.all(Kind::EndpointSlice, Update::Slices);
            watches.local(Kind::Secret, Update::Secrets);
            watches.local(Kind::Peer, Update::Peers);
            watches.local(Kind::BfdProfile, Update::BfdProfiles);
        }
        if role == (Role::Controller { conflicts: true }) {
            watches.local(Kind::L2Status, Update::L2Statuses);
        }
        (Self::following(watches.demands), updates)
    }

    fn following(demands: BTreeMap<Kind, watch::Sender<Demand>>) -> Self {
        Self { missing: demands.keys().copied().collect(), demands, ..Self::default() }
    }

    /// Whether every kind was listed in the current round: before that the picture is incomplete and no decision is
    /// allowed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether the picture was complete in any round: a process that lists everything again stays ready.
    #[must_use]
    pub fn was_complete(&self) -> bool {
        self.was_complete
    }

    /// The current round, for requests of our own that begin now.
    #[must_use]
    pub fn round(&self) -> Round {
        self.round
    }

    /// Begins a new round: every kind is listed again at once, by requests that begin after this call.
    pub fn relist(&mut self, how: Relist) -> Round {
        self.round = self.round.next();
        self.missing = self.demands.keys().copied().collect();
        if how == Relist::Forget {
            for kind in self.demands.keys() {
                self.versions.entry(*kind).or_default().forget(self.round);
            }
        }
        for demand in self.demands.values() {
            demand.send_modify(|demand| {
                demand.round = self.round;
                if how == Relist::Forget {
                    demand.forgotten = self.round;
                    demand.floor = None;
                }
            });
        }
        self.round
    }

    /// The configuration objects as written.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.world.resources
    }

    /// Services, endpoints, nodes, namespaces.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    /// Addresses that foreign hosts use, as speakers report them.
    pub fn conflicts(&self) -> impl Iterator<Item = &api::AddressConflict> {
        self.conflicts.values().flatten()
    }

    /// Uid and version of the newest known Service of this name.
    #[must_use]
    pub fn identity(&self, key: &ServiceKey) -> Option<&Identity> {
        self.versions.get(&Kind::Service)?.identity(&key.into())
    }

    /// Uid of a configuration object; `None` if it is unknown.
    #[must_use]
    pub fn uid(&self, object: &ObjectRef) -> Option<String> {
        let kind = match object.kind {
            "IPAddressPool" => Kind::Pool,
            "L2Advertisement" => Kind::L2Advertisement,
            "BGPAdvertisement" => Kind::BgpAdvertisement,
            "BGPPeer" => Kind::Peer,
            "BFDProfile" => Kind::BfdProfile,
            "Community" => Kind::Community,
            _ => return None,
        };
        let name = ObjectName { namespace: object.namespace.clone()?, name: object.name.clone() };
        self.versions.get(&kind)?.identity(&name).map(|identity| identity.uid.to_string())
    }

    /// The quarantined addresses in the statuses of pools.
    pub fn quarantined(&self) -> impl Iterator<Item = &api::QuarantinedAddress> {
        self.quarantined.values().flatten()
    }

    /// Processes a Service from the answer to a request of our own that began in round `asked`. An answer older than
    /// the picture is ignored; later, so are lists older than this answer.
    pub fn observe(&mut self, object: core::Service, asked: Round) -> Touched {
        let mut touched = Touched::default();
        let version = Metadata::of(&object.metadata).identity.version;
        let Some(step) = self.versions.entry(Kind::Service).or_default().answered(object, asked) else {
            return touched;
        };
        if let Some(demand) = self.demands.get(&Kind::Service) {
            // No watch is interrupted: the floor is read when the next list begins.
            demand.send_if_modified(|demand| {
                raise(&mut demand.floor, &version);
                false
            });
        }
        self.apply_service(step, &mut touched);
        touched
    }

    /// Processes a "not found" for a write of this Service that began in round `asked`: the object of this uid does not
    /// exist. Do not pass a "not found" that does not name the Service (its path is not served yet).
    pub fn deleted(&mut self, key: &ServiceKey, uid: &Uid, asked: Round) -> Touched {
        let mut touched = Touched::default();
        let name = ObjectName::from(key);
        if self.versions.entry(Kind::Service).or_default().missing(&name, uid, asked) {
            self.apply_service(Step::Remove(name), &mut touched);
        }
        touched
    }

    /// Processes updates in their order.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Touched {
        let mut touched = Touched::default();
        for update in updates {
            self.apply_update(update, &mut touched);
        }
        touched
    }

    fn apply_update(&mut self, update: Update, touched: &mut Touched) {
        match update {
            Update::Services(change) => {
                for step in self.follow(Kind::Service, change) {
                    self.apply_service(step, touched);
                }
            }
            Update::Slices(change) => {
                for step in self.follow(Kind::EndpointSlice, change) {
                    let (name, slice) = match step {
                        Step::Put(name, object) => (name, translate::endpoint_slice(&object)),
                        Step::Broken(..) => continue,
                        Step::Remove(name) => (name, None),
                    };
                    touched.services.extend(self.world.set_slice(&name.namespace, &name.name, slice));
                }
            }
            Update::Nodes(change) => {
                let steps = self.follow(Kind::Node, change);
                // A heartbeat changes no fact.
                let changed = keyed(&mut self.world.cluster.nodes, steps, translate::node);
                touched.nodes |= changed;
                touched.config |= changed;
            }
            Update::Namespaces(change) => {
                let steps = self.follow(Kind::Namespace, change);
                touched.config |= keyed(&mut self.world.cluster.namespaces, steps, translate::namespace);
            }
            Update::L2Statuses(change) => {
                let steps = self.follow(Kind::L2Status, change);
                touched.conflicts |= conflicts(&mut self.conflicts, steps);
            }
            Update::Pools(change) => {
                let steps = self.follow(Kind::Pool, change);
                self.note_quarantined(&steps);
                let Resources { pools, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(pools, unreadable, steps, translate::pool);
            }
            Update::Secrets(change) => {
                let mut steps = self.follow(Kind::Secret, change);
                // The last form stays. The error is not kept, because it may quote the Secret.
                steps.retain(|step| !matches!(step, Step::Broken(..)));
                let Resources { secrets, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(secrets, unreadable, steps, translate::secret);
            }
            Update::L2Advertisements(change) => {
                let steps = self.follow(Kind::L2Advertisement, change);
                let Resources { l2_advertisements, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(l2_advertisements, unreadable, steps, translate::l2_advertisement);
            }
            Update::BgpAdvertisements(change) => {
                let steps = self.follow(Kind::BgpAdvertisement, change);
                let Resources { bgp_advertisements, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(bgp_advertisements, unreadable, steps, translate::bgp_advertisement);
            }
            Update::Peers(change) => {
                let steps = self.follow(Kind::Peer, change);
                let Resources { peers, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(peers, unreadable, steps, translate::bgp_peer);
            }
            Update::BfdProfiles(change) => {
                let steps = self.follow(Kind::BfdProfile, change);
                let Resources { bfd_profiles, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(bfd_profiles, unreadable, steps, translate::bfd_profile);
            }
            Update::Communities(change) => {
                let steps = self.follow(Kind::Community, change);
                let Resources { communities, unreadable, .. } = &mut self.world.resources;
                touched.config |= listed(communities, unreadable, steps, translate::community);
            }
        }
        self.was_complete |= self.is_complete();
    }

    /// The changes of the picture that follow from a change of a kind.
    fn follow<K: Resource<DynamicType = ()>>(&mut self, kind: Kind, change: Change<K>) -> Vec<Step<K>> {
        if let Change::Reset(listed) = &change
            && listed.round >= self.round
        {
            self.missing.remove(&kind);
        }
        self.versions.entry(kind).or_default().follow(change)
    }

    fn apply_service(&mut self, step: Step<core::Service>, touched: &mut Touched) {
        let services = &mut self.world.cluster.services;
        let (key, changed) = match step {
            Step::Put(name, object) => {
                let (key, service) = (ServiceKey::from(&name), translate::service(&object));
                let changed = services.get(&key) != Some(&service);
                if changed {
                    services.insert(key.clone(), service);
                }
                (key, changed)
            }
            Step::Broken(..) => return,
            Step::Remove(name) => {
                let key = ServiceKey::from(&name);
                let changed = services.remove(&key).is_some();
                (key, changed)
            }
        };
        if changed {
            touched.services.insert(key.clone());
        }
        touched.versions.insert(key);
    }

    fn note_quarantined(&mut self, steps: &[Step<api::IpAddressPool>]) {
        for step in steps {
            match step {
                Step::Put(name, pool) => {
                    let listed = pool.status.as_ref().map_or_else(Vec::new, |status| status.quarantined.clone());
                    self.quarantined.insert(name.clone(), listed);
                }
                Step::Broken(..) => {}
                Step::Remove(name) => {
                    self.quarantined.remove(name);
                }
            }
        }
    }
}

/// Starts watches and keeps the sender of their demands.
struct Watches<'a> {
    client: &'a Client,
    namespace: &'a str,
    queue: mpsc::Sender<Update>,
    demands: BTreeMap<Kind, watch::Sender<Demand>>,
}

impl Watches<'_> {
    fn all<K>(&mut self, kind: Kind, wrap: impl Fn(Change<K>) -> Update + Send + Sync + 'static)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.spawn(kind, Api::all(self.client.clone()), wrap);
    }

    fn local<K>(&mut self, kind: Kind, wrap: impl Fn(Change<K>) -> Update + Send + Sync + 'static)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        self.spawn(kind, Api::namespaced(self.client.clone(), self.namespace), wrap);
    }

    fn spawn<K>(
        &mut self,
        kind: Kind,
        api: Api<DeserializeGuard<K>>,
        wrap: impl Fn(Change<K>) -> Update + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (demand, asked) = watch::channel(Demand::default());
        watches::spawn(api, asked, self.queue.clone(), wrap);
        self.demands.insert(kind, demand);
    }
}

/// Length of the queue. When it is full, the watches are not read, and the API server ends the slowest of them; such a
/// watch continues from its version or lists again. Nothing is dropped.
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests;

//! The content of one object, as a fact for decisions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use metallb_core::config::legacy::LegacyConfig;
use metallb_core::config::spec::{
    BfdProfileSpec, BgpAdvertisementSpec, CommunitySpec, L2AdvertisementSpec, PeerSpec, PoolSpec, Resources, SecretSpec,
};
use metallb_core::model::{Endpoint, Namespace, Node, Service, ServiceKey};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ObjectId;
use super::kinds::is_old_configuration;
use crate::api::IpAddressPoolStatus;
use crate::source::translate;
use crate::source::world::World;

/// The content of an object of a known kind.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    /// With the quarantined addresses of its status, if it has a status.
    Pool(PoolSpec, Option<BTreeMap<IpAddr, Arc<str>>>),
    L2Advertisement(L2AdvertisementSpec),
    BgpAdvertisement(BgpAdvertisementSpec),
    Peer(Box<PeerSpec>),
    BfdProfile(BfdProfileSpec),
    Community(CommunitySpec),
    Secret(SecretSpec),
    /// With whether the object has a status: a manifest has none, and must not clear that of the cluster.
    Service {
        service: Box<Service>,
        has_status: bool,
    },
    Node(Node),
    Namespace(Namespace),
    /// `None` if the slice belongs to no Service.
    Endpoints(Option<(ServiceKey, Vec<Endpoint>)>),
    /// The ConfigMap of MetalLB before 0.13.
    Legacy(Resources),
    /// A ConfigMap with such a configuration under a name that MetalLB did not read.
    OldConfigMap,
    /// A kind that is not used here.
    Other,
}

impl Fact {
    /// Reads an object of kind `id.kind` with its namespace set.
    ///
    /// # Errors
    /// All schema violations, as text.
    pub(super) fn read(id: &ObjectId, version: &str, mut value: Value) -> Result<Self, Vec<String>> {
        if version.starts_with("metallb.io/") {
            drop_nulls(&mut value);
        }
        Ok(match (version, id.kind.as_str()) {
            ("metallb.io/v1beta1", "IPAddressPool") => {
                // Only a controller writes the status; a pool must not fail because of it.
                let status = value.get("status").cloned();
                if status.is_some_and(|status| serde_json::from_value::<IpAddressPoolStatus>(status).is_err())
                    && let Some(fields) = value.as_object_mut()
                {
                    fields.remove("status");
                }
                let pool = typed(value)?;
                Self::Pool(translate::pool(&pool), translate::quarantined(&pool))
            }
            ("metallb.io/v1beta1", "L2Advertisement") => {
                Self::L2Advertisement(translate::l2_advertisement(&typed(value)?))
            }
            ("metallb.io/v1beta1", "BGPAdvertisement") => {
                Self::BgpAdvertisement(translate::bgp_advertisement(&typed(value)?))
            }
            ("metallb.io/v1beta2", "BGPPeer") => Self::Peer(Box::new(translate::bgp_peer(&typed(value)?))),
            ("metallb.io/v1beta1", "BGPPeer") => Self::Peer(Box::new(translate::bgp_peer_v1beta1(&typed(value)?))),
            ("metallb.io/v1beta1", "BFDProfile") => Self::BfdProfile(translate::bfd_profile(&typed(value)?)),
            ("metallb.io/v1beta1", "Community") => Self::Community(translate::community(&typed(value)?)),
            ("v1", "Secret") => Self::Secret(translate::secret(&typed(value)?)),
            ("v1", "Service") => {
                let has_status = value.get("status").is_some();
                Self::Service { service: Box::new(translate::service(&typed(value)?)), has_status }
            }
            ("v1", "Node") => Self::Node(translate::node(&typed(value)?)),
            ("v1", "Namespace") => Self::Namespace(translate::namespace(&typed(value)?)),
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::Endpoints(translate::endpoint_slice(&typed(value)?)),
            ("v1", "ConfigMap") => match value.pointer("/data/config").and_then(Value::as_str) {
                Some(text) if id.name == "config" => Self::Legacy(legacy(text, &id.namespace)?),
                Some(text) if is_old_configuration(text) => Self::OldConfigMap,
                _ => Self::Other,
            },
            _ => Self::Other,
        })
    }

    /// Whether it is read only from the namespace of the configuration.
    pub(super) const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Pool(..)
                | Self::L2Advertisement(_)
                | Self::BgpAdvertisement(_)
                | Self::Peer(_)
                | Self::BfdProfile(_)
                | Self::Community(_)
                | Self::Secret(_)
                | Self::Legacy(_)
        )
    }

    /// Whether decisions use it.
    pub(super) const fn is_used(&self) -> bool {
        !matches!(self, Self::Other | Self::OldConfigMap | Self::Endpoints(None))
    }

    /// Applies `newer` over this fact. As in the API server, what the manifest does not mention stays.
    pub(super) fn replaced_by(&mut self, newer: Self) {
        let old = std::mem::replace(self, newer);
        if let (Self::Pool(_, new @ None), Self::Pool(_, known)) = (&mut *self, &old) {
            new.clone_from(known);
        }
        let (Self::Service { service, has_status }, Self::Service { service: old, has_status: had }) = (self, old)
        else {
            return;
        };
        if !*has_status {
            service.ingress = old.ingress;
            *has_status = had;
        }
        service.created = service.created.or(old.created);
        if service.load_balancer_class.is_none() {
            service.load_balancer_class = old.load_balancer_class;
        }
        let same_families = (service.ip_families.is_empty() || service.ip_families == old.ip_families)
            && (service.ip_family_policy.is_none() || service.ip_family_policy == old.ip_family_policy);
        if service.cluster_ips.is_empty() && same_families {
            service.cluster_ips = old.cluster_ips;
            service.ip_families = old.ip_families;
            service.ip_family_policy = old.ip_family_policy;
        }
    }

    /// Adds the fact to the world.
    pub(super) fn add_to(&self, world: &mut World) {
        let (resources, cluster) = (&mut world.resources, &mut world.cluster);
        match self {
            Self::Pool(pool, quarantined) => {
                resources.pools.push(pool.clone());
                cluster.quarantined.extend(quarantined.iter().flatten().map(|(ip, mac)| (*ip, Arc::clone(mac))));
            }
            Self::L2Advertisement(advertisement) => resources.l2_advertisements.push(advertisement.clone()),
            Self::BgpAdvertisement(advertisement) => resources.bgp_advertisements.push(advertisement.clone()),
            Self::Peer(peer) => resources.peers.push((**peer).clone()),
            Self::BfdProfile(profile) => resources.bfd_profiles.push(profile.clone()),
            Self::Community(community) => resources.communities.push(community.clone()),
            Self::Secret(secret) => resources.secrets.push(secret.clone()),
            Self::Service { service, .. } => {
                world.order.push(service.key.clone());
                cluster.services.insert(service.key.clone(), (**service).clone());
            }
            Self::Node(node) => {
                cluster.nodes.insert(node.name.clone(), node.clone());
            }
            Self::Namespace(namespace) => {
                cluster.namespaces.insert(namespace.name.clone(), namespace.clone());
            }
            Self::Endpoints(Some((key, endpoints))) => world.extend_endpoints(key.clone(), endpoints.clone()),
            Self::Legacy(legacy) => join(resources, legacy),
            Self::Endpoints(None) | Self::OldConfigMap | Self::Other => {}
        }
    }
}

/// Removes fields with the value `null`, as the API server does.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(entries) => entries.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Vec<String>> {
    serde_json::from_value(value).map_err(|error| vec![error.to_string()])
}

fn legacy(text: &str, namespace: &str) -> Result<Resources, Vec<String>> {
    let config: LegacyConfig = serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?;
    let conversion = config.convert(namespace);
    conversion.map(|done| done.resources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn join(resources: &mut Resources, more: &Resources) {
    resources.pools.extend(more.pools.iter().cloned());
    resources.l2_advertisements.extend(more.l2_advertisements.iter().cloned());
    resources.bgp_advertisements.extend(more.bgp_advertisements.iter().cloned());
    resources.peers.extend(more.peers.iter().cloned());
    resources.bfd_profiles.extend(more.bfd_profiles.iter().cloned());
    resources.communities.extend(more.communities.iter().cloned());
    resources.secrets.extend(more.secrets.iter().cloned());
}

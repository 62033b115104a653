//! One picture of all facts for decisions, from watches or manifests.

use std::collections::BTreeMap;

use metallb_core::config::spec::Resources;
use metallb_core::model::{Cluster, Endpoint, ServiceKey};

/// Configuration objects and cluster facts.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The configuration as written.
    pub resources: Resources,
    /// Services, endpoints, nodes, namespaces.
    pub cluster: Cluster,
    /// Services in reading order.
    pub order: Vec<ServiceKey>,
    /// The Service of each slice, by namespace and name of the slice.
    slices: BTreeMap<(String, String), ServiceKey>,
    /// The endpoints of each slice of a Service, which may have several slices.
    endpoints: BTreeMap<ServiceKey, BTreeMap<String, Vec<Endpoint>>>,
}

impl World {
    /// Replaces one slice; `None` removes it. Returns the Services whose endpoints changed.
    pub fn set_slice(
        &mut self,
        namespace: &str,
        name: &str,
        slice: Option<(ServiceKey, Vec<Endpoint>)>,
    ) -> Vec<ServiceKey> {
        let id = (namespace.to_owned(), name.to_owned());
        let old = self.slices.remove(&id);
        if let Some(key) = &old {
            self.take_slice(key, name);
        }
        let mut touched: Vec<ServiceKey> = old.into_iter().collect();
        if let Some((key, endpoints)) = slice {
            self.slices.insert(id, key.clone());
            self.endpoints.entry(key.clone()).or_default().insert(name.to_owned(), endpoints);
            touched.push(key);
        }
        touched.dedup();
        touched.retain(|key| {
            let now: Vec<Endpoint> = self
                .endpoints
                .get(key)
                .into_iter()
                .flatten()
                .flat_map(|(_, endpoints)| endpoints.iter().cloned())
                .collect();
            let before = if now.is_empty() {
                self.cluster.endpoints.remove(key)
            } else {
                self.cluster.endpoints.insert(key.clone(), now)
            };
            before.as_ref() != self.cluster.endpoints.get(key)
        });
        touched
    }

    fn take_slice(&mut self, key: &ServiceKey, name: &str) {
        let Some(slices) = self.endpoints.get_mut(key) else { return };
        slices.remove(name);
        if slices.is_empty() {
            self.endpoints.remove(key);
        }
    }

    /// Adds the endpoints of a slice to the known ones; for reading many slices at once.
    pub fn extend_endpoints(&mut self, key: ServiceKey, endpoints: Vec<Endpoint>) {
        self.cluster.endpoints.entry(key).or_default().extend(endpoints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(nodes: &[&str]) -> Vec<Endpoint> {
        let endpoint =
            |node: &&str| Endpoint { has_address: true, node: Some((*node).into()), ready: Some(true), serving: None };
        nodes.iter().map(endpoint).collect()
    }

    fn nodes(world: &World, service: &ServiceKey) -> Vec<String> {
        let of = world.cluster.endpoints.get(service).map_or(&[][..], Vec::as_slice);
        of.iter().filter_map(|endpoint| endpoint.node.as_ref().map(ToString::to_string)).collect()
    }

    #[test]
    fn endpoints_of_all_slices_of_a_service_count_and_only_a_difference_touches_it() {
        let (web, api) = (ServiceKey::new("default", "web"), ServiceKey::new("default", "api"));
        let mut world = World::default();
        let mut set = |name: &str, slice: Option<(&ServiceKey, &[&str])>| {
            let slice = slice.map(|(key, nodes)| (key.clone(), endpoints(nodes)));
            let touched = world.set_slice("default", name, slice);
            (touched, nodes(&world, &web), nodes(&world, &api))
        };
        let none = Vec::<String>::new;
        assert_eq!(set("web-1", Some((&web, &["a"]))), (vec![web.clone()], vec!["a".into()], none()));
        assert_eq!(set("web-2", Some((&web, &["b"]))), (vec![web.clone()], vec!["a".into(), "b".into()], none()));
        assert_eq!(set("web-2", Some((&web, &["b"]))), (vec![], vec!["a".into(), "b".into()], none()), "a heartbeat");
        assert_eq!(
            set("web-1", Some((&api, &["a"]))),
            (vec![web.clone(), api.clone()], vec!["b".into()], vec!["a".into()])
        );
        assert_eq!(set("web-2", None), (vec![web.clone()], none(), vec!["a".into()]));
        assert_eq!(set("web-2", None), (vec![], none(), vec!["a".into()]));
        assert_eq!(set("web-3", Some((&web, &[]))), (vec![], none(), vec!["a".into()]), "no endpoints change nothing");
    }
}

//! One picture of everything that decisions need, however it is fed: by watches or by manifests.

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
    /// Services in the order in which they were read.
    pub order: Vec<ServiceKey>,
    /// Endpoints by slice, since a Service may have several.
    slices: BTreeMap<(String, String), (ServiceKey, Vec<Endpoint>)>,
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
        let old = match slice {
            Some(slice) => {
                let new_key = slice.0.clone();
                let old = self.slices.insert(id, slice);
                [old.map(|(key, _)| key), Some(new_key)]
            }
            None => [self.slices.remove(&id).map(|(key, _)| key), None],
        };
        let mut touched: Vec<ServiceKey> = old.into_iter().flatten().collect();
        touched.dedup();
        for key in &touched {
            let endpoints: Vec<Endpoint> = self
                .slices
                .values()
                .filter(|(of, _)| of == key)
                .flat_map(|(_, endpoints)| endpoints.iter().cloned())
                .collect();
            if endpoints.is_empty() {
                self.cluster.endpoints.remove(key);
            } else {
                self.cluster.endpoints.insert(key.clone(), endpoints);
            }
        }
        touched
    }

    /// Replaces all slices. Returns the Services whose endpoints changed.
    pub fn reset_slices(&mut self, slices: Vec<((String, String), (ServiceKey, Vec<Endpoint>))>) -> Vec<ServiceKey> {
        self.slices = slices.into_iter().collect();
        let before = std::mem::take(&mut self.cluster.endpoints);
        for (key, endpoints) in self.slices.values() {
            self.cluster.endpoints.entry(key.clone()).or_default().extend(endpoints.iter().cloned());
        }
        let now = &self.cluster.endpoints;
        let mut touched: Vec<ServiceKey> =
            before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).cloned().collect();
        touched.sort();
        touched.dedup();
        touched
    }

    /// Adds the endpoints of a slice to those that are there; for reading many slices at once.
    pub fn extend_endpoints(&mut self, key: ServiceKey, endpoints: Vec<Endpoint>) {
        self.cluster.endpoints.entry(key).or_default().extend(endpoints);
    }
}

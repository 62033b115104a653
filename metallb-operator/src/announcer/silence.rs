//! Why a Service that has an address is not announced, in the words of `metallb explain`.

use std::collections::BTreeMap;

use metallb_core::config::Config;
use metallb_core::election::{ElectionRules, Holder, L2Reason};
use metallb_core::model::{Cluster, ServiceKey};
use metallb_core::routes::routes;

use super::{Announcer, elections};

impl Announcer {
    /// The Services whose addresses no node answers for on L2, or that this node offers no routes for, and why. Of the two ways
    /// only those count that the pool is meant for; both, if for none. It looks at all Services and hashes nothing.
    #[must_use]
    pub fn silent(&self, config: &Config, cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
        let rules = ElectionRules { live: self.live(cluster), exclude_label: self.identity.exclude_label };
        let holders = self.holders(config, cluster);
        let elections = elections(config, cluster, &rules, &holders);
        let me = cluster.nodes.get(&self.identity.node);
        let reasons = |key: &ServiceKey| {
            let (service, ips) = self.holder(cluster, key)?;
            let pool = config.pool_of(&ips)?;
            let nobody = match pool.l2.is_empty() {
                true => pool.bgp.is_empty().then_some(L2Reason::NoMatchingAdvertisement),
                false => elections.refusal(key),
            };
            let offered = self.announced.bgp.contains_key(key) || pool.bgp.is_empty() && !pool.l2.is_empty();
            let holder = Holder { service, pool, ips: &ips };
            let nothing = me.filter(|_| !offered).and_then(|me| {
                let reason = routes(holder, me, config, cluster, self.identity.exclude_label).reason?;
                Some(format!("nothing from {}: {}", self.identity.node, reason.meaning()))
            });
            let nobody = nobody.map(|reason| format!("nobody answers: {}", reason.meaning()));
            let reasons: Vec<String> = nobody.into_iter().chain(nothing).collect();
            (!reasons.is_empty()).then(|| (key.to_string(), reasons))
        };
        cluster.services.keys().filter_map(reasons).collect()
    }
}

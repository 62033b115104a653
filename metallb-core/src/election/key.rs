//! The inputs of an election from one Service.
//!
//! An election is made from the key alone, and keys are compared by value. An input that is forgotten here therefore
//! cannot decide an election, and one that decides it cannot change unseen.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::candidates::{CandidateSet, SetChange};
use super::{Electorate, Holder, L2Reason, advertisements};
use crate::config::L2Advertisement;
use crate::model::{AnnotationKey, Endpoint, NodeName, Timestamp, TrafficPolicy};

/// The inputs of one Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Key {
    /// The oldest Service of a group speaks for it.
    pub(super) created: Option<Timestamp>,
    /// The addresses, in the order of the status.
    pub(super) ips: Vec<IpAddr>,
    /// The advertisements that reach the Service.
    pub(super) advertisements: Arc<[Arc<L2Advertisement>]>,
    /// The nodes with a usable endpoint, where the traffic policy demands one.
    pub(super) local: Option<BTreeSet<NodeName>>,
    /// The first reason against the Service as a whole.
    pub(super) refusal: Option<L2Reason>,
}

impl Key {
    pub(super) fn of(Holder { service, pool, ips }: Holder<'_>, endpoints: &[Endpoint]) -> Self {
        let advertisements: Arc<[Arc<L2Advertisement>]> = advertisements(pool, service).cloned().collect();
        let is_usable = endpoints.iter().any(Endpoint::is_usable);
        let is_selective = advertisements.iter().any(|ad| !ad.service_selectors.is_empty());
        let refusal = if !is_usable {
            Some(L2Reason::NoEndpoints)
        } else if advertisements.is_empty() {
            Some(L2Reason::NoMatchingAdvertisement)
        } else if is_selective && service.has_annotation(AnnotationKey::AllowSharedIp) {
            Some(L2Reason::SharedIpWithServiceSelector)
        } else {
            None
        };
        let usable = endpoints.iter().filter(|endpoint| endpoint.is_usable());
        let is_local = service.traffic_policy == TrafficPolicy::Local;
        let local = is_local.then(|| usable.filter_map(|endpoint| endpoint.node.clone()).collect());
        Self { created: service.created, ips: ips.to_vec(), advertisements, local, refusal }
    }

    /// The candidates of the Service without regard to others, or the first reason against it.
    pub(super) fn candidates(&self, set: &CandidateSet) -> Result<Arc<Electorate>, L2Reason> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let own = match &self.local {
            None => Arc::clone(set.electorate()),
            Some(local) => Arc::new(set.only(local)),
        };
        if own.is_empty() { Err(L2Reason::NoCandidate) } else { Ok(own) }
    }

    /// Whether a change of the candidate set can matter to the Service.
    pub(super) fn reads(&self, change: &SetChange) -> bool {
        self.refusal.is_none()
            && self.local.as_ref().is_none_or(|local| change.nodes().any(|node| local.contains(node)))
    }
}

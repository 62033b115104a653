//! Why a Service that has an address is not announced.

use crate::election::L2Reason;
use crate::model::NodeName;
use crate::routes::BgpReason;

/// The reasons that keep a Service from being announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAnnounced {
    /// Why no node answers for it on L2.
    pub l2: Option<L2Reason>,
    /// Why this node offers no routes for it.
    pub bgp: Option<BgpReason>,
}

impl NotAnnounced {
    /// The same in words, as `/status` shows it for `node`.
    #[must_use]
    pub fn sentences(&self, node: &NodeName) -> Vec<String> {
        let l2 = self.l2.map(|reason| format!("nobody answers: {}", reason.meaning()));
        let bgp = self.bgp.map(|reason| format!("nothing from {node}: {}", reason.meaning()));
        l2.into_iter().chain(bgp).collect()
    }
}

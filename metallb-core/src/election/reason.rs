//! Why a node may or may not answer, and why an election ended as it did: codes for machines, one sentence each for
//! people.

use crate::reason::reasons;

reasons! {
    /// Why a node is a candidate or not: the first reason in the order of `docs/upstream-behaviour.md#l2-election`.
    pub enum CandidateReason {
        /// The node may answer.
        Eligible,
        /// No speaker lives on the node.
        NoSpeaker,
        /// The node's condition `NetworkUnavailable` is true.
        NetworkUnavailable,
        /// The node carries the label `node.kubernetes.io/exclude-from-external-load-balancers`.
        ExcludedByLabel,
        /// No L2Advertisement for the Service selects the node.
        NotSelected,
        /// The traffic policy is Local and no usable endpoint runs on the node.
        NoLocalEndpoint,
        /// A Service that shares the address cannot be served from the node.
        NotForSharedIp,
    }

    /// Why an election ended as it did.
    pub enum L2Reason {
        /// A node was elected.
        Elected,
        /// The Service has no usable endpoint.
        NoEndpoints,
        /// No L2Advertisement reaches the pool and the Service.
        NoMatchingAdvertisement,
        /// The Service may share its address and an advertisement chooses by Service labels.
        SharedIpWithServiceSelector,
        /// No node is left after all conditions.
        NoCandidate,
        /// The node that answers for the shared address cannot serve this Service, and an address has one owner only.
        OwnedForSharingService,
    }
}

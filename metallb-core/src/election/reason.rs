//! Why a node may or may not answer, and why an election ended as it did: codes for machines, one sentence each for people.

use serde::Serialize;

macro_rules! reasons {
    ($(#[$head:meta])* $enum:ident { $(#[doc = $doc:literal] $name:ident)* }) => {
        $(#[$head])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[non_exhaustive]
        pub enum $enum {
            $(#[doc = $doc] $name,)*
        }

        impl $enum {
            /// All reasons with one sentence each.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $doc.trim_ascii_start())),*];

            /// The code, as machines read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// What speaks for or against a node; of several, the first in the contract's order (speaker §1.1).
    CandidateReason {
        /// The node may answer.
        Eligible
        /// No speaker lives on the node.
        NoSpeaker
        /// The node's condition `NetworkUnavailable` is true.
        NetworkUnavailable
        /// The node carries the label `node.kubernetes.io/exclude-from-external-load-balancers`.
        ExcludedByLabel
        /// No L2Advertisement for the Service selects the node.
        NotSelected
        /// The traffic policy is Local and no usable endpoint runs on the node.
        NoLocalEndpoint
        /// A Service that shares the address cannot be served from the node.
        NotForSharedIp
    }
}

reasons! {
    /// Why an election ended as it did.
    L2Reason {
        /// A node was elected.
        Elected
        /// The Service has no usable endpoint.
        NoEndpoints
        /// No L2Advertisement reaches the pool and the Service.
        NoMatchingAdvertisement
        /// The Service may share its address and an advertisement chooses by Service labels.
        SharedIpWithServiceSelector
        /// No node is left after all conditions.
        NoCandidate
        /// The node that answers for the shared address cannot serve this Service, and an address has one owner only.
        OwnedForSharingService
    }
}

//! Why a Service has what it has: stable codes, and the refusals that they come from.

use std::net::IpAddr;

use thiserror::Error;

use super::{ServiceFamily, WishError};
use crate::allocator::{AllocateError, NotAllowedCause, PoolVerdict, quoted};
use crate::model::IpFamily;
use crate::reason::reasons;

reasons! {
    /// The stable reasons of assignments.
    pub enum AssignReason {
        /// The Service got its addresses just now.
        Assigned,
        /// The Service keeps the addresses of its status.
        Kept,
        /// The Service keeps its address although what it asks for cannot be understood.
        KeptInvalidRequest,
        /// The Service keeps its address: its pool exists, but is invalid or cannot be read.
        KeptPoolInvalid,
        /// The Service keeps its address: its pool was deleted a short time ago and may be created again.
        KeptPoolMissing,
        /// The Service keeps an address that is also the address of a node. It is not announced.
        KeptNodeAddress,
        /// The Service is not of type LoadBalancer.
        NotLoadBalancer,
        /// The Service belongs to another load balancer class.
        OtherClass,
        /// There is no pool at all.
        NoPools,
        /// The cluster addresses of the Service do not tell its family.
        UnknownFamily,
        /// `RequireDualStack` with fewer than two cluster addresses.
        NotEnoughClusterIps,
        /// Two cluster addresses with a policy that allows only one family.
        PolicyForbidsDualStack,
        /// What the Service asks for cannot be understood.
        InvalidRequest,
        /// The addresses asked for are not of the Service's families.
        RequestedFamilyMismatch,
        /// The addresses asked for are not in the pool asked for.
        RequestedPoolMismatch,
        /// The pool asked for does not exist.
        UnknownPool,
        /// The pool does not serve this Service.
        PoolNotCompatible,
        /// The addresses asked for are in no pool, or not in one.
        NotInPools,
        /// The pool avoids an address asked for, because it ends in `.0` or `.255`.
        AvoidedAddress,
        /// The addresses asked for are not one, or one of each family.
        InvalidAddressSet,
        /// Another Service holds the address and does not share it.
        AddressInUse,
        /// Another Service uses the same port on the shared address.
        PortInUse,
        /// A Service holds the address that belongs to another load balancer class, has cluster IPs of no known family,
        /// or keeps it while its pool is invalid or missing.
        HeldByOtherClass,
        /// The Service that had the address asked for gives it up, and its status still has to be written.
        AddressBeingReleased,
        /// The address asked for is the address of a node.
        NodeAddress,
        /// A host outside of the cluster uses the address asked for.
        Quarantined,
        /// The Service got other addresses because a host outside of the cluster uses one that it had.
        MovedFromQuarantine,
        /// A host outside of the cluster uses an address of the Service, which keeps it: it asks for it, or there is no
        /// other.
        KeptInQuarantine,
        /// The pool asked for has nothing left.
        PoolExhausted,
        /// No pool has what is needed.
        NoAvailableIps,
    }
}

/// Why a Service gets nothing.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum Refusal {
    #[error(transparent)]
    Wish(#[from] WishError),
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    #[error(
        "requested loadBalancer IP(s) {} does not match the ipFamily of the service: {}",
        quoted(.ips), needed(*.family)
    )]
    Family { ips: Vec<IpAddr>, family: ServiceFamily },
    #[error("requested loadBalancer IP(s) {} is not compatible with requested address pool {pool}", quoted(.ips))]
    Pool { ips: Vec<IpAddr>, pool: String },
    #[error("no available IPs: the Service has two cluster IPs but its ipFamilyPolicy allows one family")]
    Policy,
}

impl Refusal {
    /// The stable reason.
    pub(super) fn reason(&self) -> AssignReason {
        match self {
            Self::Wish(_) => AssignReason::InvalidRequest,
            Self::Family { .. } => AssignReason::RequestedFamilyMismatch,
            Self::Pool { .. } => AssignReason::RequestedPoolMismatch,
            Self::Policy => AssignReason::PolicyForbidsDualStack,
            Self::Allocate(error) => match error {
                AllocateError::UnknownPool { .. } => AssignReason::UnknownPool,
                AllocateError::NotAllowed { cause: NotAllowedCause::Avoided(_), .. } => AssignReason::AvoidedAddress,
                AllocateError::NotAllowed { .. } => AssignReason::NotInPools,
                AllocateError::BadSet(_) => AssignReason::InvalidAddressSet,
                AllocateError::NotCompatible { .. } => AssignReason::PoolNotCompatible,
                AllocateError::InUse { .. } => AssignReason::AddressInUse,
                AllocateError::PortInUse { .. } => AssignReason::PortInUse,
                AllocateError::Blocked { .. } => AssignReason::HeldByOtherClass,
                AllocateError::Releasing { .. } => AssignReason::AddressBeingReleased,
                AllocateError::NodeAddress { .. } => AssignReason::NodeAddress,
                AllocateError::Quarantined { .. } => AssignReason::Quarantined,
                AllocateError::PoolExhausted { .. } => AssignReason::PoolExhausted,
                AllocateError::Exhausted { .. } => AssignReason::NoAvailableIps,
            },
        }
    }

    /// The pools that were looked at, in order, and why each was refused.
    pub(super) fn verdicts(&self) -> Vec<PoolVerdict> {
        match self {
            Self::Allocate(AllocateError::Exhausted { verdicts }) => verdicts.clone(),
            Self::Allocate(
                AllocateError::PoolExhausted { pool, refusal, .. } | AllocateError::NotCompatible { pool, refusal },
            ) => vec![PoolVerdict { pool: pool.clone(), refusal: *refusal }],
            _ => Vec::new(),
        }
    }
}

/// The addresses that a Service of these families can request, as text.
fn needed(family: ServiceFamily) -> &'static str {
    match family {
        ServiceFamily::Single(IpFamily::V4) => "the Service has IPv4 cluster IPs only, so ask for one IPv4 address",
        ServiceFamily::Single(IpFamily::V6) => "the Service has IPv6 cluster IPs only, so ask for one IPv6 address",
        ServiceFamily::Dual => "the Service has cluster IPs of both families, so ask for one address of each",
    }
}

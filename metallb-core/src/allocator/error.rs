//! Why an address is not given.

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use super::{FamilyDemand, PoolRefusal, PoolVerdict, SharingMismatch};
use crate::config::ALLOW_NODE_ADDRESSES;
use crate::model::{NodeName, PoolName, ServiceKey, ServicePort};
use crate::spelling::hint;

/// Why a request is refused. The texts are upstream's (`docs/upstream-behaviour.md#events`).
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AllocateError {
    /// No pool has what is needed.
    #[error("no available IPs")]
    Exhausted {
        /// Every pool that was looked at, in order, and why it was refused.
        verdicts: Vec<PoolVerdict>,
    },
    /// The pool that was asked for has nothing left.
    #[error("no available IPs in pool {pool}{}", demand_suffix(*.demand))]
    PoolExhausted {
        /// The pool.
        pool: PoolName,
        /// The families that were needed.
        demand: FamilyDemand,
        /// The reason.
        refusal: PoolRefusal,
    },
    /// There is no pool of this name.
    #[error("unknown pool {}{}", crate::spelling::quoted(.name), hint(.nearest.as_ref().map(PoolName::as_str)))]
    UnknownPool {
        /// The name asked for.
        name: String,
        /// The pool that was probably meant.
        nearest: Option<PoolName>,
    },
    /// No pool grants these addresses.
    #[error("{} is not allowed in config", quoted(.ips))]
    NotAllowed {
        /// The addresses asked for.
        ips: Vec<IpAddr>,
        /// Why no pool grants them.
        cause: NotAllowedCause,
    },
    /// The pool is not for this Service.
    #[error("pool {pool} not compatible for ip assignment")]
    NotCompatible {
        /// The pool.
        pool: PoolName,
        /// Why it is not.
        refusal: PoolRefusal,
    },
    /// Another Service holds the address and does not share it.
    #[error("can't change sharing key for \"{service}\", address also in use by {}: {mismatch}", joined(.holders))]
    InUse {
        /// The asker.
        service: ServiceKey,
        /// The address.
        ip: IpAddr,
        /// The holder.
        holders: Vec<ServiceKey>,
        /// The difference that keeps them from sharing.
        mismatch: SharingMismatch,
    },
    /// Another Service uses the port on the address.
    #[error("port {port} is already in use on \"{ip}\" by {holder}")]
    PortInUse {
        /// The address.
        ip: IpAddr,
        /// The port.
        port: ServicePort,
        /// The user of the port.
        holder: ServiceKey,
    },
    /// A Service that is not handled here holds the address.
    #[error(
        "\"{ip}\" is in use by {holder}, which belongs to another load balancer class, has cluster IPs of no known \
         family or keeps the address while its pool is invalid or missing"
    )]
    Blocked {
        /// The address.
        ip: IpAddr,
        /// The holder.
        holder: ServiceKey,
    },
    /// Another Service gave the address up, and the API still shows it there, or may come to show it.
    #[error("\"{ip}\" is being released by {holder}, whose status still has to be written")]
    Releasing {
        /// The address.
        ip: IpAddr,
        /// The Service that gives it up.
        holder: ServiceKey,
    },
    /// The address is also the address of a node.
    #[error(
        "\"{ip}\" is an address of node {node}; if it is meant to be assigned, set the annotation \
         {ALLOW_NODE_ADDRESSES}: \"true\" on the IPAddressPool"
    )]
    NodeAddress {
        /// The address.
        ip: IpAddr,
        /// The node.
        node: NodeName,
    },
    /// A host outside of the cluster uses the address.
    #[error("\"{ip}\" is in use by a host outside of the cluster, {mac}")]
    Quarantined {
        /// The address.
        ip: IpAddr,
        /// The host.
        mac: Arc<str>,
    },
    /// Not one address, and not one of each family.
    #[error("{} can't be held together: one address, or one of each family", quoted(.0))]
    BadSet(Vec<IpAddr>),
}

/// Why no pool grants some addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NotAllowedCause {
    /// One of them is in no pool.
    NoPool,
    /// They are in different pools.
    SeveralPools,
    /// The pool avoids one of them, because it ends in `.0` or `.255`.
    Avoided(PoolName),
}

/// A list of addresses as upstream prints it: `["1.2.3.0" "1000::"]`.
#[must_use]
pub fn quoted(ips: &[IpAddr]) -> String {
    let texts: Vec<String> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
    format!("[{}]", texts.join(" "))
}

fn joined(holders: &[ServiceKey]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn demand_suffix(demand: FamilyDemand) -> &'static str {
    match demand {
        FamilyDemand::Both | FamilyDemand::PreferBoth { .. } => " for dual IPFamily",
        FamilyDemand::V4 => " for ipv4 IPFamily",
        FamilyDemand::V6 => " for ipv6 IPFamily",
    }
}

//! Negotiation: the common capabilities of two OPEN messages.

use std::time::Duration;

use super::SessionConfig;
use crate::types::{Asn, Family, RouterId};
use crate::wire::iana::OpenSubcode;
use crate::wire::notification::Notification;
use crate::wire::open::Open;

/// What a session has negotiated, once the peer's OPEN was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Negotiated {
    /// The peer's AS number.
    pub remote_asn: Asn,
    /// The peer's BGP identifier.
    pub remote_router_id: RouterId,
    /// Whether both ends are in the same autonomous system.
    pub internal: bool,
    /// The smaller of both proposed hold times; zero disables keepalives and the hold timer.
    pub hold_time: Duration,
    /// Families that both ends support.
    pub families: Vec<Family>,
    /// Whether the peer supports four-octet AS numbers (RFC 6793).
    pub four_octet_asn: bool,
    /// Whether the peer supports route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Whether IPv4 prefixes have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether both ends support enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// Whether both ends support messages of up to 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Whether the peer keeps the routes while this speaker restarts (RFC 4724).
    pub graceful_restart: bool,
    /// Whether the peer also keeps the routes after a NOTIFICATION, except for a Hard Reset (RFC 8538).
    pub hard_reset: bool,
    /// Whether the peer may itself restart gracefully.
    pub peer_restarts: bool,
}

/// Checks the peer's OPEN and computes the common capabilities.
///
/// # Errors
/// The peer is not the configured one; the error is the NOTIFICATION to send.
pub(super) fn negotiate(config: &SessionConfig, router_id: RouterId, open: &Open) -> Result<Negotiated, Notification> {
    if !config.remote.accepts(open.asn, config.asn) {
        return Err(Notification::new(OpenSubcode::BadPeerAs, &[]));
    }
    let internal = open.asn == config.asn;
    // RFC 6286 §2.2: identifiers must differ only within an autonomous system.
    if internal && open.router_id == router_id {
        return Err(Notification::new(OpenSubcode::BadBgpIdentifier, &open.router_id.0.octets()));
    }
    let theirs = &open.capabilities;
    let restart = theirs.graceful_restart.as_ref().filter(|_| config.graceful_restart);
    let carries = |family: Family| match theirs.families.is_empty() {
        // A peer without multiprotocol capabilities supports IPv4 unicast (RFC 4760 §8); one that names other families
        // only supports none of ours.
        true => family == Family::Ipv4 && !theirs.other_families,
        false => theirs.families.contains(&family),
    };
    Ok(Negotiated {
        remote_asn: open.asn,
        remote_router_id: open.router_id,
        internal,
        hold_time: config.hold_time.min(Duration::from_secs(open.hold_time.into())),
        families: config.families.iter().copied().filter(|family| carries(*family)).collect(),
        four_octet_asn: theirs.four_octet_asn,
        route_refresh: theirs.route_refresh,
        extended_next_hop: theirs.extended_next_hop,
        enhanced_refresh: theirs.enhanced_refresh && theirs.route_refresh,
        extended_messages: config.extended_messages && theirs.extended_message,
        graceful_restart: restart.is_some(),
        hard_reset: restart.is_some_and(|restart| restart.notification),
        peer_restarts: restart.is_some_and(|restart| restart.restart_time > 0 || !restart.preserved.is_empty()),
    })
}

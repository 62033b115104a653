//! Parses received frames into requests and claims. It has no state and does not decide who owns an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::interface::{Interface, MacAddr};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp::{Checksum, Message, NdpError, Override, Solicitation};
use crate::wire::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet, Frame};

/// The meaning of a received frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Parsed {
    /// The Ethernet source address.
    pub(crate) sender: MacAddr,
    /// The IP address that the sender uses, and the hardware address it gives for it.
    pub(crate) claim: Option<Claim>,
    /// The request, or the reason why the frame is not one that can be answered.
    pub request: Result<Request, DropReason>,
    /// Whether the sender hardware address of an ARP message differs from the Ethernet source.
    pub(crate) mismatched: bool,
}

impl Parsed {
    /// The address that the sender probes for, if the frame is an ARP probe (RFC 5227 §2.1.1). A probe by NDP is a
    /// claim already (RFC 4862 §5.4.3).
    pub(crate) fn probe(&self) -> Option<Claim> {
        match self.request {
            Ok(Request::Arp(arp)) if arp.sender_protocol.is_unspecified() => {
                Some(Claim { ip: arp.target_protocol.into(), mac: arp.sender_hardware })
            }
            _ => None,
        }
    }
}

/// An IP address that another host uses or is about to use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The IP address.
    pub(crate) ip: IpAddr,
    /// The hardware address that belongs to it.
    pub(crate) mac: MacAddr,
}

/// A request for the hardware address of an IP address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// An ARP request.
    Arp(Arp),
    /// A neighbour solicitation and the Ethernet source of its frame.
    Ndp(Solicitation, MacAddr),
}

/// Why a received frame gets no reply.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// The frame is shorter than its headers, or its length fields contradict each other.
    Malformed,
    /// The frame carries a VLAN tag and therefore belongs to another interface.
    Vlan,
    /// The frame is neither ARP nor a neighbour solicitation or advertisement.
    OtherMessage,
    /// An ARP message with an opcode other than request.
    ArpReply,
    /// A gratuitous ARP request: it announces the sender's address.
    Gratuitous,
    /// The destination hardware address is not one that this interface receives.
    EthernetDestination,
    /// The IPv6 destination of a solicitation is neither the target, its solicited-node group nor an address of this
    /// host.
    IpDestination,
    /// The frame was sent by this host, or names one of its hardware addresses as sender.
    OwnFrame,
    /// A neighbour advertisement.
    Advertisement,
    /// The IPv6 hop limit is not 255, so the message came through a router (RFC 4861 §7.1).
    HopLimit,
    /// The ICMPv6 checksum is wrong.
    Checksum,
    /// The message fails another check of RFC 4861 §7.1.
    InvalidSolicitation,
    /// The hardware or IP address of the sender cannot be the address of one host.
    BadSender,
    /// The requested address is not announced by this engine.
    AnnounceIp,
    /// The requested address is announced, but not on this interface.
    NotMatchInterface,
    /// The interface is unknown, or is not used for this address family.
    Interface,
    /// The requested address is still being probed for, or another host has it.
    Probing,
    /// The requested address must not be announced, see [`ForeignAddress`](crate::interface::ForeignAddress).
    ForeignAddress,
    /// The sender, or all senders together, exceed the rate limit.
    RateLimited,
}

impl DropReason {
    /// All reasons in the order of the variants.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::Vlan,
        Self::OtherMessage,
        Self::ArpReply,
        Self::Gratuitous,
        Self::EthernetDestination,
        Self::IpDestination,
        Self::OwnFrame,
        Self::Advertisement,
        Self::HopLimit,
        Self::Checksum,
        Self::InvalidSolicitation,
        Self::BadSender,
        Self::AnnounceIp,
        Self::NotMatchInterface,
        Self::Interface,
        Self::Probing,
        Self::ForeignAddress,
        Self::RateLimited,
    ];
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Request {
    /// The requested address.
    #[must_use]
    pub(crate) const fn ip(&self) -> IpAddr {
        match self {
            Self::Arp(arp) => IpAddr::V4(arp.target_protocol),
            Self::Ndp(solicitation, _) => IpAddr::V6(solicitation.target),
        }
    }

    /// The reply of an interface; `None` if it has no IPv6 link-local address to reply from.
    #[must_use]
    pub(crate) fn reply(&self, interface: &Interface, caches: Override) -> Option<Frame> {
        match self {
            Self::Arp(arp) => Some(arp.reply(interface.mac)),
            Self::Ndp(solicitation, source) => {
                Some(solicitation.reply(interface.mac, interface.link_local?, *source, caches))
            }
        }
    }
}

/// Parses a frame that `interface` received. `is_ours` recognises the hardware addresses of this host.
///
/// # Errors
/// The reason why the frame is neither a request nor a claim.
pub(crate) fn parse(
    frame: &[u8],
    checksum: Checksum,
    interface: &Interface,
    is_ours: impl Fn(MacAddr) -> bool,
) -> Result<Parsed, DropReason> {
    let ethernet = Ethernet::decode(frame).ok_or(DropReason::Malformed)?;
    if ethernet.destination != interface.mac && !ethernet.destination.is_multicast() {
        return Err(DropReason::EthernetDestination);
    }
    if is_ours(ethernet.source) {
        return Err(DropReason::OwnFrame);
    }
    let parsed = match ethernet.ethertype {
        ETHERTYPE_ARP => parse_arp(&ethernet, interface)?,
        ETHERTYPE_IPV6 => parse_ndp(&ethernet, checksum, interface)?,
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => return Err(DropReason::Vlan),
        _ => return Err(DropReason::OtherMessage),
    };
    // A message that names one of our hardware addresses as its sender is our own or forged.
    let names_us = match parsed.request {
        Ok(Request::Arp(arp)) => is_ours(arp.sender_hardware),
        _ => parsed.claim.is_some_and(|claim| is_ours(claim.mac)),
    };
    if names_us { Err(DropReason::OwnFrame) } else { Ok(parsed) }
}

fn parse_arp(ethernet: &Ethernet<'_>, interface: &Interface) -> Result<Parsed, DropReason> {
    if !interface.arp {
        return Err(DropReason::Interface);
    }
    if ethernet.destination.is_multicast() && ethernet.destination != MacAddr::BROADCAST {
        return Err(DropReason::EthernetDestination);
    }
    let arp = Arp::decode(ethernet.payload).ok_or(DropReason::Malformed)?;
    if !arp.sender_hardware.is_unicast() || !ethernet.source.is_unicast() || !can_send(arp.sender_protocol) {
        return Err(DropReason::BadSender);
    }
    let claims =
        matches!(arp.operation, Operation::Request | Operation::Reply) && !arp.sender_protocol.is_unspecified();
    let request = match arp.operation {
        Operation::Request if arp.sender_protocol == arp.target_protocol => Err(DropReason::Gratuitous),
        Operation::Request => Ok(Request::Arp(arp)),
        Operation::Reply | Operation::Other(_) => Err(DropReason::ArpReply),
    };
    Ok(Parsed {
        sender: ethernet.source,
        claim: claims.then(|| Claim { ip: arp.sender_protocol.into(), mac: arp.sender_hardware }),
        request,
        mismatched: arp.sender_hardware != ethernet.source,
    })
}

fn parse_ndp(ethernet: &Ethernet<'_>, checksum: Checksum, interface: &Interface) -> Result<Parsed, DropReason> {
    if interface.link_local.is_none() {
        return Err(DropReason::Interface);
    }
    if !ethernet.source.is_unicast() {
        return Err(DropReason::BadSender);
    }
    let message = Message::decode(ethernet.payload, checksum).map_err(|error| match error {
        NdpError::Malformed => DropReason::Malformed,
        NdpError::OtherMessage => DropReason::OtherMessage,
        NdpError::HopLimit => DropReason::HopLimit,
        NdpError::Checksum => DropReason::Checksum,
        NdpError::BadSource => DropReason::BadSender,
        NdpError::Code
        | NdpError::MulticastTarget
        | NdpError::BadOption
        | NdpError::BadProbe
        | NdpError::SolicitedToGroup => DropReason::InvalidSolicitation,
    })?;
    let (ip, mac, request) = match message {
        Message::Advertisement(advertisement) => {
            (advertisement.target, advertisement.target_link_layer, Err(DropReason::Advertisement))
        }
        Message::Solicitation(solicitation) => {
            let (source, link_layer) = (solicitation.source, solicitation.source_link_layer);
            if link_layer.is_some_and(|mac| !mac.is_unicast()) {
                return Err(DropReason::BadSender);
            }
            // A host that probes for an address is about to take it.
            let claimed = if source.is_unspecified() { solicitation.target } else { source };
            (claimed, link_layer, Ok(Request::Ndp(solicitation, ethernet.source)))
        }
    };
    let claim = Claim { ip: ip.into(), mac: mac.unwrap_or(ethernet.source) };
    Ok(Parsed { sender: ethernet.source, claim: Some(claim), request, mismatched: false })
}

/// Whether an address is valid as a sender address; that of a probe is 0.0.0.0 (RFC 5227 §2.1.1).
const fn can_send(ip: Ipv4Addr) -> bool {
    !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
}

//! What a received frame says: the address it asks for, and the address it claims to have. No state, no decision about ownership.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::interface::{Interface, MacAddr};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp::{Checksum, Message, NdpError, Solicitation};
use crate::wire::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet, Frame};

/// What a frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Parsed {
    /// The sender of the frame.
    pub(crate) sender: MacAddr,
    /// The address that the sender says is its own.
    pub(crate) claim: Option<Claim>,
    /// The address it asks for, or why the frame is no question to answer.
    pub question: Result<Request, DropReason>,
    /// The hardware address inside an ARP message is not the one that sent the frame.
    pub(crate) mismatched: bool,
}

impl Parsed {
    /// The sender and the address it is about to take, if it probes for one by ARP. Neighbour discovery makes that a claim.
    #[must_use]
    pub(crate) fn conflicting_probe(&self) -> Option<Claim> {
        match self.question {
            Ok(Request::Arp(arp)) if arp.sender_protocol.is_unspecified() => {
                Some(Claim { ip: arp.target_protocol.into(), mac: arp.sender_hardware })
            }
            _ => None,
        }
    }
}

/// "This address is mine", said by another host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The address.
    pub(crate) ip: IpAddr,
    /// Whose it is said to be.
    pub(crate) mac: MacAddr,
}

/// "Who has this address?"
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// An ARP request.
    Arp(Arp),
    /// A neighbour solicitation, and the source of its frame.
    Ndp(Solicitation, MacAddr),
}

/// Why a frame gets no answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// Shorter than its headers, or lengths that contradict each other.
    Malformed,
    /// It belongs to a VLAN, so to another interface.
    Vlan,
    /// Neither ARP nor a neighbour solicitation.
    OtherMessage,
    /// An ARP reply or another opcode.
    ArpReply,
    /// An announcement of the sender's own address, not a question.
    Gratuitous,
    /// Sent to another host.
    EthernetDestination,
    /// Sent by ourselves.
    OwnFrame,
    /// A neighbour advertisement.
    Advertisement,
    /// It came through a router.
    HopLimit,
    /// The checksum is wrong.
    Checksum,
    /// Not valid by RFC 4861 §7.1 for another reason.
    InvalidSolicitation,
    /// The sender's hardware or protocol address cannot be one host's.
    BadSender,
    /// We do not answer for the address.
    AnnounceIp,
    /// We answer for the address, but not on this interface.
    NotMatchInterface,
    /// The interface is unknown, or does not do this family.
    Interface,
    /// The address becomes ours once it is certain that nobody has it.
    Probing,
    /// The address is ours to announce, and something speaks against it, see [`ForeignAddress`](crate::foreign::ForeignAddress).
    ForeignAddress,
    /// The sender, or all senders together, ask more often than the limit allows.
    RateLimited,
}

impl DropReason {
    /// All reasons, in their order.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::Vlan,
        Self::OtherMessage,
        Self::ArpReply,
        Self::Gratuitous,
        Self::EthernetDestination,
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
    /// The address asked for.
    #[must_use]
    pub(crate) const fn ip(&self) -> IpAddr {
        match self {
            Self::Arp(arp) => IpAddr::V4(arp.target_protocol),
            Self::Ndp(asked, _) => IpAddr::V6(asked.target),
        }
    }

    /// The answer of an interface; `None` when it has no address to answer NDP from.
    #[must_use]
    pub(crate) fn reply(&self, interface: &Interface) -> Option<Frame> {
        match self {
            Self::Arp(arp) => Some(arp.reply(interface.mac)),
            Self::Ndp(asked, asker) => Some(asked.reply(interface.mac, interface.link_local?, *asker)),
        }
    }
}

/// Reads a frame that `interface` received. `is_ours` tells hardware addresses of this host.
///
/// # Errors
/// Why the frame says nothing of interest.
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
    // A host that pretends to be us inside the message is not worth a word.
    let pretends = match parsed.question {
        Ok(Request::Arp(arp)) => is_ours(arp.sender_hardware),
        _ => parsed.claim.is_some_and(|claim| is_ours(claim.mac)),
    };
    if pretends { Err(DropReason::OwnFrame) } else { Ok(parsed) }
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
    let question = match arp.operation {
        Operation::Request if arp.sender_protocol == arp.target_protocol => Err(DropReason::Gratuitous),
        Operation::Request => Ok(Request::Arp(arp)),
        Operation::Reply | Operation::Other(_) => Err(DropReason::ArpReply),
    };
    Ok(Parsed {
        sender: ethernet.source,
        claim: claims.then(|| Claim { ip: arp.sender_protocol.into(), mac: arp.sender_hardware }),
        question,
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
        NdpError::MulticastSource => DropReason::BadSender,
        NdpError::Code
        | NdpError::MulticastTarget
        | NdpError::BadOption
        | NdpError::BadProbe
        | NdpError::SolicitedToGroup => DropReason::InvalidSolicitation,
    })?;
    let (ip, mac, question) = match message {
        Message::Advertisement(advertisement) => {
            (advertisement.target, advertisement.target_link_layer, Err(DropReason::Advertisement))
        }
        Message::Solicitation(asked) => {
            if asked.source_link_layer.is_some_and(|mac| !mac.is_unicast()) {
                return Err(DropReason::BadSender);
            }
            // Who probes for an address is about to take it.
            let claimed = if asked.source.is_unspecified() { asked.target } else { asked.source };
            (claimed, asked.source_link_layer, Ok(Request::Ndp(asked, ethernet.source)))
        }
    };
    let claim = Claim { ip: ip.into(), mac: mac.unwrap_or(ethernet.source) };
    Ok(Parsed { sender: ethernet.source, claim: Some(claim), question, mismatched: false })
}

/// Whether an address can be a sender's; that of a probe is 0.0.0.0 (RFC 5227 §2.1.1).
const fn can_send(ip: Ipv4Addr) -> bool {
    !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
}

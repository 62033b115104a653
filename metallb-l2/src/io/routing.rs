//! Devices and addresses from routing netlink, framed by `netlink-packet-core` and read with `netlink-sys`.
//!
//! Only the attributes that matter are parsed, one by one. An attribute that a newer kernel encodes differently is
//! ignored and does not hide the whole device.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    DecodeError, Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator, Parseable as _,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkLayerType, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::sys;
use crate::interface::MacAddr;
use crate::links::{Change, Controller, Link};

/// Receives all changes of devices and addresses since it was opened, and notices of changed default routes.
pub(super) struct RouteMonitor {
    socket: Socket,
    buffer: Vec<u8>,
}

/// How reading netlink messages ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReadOutcome {
    /// All messages were read.
    Complete,
    /// The kernel dropped messages: all devices have to be listed again.
    Overrun,
}

impl RouteMonitor {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        sys::attach_default_route_filter(&socket)?;
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let groups = libc::RTMGRP_LINK | addresses | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        socket.bind(&SocketAddr::new(0, groups as u32))?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    /// Passes all waiting changes to `each`.
    ///
    /// # Errors
    /// The socket can no longer be read.
    pub(super) fn read(&mut self, mut each: impl FnMut(Change)) -> io::Result<ReadOutcome> {
        let mut outcome = ReadOutcome::Complete;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) if outcome == ReadOutcome::Overrun => {}
                Ok(_) => changes(&self.buffer).for_each(&mut each),
                // Later messages are older than the list that follows, so they are discarded.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => outcome = ReadOutcome::Overrun,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if sys::is_transient(&error) => return Ok(outcome),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for RouteMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lists all devices and addresses as changes.
///
/// # Errors
/// The kernel refuses the request, or the interfaces change faster than they can be listed.
pub(super) fn list() -> io::Result<Vec<Change>> {
    let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut all = dump::<LinkChange>(&links)?;
    let mut addresses = AddressMessage::default();
    addresses.header.family = AddressFamily::Inet;
    all.extend(dump::<LinkChange>(&RouteNetlinkMessage::GetAddress(addresses.clone()))?);
    addresses.header.family = AddressFamily::Inet6;
    // A kernel without IPv6 refuses the request.
    all.extend(dump::<LinkChange>(&RouteNetlinkMessage::GetAddress(addresses)).unwrap_or_default());
    Ok(all)
}

/// Lists all objects of a kind, parsed as `T`.
///
/// # Errors
/// As [`list`].
pub(super) fn dump<T>(request: &RouteNetlinkMessage) -> io::Result<Vec<T::Item>>
where
    T: NetlinkDeserializable + IntoIterator,
{
    for _ in 0..ATTEMPTS {
        if let Some(found) = dump_once::<T>(request.clone())? {
            return Ok(found);
        }
    }
    Err(io::Error::other("the interfaces change faster than they can be listed"))
}

/// Returns `None` if the list was interrupted by a change and may be incomplete.
fn dump_once<T>(request: RouteNetlinkMessage) -> io::Result<Option<Vec<T::Item>>>
where
    T: NetlinkDeserializable + IntoIterator,
{
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    let mut interrupted = false;
    let mut buffer = Vec::with_capacity(DATAGRAM_MAX);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in messages::<T>(&buffer) {
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(parsed) => found.extend(parsed),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

/// The changes in a datagram.
fn changes(datagram: &[u8]) -> impl Iterator<Item = Change> {
    messages::<LinkChange>(datagram).filter_map(|message| match message.payload {
        NetlinkPayload::InnerMessage(LinkChange(change)) => change,
        _ => None,
    })
}

/// The messages in a datagram, up to the first malformed one.
fn messages<T: NetlinkDeserializable>(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<T>> {
    std::iter::from_fn(move || {
        let message = NetlinkMessage::<T>::deserialize(datagram).ok()?;
        let length = usize::try_from(message.header.length).ok()?.next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// The change that a message reports; most messages report none.
#[derive(Debug)]
struct LinkChange(Option<Change>);

impl IntoIterator for LinkChange {
    type Item = Change;
    type IntoIter = std::option::IntoIter<Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl NetlinkDeserializable for LinkChange {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(match header.message_type {
            libc::RTM_NEWLINK => link(payload, false),
            libc::RTM_DELLINK => link(payload, true),
            libc::RTM_NEWADDR => address(payload, false),
            libc::RTM_DELADDR => address(payload, true),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Change::DefaultRoutes),
            _ => None,
        }))
    }
}

fn link(payload: &[u8], gone: bool) -> Option<Change> {
    let header = LinkHeader::parse(payload).ok()?;
    // Messages of one family describe the role of a device in it. A port that leaves its bridge is reported by a
    // deletion of family AF_BRIDGE, but the device still exists.
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    if gone {
        return Some(Change::LinkGone(header.index));
    }
    let (mut name, mut mac, mut controller, mut port_kind) = (None, None, None, None);
    for attribute in NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok) {
        match attribute.kind() {
            libc::IFLA_IFNAME => name = text(attribute.value()).map(Into::into),
            libc::IFLA_ADDRESS => mac = attribute.value().try_into().ok().map(MacAddr),
            libc::IFLA_MASTER => controller = attribute.value().try_into().ok().map(u32::from_ne_bytes),
            libc::IFLA_LINKINFO => {
                let mut inside = NlasIterator::new(attribute.value()).map_while(Result::ok);
                port_kind = inside.find(|inner| inner.kind() == libc::IFLA_INFO_SLAVE_KIND).map(|k| k.value().to_vec());
            }
            _ => {}
        }
    }
    let has = |flags: LinkFlags| header.flags.contains(flags);
    Some(Change::Link(Link {
        index: header.index,
        // A message without a name does not describe the whole device.
        name: name?,
        mac: mac.filter(|mac| header.link_layer_type == LinkLayerType::Ether && mac.is_unicast()),
        running: has(LinkFlags::Up | LinkFlags::Running),
        broadcast: has(LinkFlags::Broadcast),
        uses_arp: !header.flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp),
        controller: match (controller, port_kind.as_deref().and_then(text)) {
            (None | Some(0), _) => Controller::None,
            (Some(_), Some("vrf")) => Controller::Vrf,
            (Some(_), _) => Controller::Device,
        },
    }))
}

fn address(payload: &[u8], gone: bool) -> Option<Change> {
    let header = AddressHeader::parse(payload).ok()?;
    let attributes = NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok);
    let (mut address, mut local) = (None, None);
    for attribute in attributes.filter_map(|attribute| AddressAttribute::parse(&attribute).ok()) {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(ip),
            // On a point-to-point link IFA_ADDRESS is the address of the peer.
            AddressAttribute::Local(ip) => local = Some(ip),
            _ => {}
        }
    }
    let (index, ip) = (header.index, local.or(address)?);
    if let IpAddr::V6(ip) = ip
        && ip.is_unicast_link_local()
    {
        let unproven = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
        return Some(match gone {
            true => Change::LinkLocalGone { index, ip },
            false => Change::LinkLocal { index, ip, usable: !header.flags.intersects(unproven) },
        });
    }
    // On a point-to-point link the prefix length is that of the peer's network.
    let prefix = if address == Some(ip) { header.prefix_len } else { u8::MAX };
    Some(match gone {
        true => Change::AddressGone { index, ip, prefix },
        false => Change::Address { index, ip, prefix },
    })
}

/// A string with a terminating zero byte.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}

/// The size of the receive buffer, enough for messages about 2,000 devices. When it overflows, all devices are listed.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The longest datagram that the kernel sends.
const DATAGRAM_MAX: usize = 64 << 10;
/// The number of attempts to list objects without interruption.
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{InfoPortKind, LinkAttribute, LinkInfo};

    use std::net::Ipv6Addr;

    use super::*;

    fn parsed(message: RouteNetlinkMessage) -> Vec<Change> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        changes(&bytes).collect()
    }

    fn link_message(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 4;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = flags;
        message.attributes = [LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1])]
            .into_iter()
            .chain(attributes)
            .collect();
        message
    }

    fn usual() -> LinkFlags {
        LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp | LinkFlags::Broadcast | LinkFlags::Multicast
    }

    fn described(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> Link {
        match parsed(RouteNetlinkMessage::NewLink(link_message(flags, attributes))).as_slice() {
            [Change::Link(link)] => link.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn link_message_is_parsed_into_a_device() {
        let expected = Link {
            index: 4,
            name: "eth0".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            running: true,
            broadcast: true,
            uses_arp: true,
            controller: Controller::None,
        };
        assert_eq!(described(usual(), vec![LinkAttribute::Mtu(1500)]), expected);
        let no_carrier = usual() - LinkFlags::Running - LinkFlags::LowerUp;
        assert_eq!(described(no_carrier, vec![]), Link { running: false, ..expected.clone() });
        assert_eq!(described(usual() | LinkFlags::Noarp, vec![]), Link { uses_arp: false, ..expected.clone() });
        let kind = |kind| vec![LinkAttribute::Controller(9), LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)])];
        for (attributes, controller) in [
            (kind(InfoPortKind::Bridge), Controller::Device),
            (kind(InfoPortKind::Bond), Controller::Device),
            (kind(InfoPortKind::Vrf), Controller::Vrf),
            (vec![LinkAttribute::Controller(9)], Controller::Device),
            (vec![LinkAttribute::Controller(0)], Controller::None),
        ] {
            assert_eq!(described(usual(), attributes), Link { controller, ..expected.clone() });
        }
    }

    #[test]
    fn port_that_leaves_its_bridge_is_not_removed() {
        let mut message = link_message(usual(), vec![]);
        assert_eq!(parsed(RouteNetlinkMessage::DelLink(message.clone())), [Change::LinkGone(4)]);
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(parsed(RouteNetlinkMessage::DelLink(message)), []);
    }

    #[test]
    fn message_without_a_name_and_foreign_hardware_addresses_are_ignored() {
        let mut note = link_message(usual(), vec![]);
        note.attributes.clear();
        assert_eq!(parsed(RouteNetlinkMessage::NewLink(note)), []);
        let mut infiniband = link_message(usual(), vec![]);
        infiniband.attributes[1] = LinkAttribute::Address(vec![1; 20]);
        let changes = parsed(RouteNetlinkMessage::NewLink(infiniband));
        assert!(matches!(changes.as_slice(), [Change::Link(Link { mac: None, .. })]), "{changes:?}");
    }

    #[test]
    fn address_message_is_parsed_and_tentative_link_local_addresses_are_not_usable() {
        let address = |ip: &str, flags| {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet6;
            message.header.index = 4;
            message.header.flags = flags;
            message.attributes.push(AddressAttribute::Address(ip.parse().unwrap()));
            RouteNetlinkMessage::NewAddress(message)
        };
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        for (flags, usable) in [
            (AddressHeaderFlags::Permanent, true),
            (AddressHeaderFlags::Permanent | AddressHeaderFlags::Tentative, false),
            (AddressHeaderFlags::Permanent | AddressHeaderFlags::Dadfailed, false),
        ] {
            assert_eq!(parsed(address("fe80::1", flags)), [Change::LinkLocal { index: 4, ip, usable }]);
        }
        let ip: IpAddr = "fd00::1".parse().unwrap();
        let changes = parsed(address("fd00::1", AddressHeaderFlags::Permanent));
        assert_eq!(changes, [Change::Address { index: 4, ip, prefix: 0 }]);
    }

    #[test]
    fn point_to_point_address_has_no_network() {
        let message = |local: Option<&str>, address: &str| {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            (message.header.index, message.header.prefix_len) = (4, 24);
            let local = local.map(|ip| AddressAttribute::Local(ip.parse().unwrap()));
            message.attributes =
                [AddressAttribute::Address(address.parse().unwrap())].into_iter().chain(local).collect();
            message
        };
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        for (local, address, prefix) in [(Some("10.0.0.1"), "10.0.0.1", 24), (Some("10.0.0.1"), "10.9.0.1", u8::MAX)] {
            let new = parsed(RouteNetlinkMessage::NewAddress(message(local, address)));
            assert_eq!(new, [Change::Address { index: 4, ip, prefix }]);
            let gone = parsed(RouteNetlinkMessage::DelAddress(message(local, address)));
            assert_eq!(gone, [Change::AddressGone { index: 4, ip, prefix }]);
        }
    }

    #[test]
    fn list_of_this_host_contains_the_loopback_device() {
        let found = list().unwrap();
        let loopback = |change: &Change| matches!(change, Change::Link(link) if &*link.name == "lo" && !link.uses_arp);
        assert!(found.iter().any(loopback), "{found:?}");
    }
}

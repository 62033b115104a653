//! Addresses and routes of this host from routing netlink.
//!
//! Only the attributes that matter are parsed, one by one: an attribute that a newer kernel encodes differently is
//! ignored and does not hide the whole address.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use netlink_packet_core::{
    DecodeError, Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator, Parseable as _,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::addresses::{Address, Usability};
use super::sockopt;

/// Reports that addresses have changed, not which.
pub(super) struct AddressMonitor {
    socket: AsyncFd<socket2::Socket>,
}

/// The route of this host to an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    /// The index of the interface.
    pub(super) interface: u32,
    /// Whether a router forwards the packets.
    pub(super) via_gateway: bool,
    /// The source address that the kernel selects.
    pub(super) source: Option<IpAddr>,
}

impl AddressMonitor {
    /// Must be called inside a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        socket.bind(&SocketAddr::new(0, groups as u32))?;
        let socket = socket2::Socket::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Self { socket: sockopt::readable(socket)? })
    }

    /// Waits for a change and discards its description, because all addresses are listed afterwards. For the same reason
    /// it does not matter when the kernel drops messages.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.socket.readable().await?;
            let mut any = false;
            loop {
                match ready.get_inner().read(&mut buffer) {
                    Ok(_) => any = true,
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }
}

/// Lists the addresses of this host in the kernel's order.
///
/// # Errors
/// The kernel refuses the request, or the addresses change faster than they can be listed.
pub(super) fn addresses() -> io::Result<Vec<Address>> {
    let list = |family| {
        let mut request = AddressMessage::default();
        request.header.family = family;
        for _ in 0..ATTEMPTS {
            if let Some(found) = exchange::<AddressEntry>(RouteNetlinkMessage::GetAddress(request.clone()), NLM_F_DUMP)?
            {
                return Ok(found.into_iter().filter_map(|AddressEntry(entry)| entry));
            }
        }
        Err(io::Error::other("the addresses change faster than they can be listed"))
    };
    let mut all: Vec<Address> = list(AddressFamily::Inet)?.collect();
    // A kernel without IPv6 refuses the request.
    all.extend(list(AddressFamily::Inet6).into_iter().flatten());
    Ok(all)
}

/// The route to an address, in a VRF if `device` is its device. `None`: there is none.
pub(super) fn route_to(destination: IpAddr, device: Option<&str>) -> Option<Route> {
    let mut request = RouteMessage::default();
    request.header.address_family = if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    request.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    request.attributes = vec![RouteAttribute::Destination(destination.into())];
    if let Some(index) = device.and_then(|device| nix::net::if_::if_nametoindex(device).ok()) {
        request.attributes.push(RouteAttribute::Oif(index));
    }
    let found = exchange::<RouteEntry>(RouteNetlinkMessage::GetRoute(request), 0).ok()??;
    found.into_iter().find_map(|RouteEntry(route)| route)
}

/// Sends a request and collects the answers. `None` if a list was interrupted by a change and may be incomplete.
fn exchange<T: NetlinkDeserializable>(request: RouteNetlinkMessage, flags: u16) -> io::Result<Option<Vec<T>>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (mut found, mut interrupted) = (Vec::new(), false);
    let mut buffer = Vec::with_capacity(DATAGRAM_MAX);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in messages::<T>(&buffer) {
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(parsed) => found.push(parsed),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        // The answer to a request for one object is one message.
        if flags & NLM_F_DUMP == 0 {
            return Ok(Some(found));
        }
    }
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

#[derive(Debug)]
struct AddressEntry(Option<Address>);

impl NetlinkDeserializable for AddressEntry {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self((header.message_type == libc::RTM_NEWADDR).then(|| address(payload)).flatten()))
    }
}

#[derive(Debug)]
struct RouteEntry(Option<Route>);

impl NetlinkDeserializable for RouteEntry {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self((header.message_type == libc::RTM_NEWROUTE).then(|| route(payload)).flatten()))
    }
}

fn address(payload: &[u8]) -> Option<Address> {
    let header = AddressHeader::parse(payload).ok()?;
    let attributes = NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok);
    let (mut remote, mut local) = (None, None);
    for attribute in attributes.filter_map(|attribute| AddressAttribute::parse(&attribute).ok()) {
        match attribute {
            AddressAttribute::Address(ip) => remote = Some(ip),
            // On a point-to-point link IFA_ADDRESS is the address of the peer.
            AddressAttribute::Local(ip) => local = Some(ip),
            _ => {}
        }
    }
    let ip = local.or(remote)?;
    let has = |flags| header.flags.intersects(flags);
    let optimistic = has(AddressHeaderFlags::Optimistic) && !has(AddressHeaderFlags::Dadfailed);
    let usability = if has(AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Tentative) && !optimistic {
        Usability::Unproven
    } else if has(AddressHeaderFlags::Deprecated) {
        Usability::Deprecated
    } else if has(AddressHeaderFlags::Secondary) {
        // The same bit as IFA_F_TEMPORARY.
        Usability::Temporary
    } else {
        Usability::Preferred
    };
    // On a point-to-point link the prefix length is that of the peer's network.
    let full = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = if remote == Some(ip) { header.prefix_len } else { full };
    Some(Address { interface: header.index, ip, prefix, usability })
}

fn route(payload: &[u8]) -> Option<Route> {
    let header = RouteHeader::parse(payload).ok()?;
    if !matches!(header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let mut route = Route { interface: 0, via_gateway: false, source: None };
    for attribute in NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok) {
        match attribute.kind() {
            libc::RTA_OIF => route.interface = u32::from_ne_bytes(attribute.value().try_into().ok()?),
            libc::RTA_GATEWAY | RTA_VIA => route.via_gateway = true,
            libc::RTA_PREFSRC => {
                let context = (header.address_family, header.kind, RouteLwEnCapType::None);
                let parsed = netlink_packet_core::ParseableParametrized::parse_with_param(&attribute, context);
                route.source = match parsed {
                    Ok(RouteAttribute::PrefSource(RouteAddress::Inet(ip))) => Some(ip.into()),
                    Ok(RouteAttribute::PrefSource(RouteAddress::Inet6(ip))) => Some(ip.into()),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some(route)
}

/// `RTA_VIA` of `linux/rtnetlink.h`, which `libc` does not define for musl.
const RTA_VIA: u16 = 18;
/// The longest datagram that the kernel sends.
const DATAGRAM_MAX: usize = 64 << 10;
/// The number of attempts to list addresses without interruption.
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: AddressHeaderFlags, prefix: u8, attributes: Vec<AddressAttribute>) -> Option<Address> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = 4;
        message.header.prefix_len = prefix;
        message.header.flags = flags;
        message.attributes = attributes;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        AddressEntry::deserialize(&message.header, &bytes[16..]).unwrap().0
    }

    #[test]
    fn flags_of_an_address_decide_its_usability() {
        use AddressHeaderFlags as F;
        let ip: IpAddr = "fd00::1".parse().unwrap();
        for (flags, usability) in [
            (F::Permanent, Usability::Preferred),
            (F::empty(), Usability::Preferred),
            (F::Tentative, Usability::Unproven),
            (F::Tentative | F::Optimistic, Usability::Preferred),
            (F::Tentative | F::Dadfailed, Usability::Unproven),
            (F::Dadfailed | F::Permanent, Usability::Unproven),
            (F::Dadfailed | F::Optimistic, Usability::Unproven),
            (F::Deprecated | F::Permanent, Usability::Deprecated),
            (F::Deprecated | F::Secondary, Usability::Deprecated),
            (F::Secondary, Usability::Temporary),
        ] {
            let found = parsed(flags, 64, vec![AddressAttribute::Address(ip)]).unwrap();
            assert_eq!(found, Address { interface: 4, ip, prefix: 64, usability }, "{flags:?}");
        }
        let peer = "fd00::2".parse().unwrap();
        let link = vec![AddressAttribute::Local(ip), AddressAttribute::Address(peer)];
        assert_eq!(parsed(F::Permanent, 64, link).unwrap().prefix, 128, "point-to-point");
    }

    #[test]
    fn loopback_address_and_its_route_are_found() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(addresses().unwrap().iter().any(|address| address.ip == loopback && address.prefix == 8));
        let route = route_to("127.0.0.9".parse().unwrap(), None).unwrap();
        assert!(!route.via_gateway);
    }
}

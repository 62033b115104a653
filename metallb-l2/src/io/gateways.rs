//! The next hops of the default routes in all routing tables.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, Emitable as _, NetlinkDeserializable, NetlinkHeader, NlasIterator, ParseableParametrized as _,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::routing::dump;

/// Lists the next hops of all default routes. The kernel cannot filter a list by prefix length, so the header of every
/// route is parsed.
///
/// # Errors
/// The kernel refuses the request, or the routes change faster than they can be listed.
pub(super) fn gateways() -> io::Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        match dump::<NextHops>(&RouteNetlinkMessage::GetRoute(request)) {
            Ok(next_hops) => found.extend(next_hops),
            // A kernel without IPv6 refuses the request.
            Err(_) if family == AddressFamily::Inet6 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The next hops in one message, empty unless it describes a default route.
#[derive(Debug)]
struct NextHops(Vec<IpAddr>);

impl NetlinkDeserializable for NextHops {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let is_route = header.message_type == libc::RTM_NEWROUTE;
        Ok(Self(if is_route { next_hops(payload).unwrap_or_default() } else { Vec::new() }))
    }
}

impl IntoIterator for NextHops {
    type Item = IpAddr;
    type IntoIter = std::vec::IntoIter<IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// `RTA_VIA` of `linux/rtnetlink.h`, which `libc` does not define for musl.
const RTA_VIA: u16 = 18;

fn next_hops(payload: &[u8]) -> Option<Vec<IpAddr>> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast {
        return None;
    }
    let of_interest = [libc::RTA_GATEWAY, RTA_VIA, libc::RTA_MULTIPATH];
    let mut found = Vec::new();
    for attribute in NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok) {
        if of_interest.contains(&attribute.kind()) {
            let context = (header.address_family, header.kind, RouteLwEnCapType::None);
            let parsed = RouteAttribute::parse_with_param(&attribute, context).ok();
            parsed.iter().for_each(|attribute| collect(attribute, &mut found));
        }
    }
    Some(found)
}

fn collect(attribute: &RouteAttribute, found: &mut Vec<IpAddr>) {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
            found.push((*ip).into());
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
            found.push((*ip).into());
        }
        RouteAttribute::MultiPath(hops) => {
            hops.iter().flat_map(|hop| &hop.attributes).for_each(|attribute| collect(attribute, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn parsed(prefix: u8, kind: RouteType, attributes: Vec<RouteAttribute>) -> Vec<IpAddr> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.kind = kind;
        message.attributes = attributes;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        NextHops::deserialize(&message.header, &bytes[16..]).unwrap().0
    }

    #[test]
    fn default_route_with_one_several_or_cross_family_next_hops_is_parsed() {
        let ip: IpAddr = "192.168.10.1".parse().unwrap();
        let other: IpAddr = "192.168.10.2".parse().unwrap();
        let sixth: IpAddr = "fe80::1".parse().unwrap();
        let gateway = |ip: IpAddr| RouteAttribute::Gateway(ip.into());
        assert_eq!(parsed(0, RouteType::Unicast, vec![RouteAttribute::Oif(2), gateway(ip)]), [ip]);
        let hop = |ip| {
            let mut hop = RouteNextHop::default();
            hop.attributes = vec![gateway(ip)];
            hop
        };
        let several = RouteAttribute::MultiPath(vec![hop(ip), hop(other)]);
        assert_eq!(parsed(0, RouteType::Unicast, vec![several]), [ip, other]);
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        assert_eq!(parsed(0, RouteType::Unicast, vec![via]), [sixth]);
        assert_eq!(parsed(24, RouteType::Unicast, vec![gateway(ip)]), [] as [IpAddr; 0]);
        assert_eq!(parsed(0, RouteType::BlackHole, vec![gateway(ip)]), [] as [IpAddr; 0]);
    }
}

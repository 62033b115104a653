//! The queue of unsolicited frames: gratuitous ARP, unsolicited advertisements and probes.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::interface::Interface;
use crate::vip::{Phase, VipId, VipTable};
use crate::wire::Frame;
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp;

/// An unsolicited frame that is due. It is encoded when it is taken from the queue, so that nothing is sent for an
/// address that was removed meanwhile, and a queue of ten thousand entries stays small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) vip: VipId,
    pub(crate) interface: u32,
    pub(crate) message: Gratuitous,
    /// Whether it is the last frame of the first round for its address.
    pub(crate) ends_first_round: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Gratuitous {
    Arp(Operation),
    Advertisement,
    Probe,
}

impl Outgoing {
    /// The encoded frame; `None` if the address is no longer in the state that the frame announces.
    pub(crate) fn frame(&self, vips: &VipTable, interfaces: &BTreeMap<u32, Interface>) -> Option<Frame> {
        let interface = interfaces.get(&self.interface)?;
        let vip = vips.vip(self.vip);
        let probes = matches!(self.message, Gratuitous::Probe);
        if !vip.is_on(self.interface) || vip.phase != if probes { Phase::Probing } else { Phase::Held } {
            return None;
        }
        match (self.message, vip.ip) {
            (Gratuitous::Probe, IpAddr::V4(v4)) => Some(Arp::probe(interface.mac, v4)),
            (Gratuitous::Probe, IpAddr::V6(v6)) => Some(ndp::probe(interface.mac, v6)),
            (Gratuitous::Arp(operation), IpAddr::V4(v4)) => Some(Arp::gratuitous(operation, interface.mac, v4)),
            (Gratuitous::Advertisement, IpAddr::V6(v6)) => {
                Some(ndp::unsolicited(interface.mac, interface.link_local?, v6))
            }
            _ => None,
        }
    }
}

/// A round has two passes: gratuitous ARP requests and unsolicited advertisements first, then gratuitous ARP replies,
/// because some hosts accept only one of the two ARP forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pass {
    First,
    Second,
}

/// Queues one pass for an address on all its interfaces.
pub(crate) fn enqueue(
    outgoing: &mut VecDeque<Outgoing>,
    interfaces: &BTreeMap<u32, Interface>,
    vips: &VipTable,
    vip: VipId,
    pass: Pass,
    is_first_round: bool,
) {
    let (ours, is_ipv4) = (vips.vip(vip), vips.vip(vip).ip.is_ipv4());
    let before = outgoing.len();
    for interface in interfaces.values().filter(|interface| ours.is_on(interface.index)) {
        let mut push = |message| {
            outgoing.push_back(Outgoing { vip, interface: interface.index, message, ends_first_round: false });
        };
        match pass {
            Pass::First if is_ipv4 && interface.arp => push(Gratuitous::Arp(Operation::Request)),
            Pass::Second if is_ipv4 && interface.arp => push(Gratuitous::Arp(Operation::Reply)),
            Pass::First if !is_ipv4 && interface.link_local.is_some() => push(Gratuitous::Advertisement),
            _ => {}
        }
    }
    if let Some(last) = outgoing.range_mut(before..).next_back() {
        last.ends_first_round = is_first_round && (pass == Pass::Second || !is_ipv4);
    }
}

/// Queues one probe for an address on all its interfaces.
pub(crate) fn enqueue_probe(
    outgoing: &mut VecDeque<Outgoing>,
    interfaces: &BTreeMap<u32, Interface>,
    vips: &VipTable,
    vip: VipId,
) {
    let (ours, is_ipv4) = (vips.vip(vip), vips.vip(vip).ip.is_ipv4());
    let able = |interface: &&Interface| if is_ipv4 { interface.arp } else { interface.link_local.is_some() };
    for interface in interfaces.values().filter(|interface| ours.is_on(interface.index)).filter(able) {
        let message = Gratuitous::Probe;
        outgoing.push_back(Outgoing { vip, interface: interface.index, message, ends_first_round: false });
    }
}

//! Cases ARP-01 to ARP-25, which consist of one frame.

use metallb_l2::engine::DropReason;
use metallb_l2::interface::MacAddr;
use metallb_l2::wire::arp::{Arp, Operation};

use crate::Case;
use crate::frames::{
    ARP_BODY, CLIENT, CLIENT4, ETHERNET_SOURCE, NOT_OURS4, SENDER_HARDWARE, SENDER_PROTOCOL, THIRD, US, VIP4,
    VIP4_ELSEWHERE, ZERO, is_at, tagged, who_has, with,
};

pub(crate) fn cases() -> Vec<Case> {
    let answer = || is_at(VIP4, CLIENT, CLIENT4);
    let ask = || who_has(VIP4);
    let mut cases = vec![
        Case::answered("ARP-01", "broadcast", ask(), answer()),
        Case::answered("ARP-02", "unicast to us", with(ask(), 0, &US.0), answer()),
        Case::silent("ARP-03", "unicast to another host", with(ask(), 0, &THIRD.0), DropReason::EthernetDestination),
        Case::silent(
            "ARP-04",
            "Ethernet multicast",
            with(ask(), 0, &[1, 0, 0x5e, 0, 0, 1]),
            DropReason::EthernetDestination,
        ),
        Case::answered(
            "ARP-12",
            "probe, sender 0.0.0.0",
            with(ask(), SENDER_PROTOCOL, &[0; 4]),
            is_at(VIP4, CLIENT, [0; 4].into()),
        ),
        Case::silent("ARP-14", "our own announcement returns", from_us(), DropReason::OwnFrame),
        Case::silent(
            "ARP-15",
            "sender is our address, target another",
            with(who_has(NOT_OURS4), SENDER_PROTOCOL, &VIP4.octets()),
            DropReason::AnnounceIp,
        )
        .conflict(),
        Case::answered(
            "ARP-18",
            "ARP sender differs from the Ethernet source",
            with(ask(), ETHERNET_SOURCE, &THIRD.0),
            answer(),
        ),
        Case::silent(
            "ARP-19",
            "ARP sender is one of our hardware addresses",
            with(ask(), SENDER_HARDWARE, &US.0),
            DropReason::OwnFrame,
        ),
        Case::silent("ARP-20", "address of another node", who_has(NOT_OURS4), DropReason::AnnounceIp),
        Case::silent(
            "ARP-21",
            "our address, on another interface",
            who_has(VIP4_ELSEWHERE),
            DropReason::NotMatchInterface,
        ),
        Case::silent("ARP-23", "VLAN 100", tagged(ask(), 0x8100, 100), DropReason::Vlan),
        Case::answered("ARP-24", "priority tag, VLAN 0", tagged(ask(), 0x8100, 0xe000), answer()),
        Case::silent("ARP-25", "QinQ", tagged(tagged(ask(), 0x8100, 100), 0x88a8, 7), DropReason::Vlan),
    ];
    for len in 0..42 {
        let mut frame = ask();
        frame.truncate(len);
        cases.push(Case::silent("ARP-05", format!("cut to {len} bytes"), frame, DropReason::Malformed));
    }
    for len in [60, 1500, 9000] {
        let mut frame = ask();
        frame.resize(len, 0xaa);
        cases.push(Case::answered("ARP-06", format!("padded to {len} bytes"), frame, answer()));
    }
    let field = |id, what: &str, offset, bytes: &[u8], reason| {
        Case::silent(id, format!("{what} {bytes:02x?}"), with(ask(), ARP_BODY + offset, bytes), reason)
    };
    for kind in [0_u16, 6, 7, 0xffff] {
        cases.push(field("ARP-07", "hardware type", 0, &kind.to_be_bytes(), DropReason::Malformed));
    }
    for protocol in [0x86dd_u16, 0] {
        cases.push(field("ARP-08", "protocol type", 2, &protocol.to_be_bytes(), DropReason::Malformed));
    }
    for len in [0, 5, 7, 8, 0xff] {
        cases.push(field("ARP-09", "hardware length", 4, &[len], DropReason::Malformed));
    }
    for len in [0, 3, 5, 16, 0xff] {
        cases.push(field("ARP-10", "protocol length", 5, &[len], DropReason::Malformed));
    }
    for opcode in [0_u16, 2, 3, 4, 5, 6, 7, 8, 9, 25, 0xffff] {
        cases.push(field("ARP-11", "opcode", 6, &opcode.to_be_bytes(), DropReason::ArpReply));
    }
    for (operation, reason) in [(Operation::Request, DropReason::Gratuitous), (Operation::Reply, DropReason::ArpReply)]
    {
        let frame = Arp::gratuitous(operation, CLIENT, VIP4).as_bytes().to_vec();
        cases.push(
            Case::silent("ARP-13", format!("{operation:?} about our address by another host"), frame, reason)
                .conflict(),
        );
    }
    for ip in [[255, 255, 255, 255], [224, 0, 0, 1], [127, 0, 0, 1]] {
        let frame = with(ask(), SENDER_PROTOCOL, &ip);
        cases.push(Case::silent("ARP-16", format!("sender {ip:?}"), frame, DropReason::BadSender));
    }
    for mac in [ZERO, MacAddr::BROADCAST, MacAddr([3, 0, 0, 0, 0, 9])] {
        let frame = with(ask(), SENDER_HARDWARE, &mac.0);
        cases.push(Case::silent("ARP-17", format!("sender {mac}"), frame, DropReason::BadSender));
    }
    for len in 13..18 {
        let mut frame = tagged(ask(), 0x8100, 0);
        frame.truncate(len);
        cases.push(Case::silent("ARP-25", format!("tag cut at {len} bytes"), frame, DropReason::Malformed));
    }
    cases
}

fn from_us() -> Vec<u8> {
    Arp::gratuitous(Operation::Request, US, VIP4).as_bytes().to_vec()
}

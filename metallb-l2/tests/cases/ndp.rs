//! Cases NDP-01 to NDP-42 that consist of one frame.

use std::net::Ipv6Addr;

use metallb_l2::engine::DropReason;
use metallb_l2::interface::MacAddr;

use crate::Case;
use crate::frames::{
    CLIENT, CLIENT_LINK_LOCAL, Icmp, NOT_OURS6, THIRD, US, US_GLOBAL, US_LINK_LOCAL, VIP6, VIP6_ELSEWHERE, VIP6_TWIN,
    group_of, link_layer_option, tagged, with,
};

pub(crate) fn cases() -> Vec<Case> {
    [answered(), invalid(), options(), headers(), conflicts()].into_iter().flatten().collect()
}

fn answered() -> Vec<Case> {
    let ask = || Icmp::solicitation(VIP6);
    let answer = || Icmp::answer(VIP6, CLIENT, CLIENT_LINK_LOCAL, SOLICITED | OVERRIDE).frame();
    let to_us = |destination| Icmp { to: US, destination, options: Vec::new(), ..ask() };
    let probe = Icmp { source: Ipv6Addr::UNSPECIFIED, options: Vec::new(), ..ask() };
    let to_all = Icmp::answer(VIP6, ALL_NODES_MAC, ALL_NODES, OVERRIDE).frame();
    let source_is_vip = Icmp { source: VIP6, ..ask() };
    let zero_checksum = with(ask().frame(), CHECKSUM, &[0, 0]);
    vec![
        Case::answered("NDP-01", "to the group", ask().frame(), answer()),
        Case::answered(
            "NDP-01",
            "another address of the same group",
            Icmp::solicitation(VIP6_TWIN).frame(),
            Icmp::answer(VIP6_TWIN, CLIENT, CLIENT_LINK_LOCAL, SOLICITED | OVERRIDE).frame(),
        ),
        Case::answered("NDP-02", "unicast without option", to_us(US_GLOBAL).frame(), answer()),
        Case::answered("NDP-02", "unicast to the link-local address", to_us(US_LINK_LOCAL).frame(), answer()),
        Case::answered("NDP-02", "unicast to another announced address", to_us(VIP6_TWIN).frame(), answer()),
        Case::answered("NDP-03", "unicast to the address itself", to_us(VIP6).frame(), answer()),
        Case::answered("NDP-04", "duplicate address detection", probe.frame(), to_all).conflict(),
        Case::answered("NDP-08", "offloaded checksum", zero_checksum, answer()).offloaded(),
        Case::answered("NDP-16", "foreign bits", Icmp { flags: [0xff; 4], ..ask() }.frame(), answer()),
        Case::answered(
            "NDP-28",
            "source is our address",
            source_is_vip.frame(),
            Icmp::answer(VIP6, CLIENT, VIP6, SOLICITED | OVERRIDE).frame(),
        )
        .conflict(),
        Case::answered("NDP-36", "priority tag, VLAN 0", tagged(ask().frame(), 0x8100, 0), answer()),
        Case::silent("NDP-36", "VLAN 100", tagged(ask().frame(), 0x8100, 100), DropReason::Vlan),
        Case::silent("NDP-18", "not ours", Icmp::solicitation(NOT_OURS6).frame(), DropReason::AnnounceIp),
        Case::silent(
            "NDP-18",
            "on another interface",
            Icmp::solicitation(VIP6_ELSEWHERE).frame(),
            DropReason::NotMatchInterface,
        ),
    ]
}

fn invalid() -> Vec<Case> {
    let ask = || Icmp::solicitation(VIP6);
    let good = ask().frame();
    let mut cases = vec![
        Case::silent(
            "NDP-05",
            "duplicate address detection with option",
            Icmp { source: Ipv6Addr::UNSPECIFIED, ..ask() }.frame(),
            DropReason::InvalidSolicitation,
        ),
        Case::silent(
            "NDP-06",
            "source :: to a unicast address",
            Icmp { source: Ipv6Addr::UNSPECIFIED, destination: VIP6, to: US, options: Vec::new(), ..ask() }.frame(),
            DropReason::InvalidSolicitation,
        ),
        Case::silent(
            "NDP-08",
            "checksum bit flipped",
            with(good.clone(), CHECKSUM, &[good[CHECKSUM] ^ 1]),
            DropReason::Checksum,
        ),
        Case::silent("NDP-08", "checksum 0", with(good, CHECKSUM, &[0, 0]), DropReason::Checksum),
        Case::silent("NDP-09", "code 1", Icmp { code: 1, ..ask() }.frame(), DropReason::InvalidSolicitation),
        Case::silent("NDP-29", "source is a group", Icmp { source: ALL_NODES, ..ask() }.frame(), DropReason::BadSender),
        Case::silent(
            "NDP-30",
            "Ethernet source is broadcast",
            Icmp { from: MacAddr::BROADCAST, ..ask() }.frame(),
            DropReason::BadSender,
        ),
        Case::silent(
            "NDP-30",
            "Ethernet source is multicast",
            Icmp { from: ALL_NODES_MAC, ..ask() }.frame(),
            DropReason::BadSender,
        ),
    ];
    let link_local_groups = [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)];
    cases.push(Case::silent(
        "NDP-41",
        "source is loopback",
        Icmp { source: Ipv6Addr::LOCALHOST, ..ask() }.frame(),
        DropReason::BadSender,
    ));
    for destination in link_local_groups.into_iter().chain([ALL_NODES, group_of(NOT_OURS6), NOT_OURS6, VIP6_ELSEWHERE])
    {
        cases.push(Case::silent(
            "NDP-42",
            format!("destination {destination}"),
            Icmp { to: US, destination, ..ask() }.frame(),
            DropReason::IpDestination,
        ));
    }
    cases.push(Case::silent(
        "NDP-42",
        "claim of our address to a wrong destination",
        Icmp { to: US, destination: ALL_NODES, source: VIP6, ..ask() }.frame(),
        DropReason::IpDestination,
    ));
    for hop_limit in [254, 0, 1] {
        cases.push(Case::silent(
            "NDP-07",
            format!("hop limit {hop_limit}"),
            Icmp { hop_limit, ..ask() }.frame(),
            DropReason::HopLimit,
        ));
    }
    for len in 0..24 {
        let frame = ask().frame_of(&ask().body()[..len], 58);
        cases.push(Case::silent("NDP-10", format!("{len} bytes of message"), frame, DropReason::Malformed));
    }
    for target in
        [ALL_NODES, Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc0a8, 0x0a00)]
    {
        let reason = if target.is_multicast() { DropReason::InvalidSolicitation } else { DropReason::AnnounceIp };
        cases.push(Case::silent("NDP-17", format!("target {target}"), Icmp { target, ..ask() }.frame(), reason));
    }
    for kind in [128, 130, 133, 134, 137, 143, 0, 255] {
        cases.push(Case::silent(
            "NDP-40",
            format!("ICMPv6 type {kind}"),
            Icmp { kind, ..ask() }.frame(),
            DropReason::OtherMessage,
        ));
    }
    cases
}

fn options() -> Vec<Case> {
    let with_options = |options: Vec<u8>| Icmp { options, ..Icmp::solicitation(VIP6) }.frame();
    let to = |mac| Icmp::answer(VIP6, mac, CLIENT_LINK_LOCAL, SOLICITED | OVERRIDE).frame();
    let own = link_layer_option(1, CLIENT);
    let two_units = [[1, 2].as_slice(), &THIRD.0, &[0; 8]].concat();
    let mut zero_after = own.clone();
    zero_after.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    let mut overrun = own.clone();
    overrun.extend([7, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let unknown: Vec<u8> = (0..=254).flat_map(|n| [250 + n % 6, 1, 0, 0, 0, 0, 0, 0]).chain(own.clone()).collect();
    vec![
        Case::silent("NDP-11", "length 0", with_options(vec![1, 0, 2, 0, 0, 0, 0, 9]), DropReason::InvalidSolicitation),
        Case::silent(
            "NDP-11",
            "length 0 after a valid option",
            with_options(zero_after),
            DropReason::InvalidSolicitation,
        ),
        Case::silent(
            "NDP-12",
            "option one byte beyond the message",
            with_options(overrun),
            DropReason::InvalidSolicitation,
        ),
        Case::answered("NDP-13", "option with 14 bytes of address is ignored", with_options(two_units), to(CLIENT)),
        Case::silent("NDP-13", "truncated option", with_options(own[..5].to_vec()), DropReason::InvalidSolicitation),
        Case::answered(
            "NDP-14",
            "the first of two options counts",
            with_options([own, link_layer_option(1, THIRD)].concat()),
            to(CLIENT),
        ),
        Case::answered("NDP-15", "255 unknown options", with_options(unknown), to(CLIENT)),
        Case::answered(
            "NDP-19",
            "Target Link-Layer Address option",
            with_options(link_layer_option(2, THIRD)),
            to(CLIENT),
        ),
        Case::answered(
            "NDP-20",
            "a nonce",
            with_options([link_layer_option(1, CLIENT), vec![14, 1, 1, 2, 3, 4, 5, 6]].concat()),
            to(CLIENT),
        ),
    ]
}

fn headers() -> Vec<Case> {
    let ask = Icmp::solicitation(VIP6);
    let body = ask.body();
    let behind = |kind: u8, header: &[u8], times: usize| {
        let mut chain = Vec::new();
        for left in (0..times).rev() {
            chain.push(if left == 0 { 58 } else { kind });
            chain.extend(header);
        }
        ask.frame_of(&[chain, body.clone()].concat(), kind)
    };
    let empty = [0, 1, 4, 0, 0, 0, 0];
    let good = ask.frame();
    let longer = with(good.clone(), PAYLOAD_LENGTH, &33_u16.to_be_bytes());
    let padded: Vec<u8> = good.iter().copied().chain([0xaa; 9]).collect();
    vec![
        // Valid solicitations have no extension headers, so all of them are refused without parsing.
        Case::silent("NDP-21", "fragment header", behind(44, &[0; 7], 1), DropReason::OtherMessage),
        Case::silent("NDP-22", "hop-by-hop options", behind(0, &empty, 1), DropReason::OtherMessage),
        Case::silent("NDP-22", "100 destination options headers", behind(60, &empty, 100), DropReason::OtherMessage),
        Case::silent("NDP-23", "payload length beyond the frame", longer, DropReason::Malformed),
        Case::answered(
            "NDP-23",
            "padding behind the payload",
            padded,
            Icmp::answer(VIP6, CLIENT, CLIENT_LINK_LOCAL, SOLICITED | OVERRIDE).frame(),
        ),
        Case::silent("NDP-24", "payload length 0", with(good, PAYLOAD_LENGTH, &[0, 0]), DropReason::Malformed),
    ]
}

fn conflicts() -> Vec<Case> {
    let mut cases = Vec::new();
    for flags in [0, OVERRIDE] {
        let frame = Icmp::foreign_advertisement(VIP6, flags).frame();
        cases.push(
            Case::silent("NDP-25", format!("flags {flags:02x} to all"), frame, DropReason::Advertisement).conflict(),
        );
    }
    for flags in [SOLICITED, SOLICITED | OVERRIDE] {
        let foreign = Icmp::foreign_advertisement(VIP6, flags);
        cases.push(Case::silent(
            "NDP-26",
            format!("flags {flags:02x} to all"),
            foreign.frame(),
            DropReason::InvalidSolicitation,
        ));
        let to_us = Icmp { to: US, destination: US_GLOBAL, ..foreign };
        cases.push(
            Case::silent("NDP-25", format!("flags {flags:02x} to us"), to_us.frame(), DropReason::Advertisement)
                .conflict(),
        );
    }
    let own = Icmp { from: US, ..Icmp::foreign_advertisement(VIP6, OVERRIDE) };
    cases.push(Case::silent("NDP-27", "our own advertisement returns", own.frame(), DropReason::OwnFrame));
    cases
}

const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Offsets in a frame.
const PAYLOAD_LENGTH: usize = 14 + 4;
const CHECKSUM: usize = 14 + 40 + 2;

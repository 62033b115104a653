//! Cases of received packets and the expected reaction, by id. The tests of the engine and of the sockets use the same
//! table.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;

use crate::bfd::{ControlPacket, Diagnostic, Discard, Discriminator, Hops, Interval, State, TTL};

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
pub(crate) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 3));
/// The discriminator of the neighbour.
pub(crate) const THEIRS: u32 = 0x0102_0304;

pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) hops: Hops,
    pub(crate) prelude: Prelude,
    pub(crate) envelope: Envelope,
    /// Whether it is sent to the echo port.
    pub(crate) echo: bool,
    pub(crate) payload: Box<dyn Fn(Discriminator) -> Vec<u8>>,
    /// The number of times it is sent.
    pub(crate) times: u32,
    pub(crate) expect: Expect,
    /// The state afterwards; `None` means unchanged.
    pub(crate) then: Option<State>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Prelude {
    Fresh,
    Init,
    Up,
    AdminDown,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Envelope {
    Right,
    Ttl(u8),
    Stranger,
    OtherInterface,
    OtherPort,
    OwnAddress,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Expect {
    Accept { answered: bool },
    Drop(Discard),
}

/// Why a case is not in the table.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "documents the table")]
pub(crate) enum Why {
    /// It takes more time or packets than a real-time test can use: virtual time.
    Time,
    /// It starts with this side and not with a packet of the neighbour.
    Ours,
    /// It needs two engines.
    TwoEnds,
    /// It depends on how the kernel handles a sent packet.
    Kernel,
}

/// The cases that are not in the table, with the reason and the test for each.
pub(crate) const NO_ROWS: &[(&str, Why, &str)] = &[
    ("BFD-23", Why::TwoEnds, "handshake_completes_in_every_order"),
    ("BFD-25", Why::Time, "multiplier_of_one_without_loss_keeps_the_session_up"),
    ("BFD-26", Why::Time, "random_loss_takes_the_session_down_at_the_predicted_rate"),
    ("BFD-31", Why::Ours, "slower_transmit_interval_waits_for_the_poll_to_complete"),
    ("BFD-32", Why::Ours, "faster_receive_interval_waits_for_the_poll_to_complete"),
    ("BFD-37", Why::Time, "jitter_stays_within_its_bounds"),
    ("BFD-38", Why::Ours, "equal_profile_changes_nothing"),
    ("BFD-39", Why::Ours, "changed_profile_is_negotiated_while_up"),
    ("BFD-40", Why::Ours, "removed_session_sends_admin_down_for_the_detection_time"),
    ("BFD-41", Why::TwoEnds, "killed_neighbor_is_detected_and_returns_with_another_discriminator"),
    ("BFD-42", Why::Time, "packets_that_waited_during_a_stall_prevent_a_false_failure"),
    ("BFD-43", Why::Time, "long_suspension_expires_once_and_recovers"),
    // scripts/bfd-bench.sh measures it with real sockets.
    ("BFD-47", Why::Time, "thousand_sessions_transmit_on_time"),
    ("BFD-48", Why::Kernel, "packet_that_the_kernel_refuses_is_counted_and_the_session_continues"),
];

/// A packet of a neighbour that is Up.
pub(crate) fn packet(yours: Discriminator) -> ControlPacket {
    ControlPacket {
        diagnostic: Diagnostic::NONE,
        state: State::Up,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        authentication: false,
        demand: false,
        detect_multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: Discriminator::new(THEIRS).unwrap(),
        your_discriminator: Some(yours),
        desired_min_tx: Interval(300_000),
        required_min_rx: Interval(300_000),
        required_min_echo_rx: Interval::ZERO,
    }
}

pub(crate) fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    malformed(&mut cases);
    misdirected(&mut cases);
    authenticated(&mut cases);
    unusual(&mut cases);
    states(&mut cases);
    repeated(&mut cases);
    cases
}

/// Malformed packets (BFD-01 to 11).
fn malformed(cases: &mut Vec<Case>) {
    for length in 0..24 {
        up(cases, "BFD-01", format!("{length} octets"), DROP, move |octets| octets.truncate(length));
    }
    for version in [0, 2, 3, 4, 5, 6, 7] {
        up(cases, "BFD-02", format!("version {version}"), DROP, move |octets| octets[0] = version << 5);
    }
    up(cases, "BFD-03", "length 23".into(), DROP, |octets| octets[3] = 23);
    for length in [24, 25] {
        up(cases, "BFD-04", format!("length {length} with A"), DROP, move |octets| {
            octets[1] |= A;
            octets[3] = length;
            octets.resize(28, 0);
        });
    }
    up(cases, "BFD-05", "length 25 of 24".into(), DROP, |octets| octets[3] = 25);
    up(cases, "BFD-06", "1,472 octets".into(), ACCEPT, |octets| octets.resize(1_472, 0xff));
    up(cases, "BFD-07", "multiplier 0".into(), DROP, |octets| octets[2] = 0);
    up(cases, "BFD-08", "multipoint".into(), DROP, |octets| octets[1] |= 1);
    up(cases, "BFD-09", "my discriminator 0".into(), DROP, |octets| octets[4..8].fill(0));
    up(cases, "BFD-10", "unknown discriminator".into(), Expect::Drop(Discard::UnknownDiscriminator), |octets| {
        octets[8] ^= 0xff;
    });
    for state in [2, 3] {
        up(cases, "BFD-11", format!("your discriminator 0, state {state}"), DROP, move |octets| {
            octets[1] = state << 6;
            octets[8..12].fill(0);
        });
    }
}

/// Valid packets with a wrong source, destination or TTL (BFD-12 to 17, 44 to 46).
fn misdirected(cases: &mut Vec<Case>) {
    let mut add = |id, hops, envelope, what: &str, reason: Option<Discard>, hello: bool| {
        let expect = reason.map_or(ACCEPT, Expect::Drop);
        let prelude = if hello { Prelude::Fresh } else { Prelude::Up };
        let payload: Box<dyn Fn(Discriminator) -> Vec<u8>> = if hello {
            Box::new(|mine| {
                ControlPacket { state: State::Down, your_discriminator: None, ..packet(mine) }.encode().to_vec()
            })
        } else {
            Box::new(|mine| packet(mine).encode().to_vec())
        };
        cases.push(Case {
            id,
            what: what.into(),
            hops,
            prelude,
            envelope,
            echo: false,
            payload,
            times: 1,
            expect,
            then: None,
        });
    };
    let (single, multiple) = (Hops::Single, Hops::Multiple);
    add("BFD-12", single, Envelope::Stranger, "hello of a stranger", Some(Discard::UnknownNeighbor), true);
    add("BFD-13", single, Envelope::OtherInterface, "hello by another interface", Some(Discard::UnknownNeighbor), true);
    add("BFD-14", single, Envelope::Stranger, "discriminator of another neighbour", Some(Discard::WrongPath), false);
    for ttl in [0, 1, 64, 254] {
        add("BFD-15", single, Envelope::Ttl(ttl), "routed to a single-hop session", Some(Discard::Ttl), false);
    }
    add("BFD-16", multiple, Envelope::Ttl(254), "at the minimum", None, false);
    add("BFD-16", multiple, Envelope::Ttl(253), "below the minimum", Some(Discard::Ttl), false);
    add("BFD-17", single, Envelope::OtherPort, "single-hop session, port 4784", Some(Discard::WrongPath), false);
    add("BFD-17", multiple, Envelope::OtherPort, "multi-hop session, port 3784", Some(Discard::WrongPath), false);
    add("BFD-44", single, Envelope::OwnAddress, "from our own address", Some(Discard::OwnAddress), false);
    add("BFD-45", single, Envelope::OtherInterface, "right address in another zone", Some(Discard::WrongPath), false);
    for (ttl, what, reason) in [
        (TTL, "to return, echo off", Discard::Echo),
        (TTL - 1, "forged return", Discard::Echo),
        (64, "from far away", Discard::Ttl),
    ] {
        let payload = Box::new(|mine: Discriminator| {
            let mut octets = vec![0; 24];
            octets[0] = 1;
            octets[4..8].copy_from_slice(&mine.get().to_be_bytes());
            octets
        });
        let (prelude, envelope) = (Prelude::Up, Envelope::Ttl(ttl));
        let expect = Expect::Drop(reason);
        cases.push(Case {
            id: "BFD-46",
            what: what.into(),
            hops: single,
            prelude,
            envelope,
            echo: true,
            payload,
            times: 1,
            expect,
            then: None,
        });
    }
}

/// Packets with an authentication section (BFD-18 to 20). Authentication is not supported, so every such packet is
/// dropped, whatever its type, key, digest and sequence number are. It changes no state and restarts no timer.
fn authenticated(cases: &mut Vec<Case>) {
    let refused = Expect::Drop(Discard::Authentication);
    let section = |kind: u8, length: u8, key: u8, sequence: u32| {
        move |octets: &mut Vec<u8>| {
            octets[1] |= A;
            octets[3] = 24 + length;
            octets.extend([kind, length, key, 0]);
            octets.extend(sequence.to_be_bytes());
            octets.resize(24 + usize::from(length), 0);
        }
    };
    up(cases, "BFD-18", "neither side authenticates".into(), ACCEPT, |_| {});
    up(cases, "BFD-18", "simple password".into(), refused, section(1, 9, 1, 0));
    for prelude in [Prelude::Fresh, Prelude::Init, Prelude::AdminDown] {
        for hops in [Hops::Single, Hops::Multiple] {
            up(cases, "BFD-18", format!("simple password, {prelude:?}, {hops:?}"), refused, section(1, 9, 1, 0));
            if let Some(case) = cases.last_mut() {
                (case.prelude, case.hops) = (prelude, hops);
            }
        }
    }
    up(cases, "BFD-18", "A, and no section".into(), DROP, |octets| octets[1] |= A);
    for (kind, length) in [(0, 24), (6, 24), (255, 28), (2, 23), (2, 24), (3, 24), (4, 27), (4, 28), (5, 28), (5, 29)] {
        up(cases, "BFD-19", format!("type {kind}, length {length}"), refused, section(kind, length, 1, 1));
    }
    for key in [0, 2, 255] {
        up(cases, "BFD-19", format!("SHA1, key {key}"), refused, section(4, 28, key, 1));
    }
    for octet in [32, 51] {
        up(cases, "BFD-19", format!("SHA1, a bit of octet {octet} is another"), refused, move |octets| {
            section(4, 28, 1, 1)(octets);
            octets[octet] ^= 1;
        });
    }
    // Sequence numbers around 100, with a multiplier of 3.
    for kind in [2, 3, 4, 5] {
        for sequence in [100, 99, 109, 110, u32::MAX, 0] {
            let length = if kind < 4 { 24 } else { 28 };
            let what = format!("type {kind}, sequence {sequence}");
            up(cases, "BFD-20", what, refused, section(kind, length, 1, sequence));
        }
    }
}

/// Valid packets with extreme values (BFD-27 to 30, 33, 34, 36).
fn unusual(cases: &mut Vec<Case>) {
    up(cases, "BFD-27", "wants no packets, and polls".into(), ANSWERED, |octets| {
        octets[1] |= P;
        octets[16..20].fill(0);
    });
    up(cases, "BFD-28", "wants a packet in 71 minutes".into(), ACCEPT, |octets| octets[16..20].fill(0xff));
    up(cases, "BFD-29", "detection in 12.7 days".into(), ACCEPT, |octets| {
        octets[2] = 0xff;
        octets[12..16].fill(0xff);
    });
    up(cases, "BFD-30", "would like to send every microsecond".into(), ACCEPT, |octets| {
        octets[12..16].copy_from_slice(&[0, 0, 0, 1]);
    });
    up(cases, "BFD-33", "F without a poll of ours".into(), ACCEPT, |octets| octets[1] |= F);
    up(cases, "BFD-34", "P and F".into(), ANSWERED, |octets| octets[1] |= P | F);
    up(cases, "BFD-36", "P to a session held down".into(), Expect::Drop(Discard::AdminDown), |octets| octets[1] |= P);
    if let Some(case) = cases.last_mut() {
        case.prelude = Prelude::AdminDown;
    }
}

/// The state machine (BFD-22): local states in rows, received states in columns (RFC 5880 §6.8.6); `None`: discarded.
fn states(cases: &mut Vec<Case>) {
    use State::{Down, Init, Up};
    let table = [
        (Prelude::AdminDown, [None; 4]),
        (Prelude::Fresh, [Some(Down), Some(Init), Some(Up), Some(Down)]),
        (Prelude::Init, [Some(Down), Some(Init), Some(Up), Some(Up)]),
        (Prelude::Up, [Some(Down), Some(Down), Some(Up), Some(Up)]),
    ];
    for (prelude, row) in table {
        for (received, then) in State::ALL.into_iter().zip(row) {
            for flags in [0, P, F, P | F] {
                let expect = match then {
                    Some(_) => Expect::Accept { answered: flags & P != 0 },
                    None => Expect::Drop(Discard::AdminDown),
                };
                up(
                    cases,
                    "BFD-22",
                    format!("{prelude:?} hears {received}, flags {flags:02x}"),
                    expect,
                    move |octets| {
                        octets[1] = octets[1] & 0x3f | (received as u8) << 6 | flags;
                    },
                );
                if let Some(case) = cases.last_mut() {
                    (case.prelude, case.then) = (prelude, then);
                }
            }
        }
    }
}

/// Repeated packets (BFD-21, 24, 35).
fn repeated(cases: &mut Vec<Case>) {
    let mut add = |id, what: &str, times, expect, then, change: fn(&mut Vec<u8>)| {
        up(cases, id, what.into(), expect, change);
        if let Some(case) = cases.last_mut() {
            (case.times, case.then) = (times, then);
        }
    };
    // RFC 5880 documents the risk. With TTL 255 only a host on the link can exploit it.
    add("BFD-21", "recorded and replayed, without authentication", 3, ACCEPT, None, |_| {});
    add("BFD-24", "rebooted, under another name", 1, ACCEPT, Some(State::Down), |octets| {
        octets[1] = 1 << 6;
        octets[4..8].copy_from_slice(&[0xa5; 4]);
        octets[8..12].fill(0);
    });
    add("BFD-35", "a storm of polls", 200, ANSWERED, None, |octets| octets[1] |= P);
}

fn up(cases: &mut Vec<Case>, id: &'static str, what: String, expect: Expect, change: impl Fn(&mut Vec<u8>) + 'static) {
    let payload = Box::new(move |mine| {
        let mut octets = packet(mine).encode().to_vec();
        change(&mut octets);
        octets
    });
    let (hops, prelude, envelope) = (Hops::Single, Prelude::Up, Envelope::Right);
    cases.push(Case { id, what, hops, prelude, envelope, echo: false, payload, times: 1, expect, then: None });
}

const DROP: Expect = Expect::Drop(Discard::Malformed);
const ACCEPT: Expect = Expect::Accept { answered: false };
const ANSWERED: Expect = Expect::Accept { answered: true };
const P: u8 = 0x20;
const F: u8 = 0x10;
const A: u8 = 0x04;

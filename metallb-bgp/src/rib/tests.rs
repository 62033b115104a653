use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::types::Asn;
use crate::wire::{DecodeContext, EXTENDED_MESSAGE_MAX, Message, decode};

const ENCODING: Encoding = Encoding { asn: Asn(64512), internal: false, four_octet_asn: true };

fn next_hops() -> NextHops {
    NextHops { v4: Some("10.0.0.1".parse().unwrap()), v6: Some("fd00::1".parse().unwrap()) }
}

fn route(prefix: &str, med: u32) -> (IpNet, Arc<Attributes>) {
    (prefix.parse().unwrap(), Arc::new(Attributes { med: Some(med), ..Attributes::default() }))
}

/// A router that accepts every route: the MED of each prefix.
#[derive(Debug, Default, Eq, PartialEq)]
struct Peer(BTreeMap<IpNet, u32>);

impl Peer {
    /// Applies a stream of messages and returns their lengths.
    fn receive(&mut self, mut bytes: &[u8], context: &DecodeContext) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some((message, size)) = decode(bytes, context).unwrap() {
            let Message::Update(update) = message else { panic!("{message:?}") };
            assert_eq!(update.outcome(), crate::wire::update::Outcome::Accept);
            for net in update.withdrawn_v4() {
                assert!(self.0.remove(&net.into()).is_some(), "{net} was withdrawn but never announced");
            }
            for net in update.withdrawn_v6() {
                assert!(self.0.remove(&net.into()).is_some(), "{net} was withdrawn but never announced");
            }
            let med = med(&bytes[..size]);
            self.0.extend(update.announced_v4().map(|net| (IpNet::from(net), med)));
            self.0.extend(update.announced_v6().map(|net| (IpNet::from(net), med)));
            sizes.push(size);
            bytes = &bytes[size..];
        }
        assert!(bytes.is_empty());
        sizes
    }
}

/// The MED of a message, found by the attribute's head, which no address of these tests contains.
fn med(message: &[u8]) -> u32 {
    let at = message.windows(3).position(|window| window == [0x80, 4, 4]);
    at.map_or(0, |at| u32::from_be_bytes(message[at + 3..at + 7].try_into().unwrap()))
}

fn context() -> DecodeContext {
    DecodeContext { local_asn: Asn(1), remote_asn: ENCODING.asn, extended_next_hop: true, ..DecodeContext::default() }
}

#[test]
fn unchanged_routes_send_nothing_and_one_change_sends_one_message() {
    let mut rib = AdjRibOut::default();
    let routes = [route("10.0.0.1/32", 1), route("10.0.0.2/32", 1), route("fd00::5/128", 1)];
    assert!(rib.set(routes.clone()));
    let mut out = Vec::new();
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 2);
    assert_eq!((rib.advertised(), rib.wanted()), (3, 3));
    assert!(!rib.set(routes.clone()));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 0);
    assert!(rib.change("10.0.0.2/32".parse().unwrap(), Some(&route("10.0.0.2/32", 9).1)));
    assert!(!rib.change("10.0.0.2/32".parse().unwrap(), Some(&route("10.0.0.2/32", 9).1)));
    assert!(!rib.change("10.0.0.9/32".parse().unwrap(), None));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 1);
    let mut peer = Peer::default();
    peer.receive(&out, &context());
    assert_eq!(
        peer.0,
        BTreeMap::from([
            ("10.0.0.1/32".parse().unwrap(), 1),
            ("10.0.0.2/32".parse().unwrap(), 9),
            ("fd00::5/128".parse().unwrap(), 1)
        ])
    );
}

#[test]
fn refresh_keeps_a_pending_withdrawal() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1), route("10.0.0.2/32", 1), route("fd00::5/128", 1)]);
    let (mut out, mut peer) = (Vec::new(), Peer::default());
    rib.update(&mut out, &ENCODING, &next_hops());
    rib.set([route("10.0.0.1/32", 1), route("fd00::5/128", 1)]);
    rib.replay(Some(Family::Ipv4));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 2, "a withdrawal and an announcement, nothing for IPv6");
    peer.receive(&out, &context());
    assert_eq!(peer.0.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1/32", "fd00::5/128"]);
}

#[test]
fn family_without_next_hop_is_not_advertised() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1), route("fd00::5/128", 1)]);
    let only = NextHops { v6: None, ..next_hops() };
    assert_eq!(rib.update(&mut Vec::new(), &ENCODING, &only), 1);
    assert_eq!((rib.advertised(), rib.wanted()), (1, 2));
}

#[test]
fn routes_of_a_family_that_loses_its_next_hop_are_withdrawn_and_return_with_it() {
    // More than one message, and in both tables.
    let many: Vec<_> = (0..3000_u16).map(|host| route(&format!("fd00::{host:x}/128"), 1)).collect();
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1)].into_iter().chain(many));
    rib.change("fd00:1::1/128".parse().unwrap(), Some(&route("fd00:1::1/128", 1).1));
    let mut peer = Peer::default();
    let mut exchange = |rib: &mut AdjRibOut, before: &NextHops, after: &NextHops| {
        let mut out = Vec::new();
        rib.change_next_hops(before, after);
        rib.update(&mut out, &ENCODING, after);
        peer.receive(&out, &context());
        let hop = |hop: Option<IpAddr>| match hop {
            Some(IpAddr::V6(v6)) => out.windows(16).any(|window| window == v6.octets()),
            _ => false,
        };
        (peer.0.len(), hop(after.v6), rib.advertised(), rib.wanted())
    };
    let (both, moved) = (next_hops(), NextHops { v6: Some("fd00::2".parse().unwrap()), ..next_hops() });
    let only_v4 = NextHops { v6: None, ..next_hops() };
    assert_eq!(exchange(&mut rib, &both, &both), (3002, true, 3002, 3002));
    assert_eq!(exchange(&mut rib, &both, &both), (3002, false, 3002, 3002), "nothing changed");
    assert_eq!(exchange(&mut rib, &both, &moved), (3002, true, 3002, 3002), "every route has the new next hop");
    assert_eq!(exchange(&mut rib, &moved, &only_v4), (1, false, 1, 3002));
    rib.change("fd00::1/128".parse().unwrap(), None);
    assert_eq!(exchange(&mut rib, &only_v4, &only_v4), (1, false, 1, 3001));
    assert_eq!(exchange(&mut rib, &only_v4, &both), (3001, true, 3001, 3001));
    rib.change("fd00::2/128".parse().unwrap(), None);
    assert_eq!(exchange(&mut rib, &both, &only_v4), (1, false, 1, 3000), "unwanted and without next hop");
    assert_eq!(exchange(&mut rib, &only_v4, &moved), (3000, true, 3000, 3000));
}

#[test]
fn ipv4_route_with_an_ipv6_next_hop_is_sent_in_multiprotocol_attributes() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1)]);
    let hops = NextHops { v4: Some("fe80::1".parse().unwrap()), v6: None };
    let (mut out, mut peer) = (Vec::new(), Peer::default());
    rib.update(&mut out, &ENCODING, &hops);
    peer.receive(&out, &context());
    assert_eq!(peer.0.len(), 1);
    out.clear();
    rib.set([]);
    rib.update(&mut out, &ENCODING, &hops);
    assert_eq!(&out[19..27], [0, 0, 0, 12, 0x90, 15, 0, 8]);
    peer.receive(&out, &context());
    assert!(peer.0.is_empty());
}

#[test]
fn unused_attribute_sets_are_dropped() {
    let mut rib = AdjRibOut::default();
    for med in 0..10_000 {
        rib.set([route("10.0.0.1/32", med)]);
        rib.update(&mut Vec::new(), &ENCODING, &next_hops());
    }
    assert!(!rib.sets.needs_sweep(), "at most a few dozen of ten thousand sets are left");
}

#[test]
fn hundred_thousand_routes_fill_every_message() {
    let shared = Arc::new(Attributes::default());
    let mut rib = AdjRibOut::default();
    rib.set(
        (0..100_000_u32).map(|n| (IpNet::from(IpAddr::from((0x0a00_0000 + n).to_be_bytes())), Arc::clone(&shared))),
    );
    let (mut out, mut peer) = (Vec::new(), Peer::default());
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 100_000_u64.div_ceil(810));
    peer.receive(&out, &context());
    assert_eq!(peer.0.len(), 100_000);
    out.clear();
    rib.set([]);
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 100_000_u64.div_ceil(814));
    peer.receive(&out, &context());
    assert!(peer.0.is_empty());
    assert_eq!((rib.advertised(), rib.wanted()), (0, 0));
}

/// Rows are inserted, changed and removed late; the peer sees only the routes.
#[test]
fn many_single_changes_equal_one_replacement_of_all_routes() {
    let net = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let (mut one, mut all) = (AdjRibOut::default(), AdjRibOut::default());
    let mut model: BTreeMap<IpNet, Arc<Attributes>> = (0..4000).map(|n| (net(4 * n), attributes(0))).collect();
    one.set(model.clone());
    let (mut peer, mut other) = (Peer::default(), Peer::default());
    let mut random = SmallRng::seed_from_u64(1);
    for step in 0..12_000 {
        let (place, kind) = (net(random.random_range(0..16_000)), random.random_range(0..8_u32));
        let wanted = (kind > 3).then(|| attributes((kind % 3) as u8));
        assert_eq!(one.change(place, wanted.as_ref()), model.get(&place) != wanted.as_ref(), "step {step}");
        match wanted {
            Some(wanted) => model.insert(place, wanted),
            None => model.remove(&place),
        };
        if step % 7 == 0 {
            let mut out = Vec::new();
            one.update(&mut out, &ENCODING, &next_hops());
            peer.receive(&out, &context());
            assert_eq!(one.advertised(), model.len(), "step {step}");
        }
    }
    all.set(model.clone());
    for (rib, peer) in [(&mut one, &mut peer), (&mut all, &mut other)] {
        let mut out = Vec::new();
        rib.update(&mut out, &ENCODING, &next_hops());
        peer.receive(&out, &context());
        assert_eq!((rib.advertised(), rib.wanted()), (model.len(), model.len()));
    }
    assert_eq!(peer.0, other.0);
}

#[test]
fn draining_attributes_have_graceful_shutdown_and_the_lowest_local_pref() {
    let drained = Attributes { local_pref: Some(200), communities: [5].into(), ..Attributes::default() }.draining();
    assert_eq!((drained.local_pref, drained.communities), (Some(0), [5, 0xffff_0000].into()));
}

#[test]
fn equal_prefixes_of_several_peers_are_stored_once() {
    let net = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let routes = |count: u32, set: u8| (0..count).map(move |number| (net(number), attributes(set)));
    let shared = SharedPrefixes::default();
    let mut ribs: [AdjRibOut; 3] = Default::default();
    ribs.iter_mut().for_each(|rib| rib.share_prefixes(&shared));
    let sharers = |ribs: &[AdjRibOut; 3]| ribs.each_ref().map(|rib| rib.v4.sharers());
    ribs[0].set(routes(1000, 0));
    ribs[1].set(routes(1000, 1));
    ribs[2].set(routes(999, 0));
    assert_eq!(sharers(&ribs), [2, 2, 1], "the attributes do not matter");
    ribs[2].set(routes(1000, 0));
    assert_eq!(sharers(&ribs), [3, 3, 3]);
    ribs[0].change(net(7), Some(&attributes(3)));
    assert_eq!(sharers(&ribs), [3, 3, 3], "other attributes for a known prefix");
    for number in 1000..3000 {
        ribs[0].change(net(number), Some(&attributes(0)));
    }
    assert_eq!(sharers(&ribs), [1, 2, 2]);
    for number in 1000..3000 {
        ribs[1].change(net(number), Some(&attributes(0)));
    }
    assert_eq!(sharers(&ribs), [2, 2, 1], "shared again");
    ribs[0].update(&mut Vec::new(), &ENCODING, &next_hops());
    ribs[0].set([]);
    ribs[0].update(&mut Vec::new(), &ENCODING, &next_hops());
    assert_eq!(sharers(&ribs)[1..], [1, 1], "a peer without routes shares nothing");
}

#[derive(Clone, Debug)]
enum Step {
    Set(BTreeMap<u8, u8>),
    Change(u8, Option<u8>),
    Transmit { room: usize, long: bool },
    Replay(Option<Family>),
    NewSession,
}

fn prefix(n: u8) -> IpNet {
    match n {
        0..128 => IpNet::new(IpAddr::from([10, n, 0, 0]), 16 + n % 17).unwrap().trunc(),
        _ => IpNet::new(IpAddr::from([0xfd00, n.into(), 0, 0, 0, 0, 0, 0]), 32 + n % 97).unwrap().trunc(),
    }
}

fn attributes(n: u8) -> Arc<Attributes> {
    Arc::new(Attributes {
        med: Some(1 + u32::from(n % 5)),
        communities: (0..u32::from(n)).collect(),
        ..Attributes::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => proptest::collection::btree_map(any::<u8>(), 0_u8..5, 0..200).prop_map(Step::Set),
        4 => (any::<u8>(), proptest::option::of(0_u8..5)).prop_map(|(n, set)| Step::Change(n, set)),
        4 => (1_usize..4, any::<bool>()).prop_map(|(room, long)| Step::Transmit { room, long }),
        1 => prop_oneof![Just(None), Just(Some(Family::Ipv4)), Just(Some(Family::Ipv6))].prop_map(Step::Replay),
        1 => Just(Step::NewSession),
    ]
}

proptest! {
    #[test]
    fn peer_ends_up_with_exactly_the_wanted_routes(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut rib, mut peer, mut model) = (AdjRibOut::default(), Peer::default(), BTreeMap::<IpNet, u32>::new());
        let context = DecodeContext { extended_messages: true, ..context() };
        for step in steps {
            match step {
                Step::Set(routes) => {
                    let med = |set: u8| attributes(set).med.unwrap();
                    let after: BTreeMap<IpNet, u32> =
                        routes.iter().map(|(n, set)| (prefix(*n), med(*set))).collect();
                    let changed = rib.set(routes.iter().map(|(n, set)| (prefix(*n), attributes(*set))));
                    prop_assert_eq!(changed, after != model);
                    model = after;
                }
                Step::Change(n, set) => {
                    let set = set.map(attributes);
                    rib.change(prefix(n), set.as_ref());
                    match set {
                        Some(set) => model.insert(prefix(n), set.med.unwrap()),
                        None => model.remove(&prefix(n)),
                    };
                }
                Step::Transmit { room, long } => {
                    // A connection that accepts only a few messages.
                    let max = if long { EXTENDED_MESSAGE_MAX } else { 160 };
                    let mut out = vec![0; room * max];
                    let sent = rib.poll_transmit(&mut out, &ENCODING, &next_hops(), max);
                    let sizes = peer.receive(&out[..sent.bytes], &context);
                    prop_assert_eq!(sizes.len() as u64, sent.messages);
                    prop_assert!(sizes.iter().all(|size| *size <= max));
                }
                Step::Replay(family) => rib.replay(family),
                Step::NewSession => {
                    rib.reset();
                    peer = Peer::default();
                }
            }
            prop_assert_eq!(rib.advertised(), peer.0.len());
            prop_assert_eq!(rib.wanted(), model.len());
        }
        let mut out = Vec::new();
        rib.update(&mut out, &ENCODING, &next_hops());
        peer.receive(&out, &context);
        prop_assert_eq!(peer.0, model);
        prop_assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 0);
    }

    /// Three peers share prefixes, and each has a twin that does not share.
    #[test]
    fn sharing_prefixes_does_not_change_the_messages(
        steps in proptest::collection::vec((0_usize..4, step()), 1..40)
    ) {
        let shared = SharedPrefixes::default();
        let mut ribs: [AdjRibOut; 3] = Default::default();
        ribs.iter_mut().for_each(|rib| rib.share_prefixes(&shared));
        let mut twins: [AdjRibOut; 3] = Default::default();
        for (target, step) in steps {
            let both = ribs.iter_mut().zip(&mut twins).enumerate();
            // 3 means all peers, so that there is something to share.
            for (_, (rib, twin)) in both.filter(|(number, _)| target == 3 || target == *number) {
                let [one, other] = [rib, twin].map(|rib| apply(rib, &step));
                prop_assert_eq!(one, other);
            }
            for (rib, twin) in ribs.iter().zip(&twins) {
                prop_assert_eq!((rib.advertised(), rib.wanted()), (twin.advertised(), twin.wanted()));
            }
        }
        for (rib, twin) in ribs.iter_mut().zip(&mut twins) {
            let [one, other] = [rib, twin].map(|rib| apply(rib, &Step::Transmit { room: 9, long: true }));
            prop_assert_eq!(one, other);
        }
    }
}

/// Applies a step and returns the bytes sent.
fn apply(rib: &mut AdjRibOut, step: &Step) -> Vec<u8> {
    match step {
        Step::Set(routes) => {
            rib.set(routes.iter().map(|(n, set)| (prefix(*n), attributes(*set))));
        }
        Step::Change(n, set) => {
            rib.change(prefix(*n), set.map(attributes).as_ref());
        }
        Step::Transmit { room, long } => {
            let max = if *long { EXTENDED_MESSAGE_MAX } else { 160 };
            let mut out = vec![0; room * max];
            let sent = rib.poll_transmit(&mut out, &ENCODING, &next_hops(), max);
            out.truncate(sent.bytes);
            return out;
        }
        Step::Replay(family) => rib.replay(*family),
        Step::NewSession => rib.reset(),
    }
    Vec::new()
}

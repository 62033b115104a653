use std::collections::BTreeMap;

use proptest::prelude::*;

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

/// A router that believes everything: prefix to the bytes of the attributes that came with it.
#[derive(Debug, Default, Eq, PartialEq)]
struct Peer(BTreeMap<IpNet, u32>);

impl Peer {
    /// Takes a stream in and returns the sizes of its messages.
    fn hear(&mut self, mut bytes: &[u8], context: &DecodeContext) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some((message, size)) = decode(bytes, context).unwrap() {
            let Message::Update(update) = message else { panic!("{message:?}") };
            assert_eq!(update.outcome(), crate::wire::update::Outcome::Accept);
            for net in update.withdrawn_v4() {
                assert!(self.0.remove(&net.into()).is_some(), "{net} was withdrawn but never offered");
            }
            for net in update.withdrawn_v6() {
                assert!(self.0.remove(&net.into()).is_some(), "{net} was withdrawn but never offered");
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

/// The MED of a message, found by its head, which no address of these tests contains.
fn med(message: &[u8]) -> u32 {
    let at = message.windows(3).position(|window| window == [0x80, 4, 4]);
    at.map_or(0, |at| u32::from_be_bytes(message[at + 3..at + 7].try_into().unwrap()))
}

fn context() -> DecodeContext {
    DecodeContext { local_asn: Asn(1), remote_asn: ENCODING.asn, extended_next_hop: true, ..DecodeContext::default() }
}

#[test]
fn same_routes_again_say_nothing_and_one_change_says_one_message() {
    let mut rib = AdjRibOut::default();
    let routes = [route("10.0.0.1/32", 1), route("10.0.0.2/32", 1), route("fd00::5/128", 1)];
    assert!(rib.set(routes.clone()));
    let mut out = Vec::new();
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 2);
    assert_eq!((rib.told(), rib.wanted()), (3, 3));
    assert!(!rib.set(routes.clone()));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 0);
    assert!(rib.change("10.0.0.2/32".parse().unwrap(), Some(&route("10.0.0.2/32", 9).1)));
    assert!(!rib.change("10.0.0.2/32".parse().unwrap(), Some(&route("10.0.0.2/32", 9).1)));
    assert!(!rib.change("10.0.0.9/32".parse().unwrap(), None));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 1);
    let mut peer = Peer::default();
    peer.hear(&out, &context());
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
fn refresh_while_a_withdrawal_is_due_does_not_lose_it() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1), route("10.0.0.2/32", 1), route("fd00::5/128", 1)]);
    let (mut out, mut peer) = (Vec::new(), Peer::default());
    rib.update(&mut out, &ENCODING, &next_hops());
    rib.set([route("10.0.0.1/32", 1), route("fd00::5/128", 1)]);
    rib.replay(Some(Family::Ipv4));
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 2, "a withdrawal and an offer, nothing of IPv6");
    peer.hear(&out, &context());
    assert_eq!(peer.0.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1/32", "fd00::5/128"]);
}

#[test]
fn family_without_next_hop_is_kept_back() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1), route("fd00::5/128", 1)]);
    let only = NextHops { v6: None, ..next_hops() };
    assert_eq!(rib.update(&mut Vec::new(), &ENCODING, &only), 1);
    assert_eq!((rib.told(), rib.wanted()), (1, 2));
}

#[test]
fn ipv4_behind_an_ipv6_next_hop_is_offered_and_withdrawn_by_multiprotocol() {
    let mut rib = AdjRibOut::default();
    rib.set([route("10.0.0.1/32", 1)]);
    let hops = NextHops { v4: Some("fe80::1".parse().unwrap()), v6: None };
    let (mut out, mut peer) = (Vec::new(), Peer::default());
    rib.update(&mut out, &ENCODING, &hops);
    peer.hear(&out, &context());
    assert_eq!(peer.0.len(), 1);
    out.clear();
    rib.set([]);
    rib.update(&mut out, &ENCODING, &hops);
    assert_eq!(&out[19..27], [0, 0, 0, 12, 0x90, 15, 0, 8]);
    peer.hear(&out, &context());
    assert!(peer.0.is_empty());
}

#[test]
fn attributes_that_nobody_uses_any_more_are_dropped() {
    let mut rib = AdjRibOut::default();
    for med in 0..10_000 {
        rib.set([route("10.0.0.1/32", med)]);
        rib.update(&mut Vec::new(), &ENCODING, &next_hops());
    }
    assert!(!rib.sets.crowded(), "at most a few dozen of ten thousand are left");
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
    peer.hear(&out, &context());
    assert_eq!(peer.0.len(), 100_000);
    out.clear();
    rib.set([]);
    assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 100_000_u64.div_ceil(814));
    peer.hear(&out, &context());
    assert!(peer.0.is_empty());
    assert_eq!((rib.told(), rib.wanted()), (0, 0));
}

/// Rows that are new, come and go, and are dropped late: the peer never notices.
#[test]
fn thousands_of_single_changes_between_many_routes_lead_where_replacing_all_leads() {
    let net = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let (mut one, mut all) = (AdjRibOut::default(), AdjRibOut::default());
    let mut model: BTreeMap<IpNet, Arc<Attributes>> = (0..4000).map(|n| (net(4 * n), attributes(0))).collect();
    one.set(model.clone());
    let (mut peer, mut other) = (Peer::default(), Peer::default());
    let mut random = 1_u32;
    for step in 0..12_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (place, kind) = (net((random >> 8) % 16_000), random >> 29);
        let wanted = (kind > 3).then(|| attributes((kind % 3) as u8));
        assert_eq!(one.change(place, wanted.as_ref()), model.get(&place) != wanted.as_ref(), "step {step}");
        match wanted {
            Some(wanted) => model.insert(place, wanted),
            None => model.remove(&place),
        };
        if step % 7 == 0 {
            let mut out = Vec::new();
            one.update(&mut out, &ENCODING, &next_hops());
            peer.hear(&out, &context());
            assert_eq!(one.told(), model.len(), "step {step}");
        }
    }
    all.set(model.clone());
    for (rib, peer) in [(&mut one, &mut peer), (&mut all, &mut other)] {
        let mut out = Vec::new();
        rib.update(&mut out, &ENCODING, &next_hops());
        peer.hear(&out, &context());
        assert_eq!((rib.told(), rib.wanted()), (model.len(), model.len()));
    }
    assert_eq!(peer.0, other.0);
}

#[test]
fn draining_attributes_ask_to_be_left_alone() {
    let drained = Attributes { local_pref: Some(200), communities: [5].into(), ..Attributes::default() }.draining();
    assert_eq!((drained.local_pref, drained.communities), (Some(0), [5, 0xffff_0000].into()));
}

#[test]
fn prefixes_of_peers_that_are_offered_the_same_are_kept_once() {
    let net = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let routes = |count: u32, set: u8| (0..count).map(move |number| (net(number), attributes(set)));
    let shared = SharedPrefixes::default();
    let mut ribs: [AdjRibOut; 3] = Default::default();
    ribs.iter_mut().for_each(|rib| rib.share_prefixes(&shared));
    let holders = |ribs: &[AdjRibOut; 3]| ribs.each_ref().map(|rib| rib.v4.holders());
    ribs[0].set(routes(1000, 0));
    ribs[1].set(routes(1000, 1));
    ribs[2].set(routes(999, 0));
    assert_eq!(holders(&ribs), [2, 2, 1], "whatever the attributes");
    ribs[2].set(routes(1000, 0));
    assert_eq!(holders(&ribs), [3, 3, 3]);
    ribs[0].change(net(7), Some(&attributes(3)));
    assert_eq!(holders(&ribs), [3, 3, 3], "a route that is told otherwise");
    for number in 1000..3000 {
        ribs[0].change(net(number), Some(&attributes(0)));
    }
    assert_eq!(holders(&ribs), [1, 2, 2]);
    for number in 1000..3000 {
        ribs[1].change(net(number), Some(&attributes(0)));
    }
    assert_eq!(holders(&ribs), [2, 2, 1], "found again");
    ribs[0].update(&mut Vec::new(), &ENCODING, &next_hops());
    ribs[0].set([]);
    ribs[0].update(&mut Vec::new(), &ENCODING, &next_hops());
    assert_eq!(holders(&ribs)[1..], [1, 1], "nothing is kept for whoever has no routes");
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
    fn peer_ends_up_with_exactly_the_routes_wanted(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut rib, mut peer, mut model) = (AdjRibOut::default(), Peer::default(), BTreeMap::<IpNet, u32>::new());
        let context = DecodeContext { extended_messages: true, ..context() };
        for step in steps {
            match step {
                Step::Set(routes) => {
                    let after: BTreeMap<IpNet, u32> = routes.iter().map(|(n, set)| (prefix(*n), attributes(*set).med.unwrap())).collect();
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
                    // A connection that takes a few messages and no more.
                    let most = if long { EXTENDED_MESSAGE_MAX } else { 160 };
                    let mut out = vec![0; room * most];
                    let sent = rib.poll_transmit(&mut out, &ENCODING, &next_hops(), most);
                    let sizes = peer.hear(&out[..sent.bytes], &context);
                    prop_assert_eq!(sizes.len() as u64, sent.messages);
                    prop_assert!(sizes.iter().all(|size| *size <= most));
                }
                Step::Replay(family) => rib.replay(family),
                Step::NewSession => {
                    rib.reset();
                    peer = Peer::default();
                }
            }
            prop_assert_eq!(rib.told(), peer.0.len());
            prop_assert_eq!(rib.wanted(), model.len());
        }
        let mut out = Vec::new();
        rib.update(&mut out, &ENCODING, &next_hops());
        peer.hear(&out, &context);
        prop_assert_eq!(peer.0, model);
        prop_assert_eq!(rib.update(&mut out, &ENCODING, &next_hops()), 0);
    }

    /// Three peers share prefixes, and each has a twin that shares with nobody.
    #[test]
    fn peer_that_shares_prefixes_is_told_the_same_bytes(
        steps in proptest::collection::vec((0_usize..4, step()), 1..40)
    ) {
        let shared = SharedPrefixes::default();
        let mut ribs: [AdjRibOut; 3] = Default::default();
        ribs.iter_mut().for_each(|rib| rib.share_prefixes(&shared));
        let mut twins: [AdjRibOut; 3] = Default::default();
        for (who, step) in steps {
            let both = ribs.iter_mut().zip(&mut twins).enumerate();
            // Often all do the same, so that there is something to share.
            for (_, (rib, twin)) in both.filter(|(number, _)| who == 3 || who == *number) {
                let [one, other] = [rib, twin].map(|rib| take(rib, &step));
                prop_assert_eq!(one, other);
            }
            for (rib, twin) in ribs.iter().zip(&twins) {
                prop_assert_eq!((rib.told(), rib.wanted()), (twin.told(), twin.wanted()));
            }
        }
        for (rib, twin) in ribs.iter_mut().zip(&mut twins) {
            let [one, other] = [rib, twin].map(|rib| take(rib, &Step::Transmit { room: 9, long: true }));
            prop_assert_eq!(one, other);
        }
    }
}

/// What the peer is told of it.
fn take(rib: &mut AdjRibOut, step: &Step) -> Vec<u8> {
    match step {
        Step::Set(routes) => {
            rib.set(routes.iter().map(|(n, set)| (prefix(*n), attributes(*set))));
        }
        Step::Change(n, set) => {
            rib.change(prefix(*n), set.map(attributes).as_ref());
        }
        Step::Transmit { room, long } => {
            let most = if *long { EXTENDED_MESSAGE_MAX } else { 160 };
            let mut out = vec![0; room * most];
            let sent = rib.poll_transmit(&mut out, &ENCODING, &next_hops(), most);
            out.truncate(sent.bytes);
            return out;
        }
        Step::Replay(family) => rib.replay(*family),
        Step::NewSession => rib.reset(),
    }
    Vec::new()
}

use super::*;
use crate::wire::update::{Outcome, Update, end_of_rib};
use crate::wire::{DecodeContext, EXTENDED_MESSAGE_MAX, Message, decode, keepalive};

const EXTERNAL: Encoding = Encoding { asn: Asn(64512), internal: false, four_octet_asn: true };
const OLD: Encoding = Encoding { four_octet_asn: false, ..EXTERNAL };
const INTERNAL: Encoding = Encoding { internal: true, ..EXTERNAL };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn v4(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn announced(encoding: &Encoding, attributes: &Attributes, next_hop: &str, prefix: &str) -> String {
    let mut out = Vec::new();
    let prefix: IpNet = prefix.parse().unwrap();
    let template = Template::announce(encoding, attributes, next_hop.parse().unwrap(), Family::of(prefix.addr()));
    match prefix {
        IpNet::V4(net) => template.write(&mut out, &[net]),
        IpNet::V6(net) => template.write(&mut out, &[net]),
    }
    hex(&out[16..])
}

fn decoded(bytes: &[u8], context: &DecodeContext) -> Vec<Update<'static>> {
    let (mut rest, mut updates) = (&*bytes.to_vec().leak(), Vec::new());
    while let Some((message, size)) = decode(rest, context).unwrap() {
        let Message::Update(update) = message else { panic!("{message:?}") };
        updates.push(update);
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
    updates
}

#[test]
fn updates_have_the_same_bytes_as_those_of_metallbs_native_speaker() {
    let plain = Attributes::default();
    let unset = Attributes { local_pref: Some(0), ..Attributes::default() };
    let tagged = Attributes { local_pref: Some(50), communities: [0xffff_ff02].into(), ..Attributes::default() };
    let two = Attributes { communities: [1234, 2345].into(), ..Attributes::default() };
    let rows = [
        (
            "external peer, two octets, communities",
            announced(&Encoding { asn: Asn(65000), ..OLD }, &two, "192.168.123.10", "172.16.0.0/24"),
            "0038020000001d400101004002040201fde8400304c0a87b0ac00808000004d20000092918ac1000",
        ),
        (
            "external peer",
            announced(&EXTERNAL, &plain, "172.18.0.2", "192.168.10.1/32"),
            "003002000000144001010040020602010000fc00400304ac12000220c0a80a01",
        ),
        (
            "external peer, two octets",
            announced(&OLD, &plain, "172.18.0.2", "192.168.10.1/32"),
            "002e0200000012400101004002040201fc00400304ac12000220c0a80a01",
        ),
        (
            "internal peer",
            announced(&INTERNAL, &unset, "172.18.0.2", "192.168.10.1/32"),
            "003102000000154001010040020040 0304ac1200024005040000000020c0a80a01",
        ),
        (
            "internal peer, LOCAL_PREF and community",
            announced(&INTERNAL, &tagged, "172.18.0.2", "192.168.10.1/32"),
            "0038020000001c40010100400200400304ac12000240050400000032c00804ffffff0220c0a80a01",
        ),
        (
            "external peer, /20",
            announced(&EXTERNAL, &plain, "172.18.0.2", "10.1.16.0/20"),
            "002f02000000144001010040020602010000fc00400304ac120002140a0110",
        ),
        (
            "external peer, /25",
            announced(&EXTERNAL, &plain, "172.18.0.2", "192.168.10.0/25"),
            "003002000000144001010040020602010000fc00400304ac12000219c0a80a00",
        ),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, expected.replace(' ', ""), "{name}");
    }
    let mut out = Vec::new();
    withdraw(&mut out, Family::Ipv4, &mut [IpNet::V4(v4("192.168.10.1/32"))].into_iter());
    assert_eq!(hex(&out[16..]), "001c02000520c0a80a010000", "withdrawal of a host route");
    out.clear();
    withdraw(
        &mut out,
        Family::Ipv4,
        &mut ["192.168.10.1/32", "10.1.16.0/20"].map(|text| IpNet::V4(v4(text))).into_iter(),
    );
    assert_eq!(hex(&out[16..]), "002002000920c0a80a01140a01100000", "withdrawal of two prefixes");
    out.clear();
    keepalive(&mut out);
    assert_eq!(hex(&out[16..]), "001304", "KEEPALIVE");
}

#[test]
fn four_octet_asn_is_sent_to_a_two_octet_peer_as_as_trans_with_as4_path() {
    let encoding = Encoding { asn: Asn(4_200_000_000), ..OLD };
    let found = announced(&encoding, &Attributes::default(), "172.18.0.2", "192.168.10.1/32");
    assert_eq!(found, "0037020000001b4001010040020402015ba0400304ac120002c011060201fa56ea0020c0a80a01");
}

#[test]
fn large_communities_and_med_are_encoded() {
    let attributes = Attributes { med: Some(7), large_communities: [(1, 2, 3)].into(), ..Attributes::default() };
    assert_eq!(
        announced(&EXTERNAL, &attributes, "172.18.0.2", "192.168.10.1/32"),
        "0046020000002a4001010040020602010000fc00400304ac12000280040400000007c0200c00000001000000020000000320c0a80a01"
    );
}

#[test]
fn prefixes_with_an_ipv6_next_hop_are_in_mp_reach_nlri_before_other_attributes() {
    let plain = Attributes::default();
    assert_eq!(
        announced(&EXTERNAL, &plain, "fd00::1", "fd00::aa/128"),
        "004e0200000037900e0026000201 10fd000000000000000000000000000001 00 80fd0000000000000000000000000000aa \
         400101004002 0602010000fc00"
            .replace(' ', "")
    );
    assert_eq!(
        announced(&EXTERNAL, &plain, "fe80::1", "192.0.2.1/32"),
        "0042020000002b900e001a000101 10fe800000000000000000000000000001 00 20c0000201 400101004002 0602010000fc00"
            .replace(' ', "")
    );
}

#[test]
fn messages_are_filled_up_to_the_maximum_length() {
    let context = DecodeContext { local_asn: Asn(1), remote_asn: Asn(64512), ..DecodeContext::default() };
    let hosts: Vec<Ipv4Net> = v4("10.0.0.0/8").hosts().take(2000).map(Ipv4Net::from).collect();
    let template = Template::announce(&EXTERNAL, &Attributes::default(), "10.0.0.1".parse().unwrap(), Family::Ipv4);
    let mut out = Vec::new();
    template.write(&mut out, &hosts);
    let counts: Vec<usize> = decoded(&out, &context).iter().map(Update::announced).collect();
    assert_eq!(counts, [810, 810, 380], "43 bytes, then (4096 − 43) / 5 prefixes");
    out.clear();
    Template::withdraw(Family::Ipv4, false).write(&mut out, &hosts);
    assert_eq!(decoded(&out, &context)[0].withdrawn_v4().count(), 814, "(4096 − 23) / 5");
    // RFC 8654: one message holds them all.
    let mut long = vec![0; EXTENDED_MESSAGE_MAX];
    let (bytes, count) = template.fill(&mut long, hosts.iter().copied());
    assert_eq!((bytes, count), (43 + 5 * 2000, 2000));
    let extended = DecodeContext { extended_messages: true, ..context };
    assert_eq!(decoded(&long[..bytes], &extended)[0].announced(), 2000);
    assert!(decode(&long[..bytes], &context).is_err(), "extended messages were not negotiated");
}

#[test]
fn template_without_room_for_a_prefix_writes_nothing() {
    let template = Template::withdraw(Family::Ipv4, false);
    for size in 0..28 {
        assert_eq!(template.fill(&mut vec![0; size], [v4("10.0.0.1/32")].into_iter()), (0, 0), "{size}");
    }
    assert_eq!(template.fill(&mut [0; 28], [v4("10.0.0.1/32")].into_iter()), (28, 1));
}

#[test]
fn end_of_rib_is_decoded_as_end_of_rib() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut out = Vec::new();
        end_of_rib(&mut out, family);
        let update = decoded(&out, &DecodeContext::default())[0];
        assert_eq!((update.end_of_rib(), update.announced(), update.outcome()), (Some(family), 0, Outcome::Accept));
    }
}

mod properties {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn attributes()(
            med: Option<u32>, local_pref: Option<u32>,
            communities in proptest::collection::btree_set(any::<u32>(), 0..80),
            large_communities in proptest::collection::btree_set(any::<(u32, u32, u32)>(), 0..30),
        ) -> Attributes {
            Attributes { med, local_pref, communities, large_communities }
        }
    }

    proptest! {
        #[test]
        fn encoded_updates_are_decoded_without_fault(
            attributes in attributes(),
            asn in 1_u32.., internal: bool, four_octet_asn: bool,
            v4 in proptest::collection::btree_set((any::<u32>(), 0_u8..=32), 1..1200),
            v6 in proptest::collection::btree_set((any::<u128>(), 0_u8..=128), 1..300),
        ) {
            let encoding = Encoding { asn: Asn(asn), internal, four_octet_asn };
            let local_asn = if internal { Asn(asn) } else { Asn(asn ^ 1) };
            let mut context = DecodeContext::new(local_asn, Asn(asn));
            context.four_octet_asn = four_octet_asn;
            context.extended_next_hop = true;
            let net4 = |(ip, len): (u32, u8)| Ipv4Net::new(ip.into(), len).unwrap().trunc();
            let net6 = |(ip, len): (u128, u8)| Ipv6Net::new(ip.into(), len).unwrap().trunc();
            let v4: BTreeSet<Ipv4Net> = v4.into_iter().map(net4).collect();
            let v6: BTreeSet<Ipv6Net> = v6.into_iter().map(net6).collect();
            let (list4, list6): (Vec<_>, Vec<_>) = (v4.iter().copied().collect(), v6.iter().copied().collect());
            let mut out = Vec::new();
            let template = |next_hop: &str, family| {
                Template::announce(&encoding, &attributes, next_hop.parse().unwrap(), family)
            };
            template("10.0.0.1", Family::Ipv4).write(&mut out, &list4);
            template("fd00::1", Family::Ipv6).write(&mut out, &list6);
            let updates = decoded(&out, &context);
            prop_assert!(updates.iter().all(|update| update.outcome() == Outcome::Accept), "{updates:?}");
            prop_assert_eq!(updates.iter().flat_map(Update::announced_v4).collect::<BTreeSet<_>>(), v4.clone());
            prop_assert_eq!(updates.iter().flat_map(Update::announced_v6).collect::<BTreeSet<_>>(), v6.clone());
            for multiprotocol in [false, true] {
                out.clear();
                Template::withdraw(Family::Ipv4, multiprotocol).write(&mut out, &list4);
                Template::withdraw(Family::Ipv6, multiprotocol).write(&mut out, &list6);
                let updates = decoded(&out, &context);
                prop_assert_eq!(updates.iter().flat_map(Update::withdrawn_v4).collect::<BTreeSet<_>>(), v4.clone());
                prop_assert_eq!(updates.iter().flat_map(Update::withdrawn_v6).collect::<BTreeSet<_>>(), v6.clone());
            }
        }
    }
}

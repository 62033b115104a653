//! The cases of the table through the public decoder.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use metallb_bgp::types::{Asn, Family};
use metallb_bgp::wire::update::Outcome;
use metallb_bgp::wire::{DecodeContext, DecodeError, Message, decode};
use proptest::prelude::*;

use super::table::{KINDS, case_u28, cases, hex, message};

/// The reaction of the decoder to the last of some messages, in the notation of the table.
fn reaction(mut bytes: &[u8], context: &DecodeContext) -> String {
    loop {
        let (reaction, size) = reaction_to_one(bytes, context);
        match bytes.get(size..) {
            Some(rest) if size > 0 && !rest.is_empty() => bytes = rest,
            _ => return reaction,
        }
    }
}

/// The reaction to one message, and the length of the message.
fn reaction_to_one(bytes: &[u8], context: &DecodeContext) -> (String, usize) {
    let (reaction, size) = match decode(bytes, context) {
        Ok(None) => ("more", 0),
        Ok(Some((Message::Update(update), size))) => {
            let reaction = match (update.end_of_rib(), update.outcome()) {
                (Some(Family::Ipv4), Outcome::Accept) => "eor4",
                (Some(Family::Ipv6), Outcome::Accept) => "eor6",
                (_, Outcome::Accept) => "accept",
                (_, Outcome::AttributeDiscard(_)) => "discard",
                (_, Outcome::RouteIgnored(_)) => "ignore",
                (_, Outcome::TreatAsWithdraw(_)) => "withdraw",
                (_, Outcome::DisableFamily(_)) => "disable",
                (_, other) => panic!("{other:?}"),
            };
            (reaction, size)
        }
        Ok(Some((_, size))) => ("ok", size),
        Err(DecodeError::TruncatedNotification) => ("close", 0),
        Err(DecodeError::Notify(error)) => {
            // RFC 4271 §6.2: the only data that is not received is our version.
            let ours = (error.code, error.subcode) == (2, 1);
            let received = error.data.is_empty() || bytes.windows(error.data.len()).any(|window| window == error.data);
            assert!(ours || received, "I33: data that was not received: {error:?}");
            let data: String = error.data.iter().map(|byte| format!("{byte:02x}")).collect();
            return (format!("N {}/{} {data}", error.code, error.subcode).trim().to_owned(), 0);
        }
    };
    (reaction.to_owned(), size)
}

#[test]
fn decoder_reacts_to_every_case_as_in_the_table() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(bytes) = case.bytes else {
            assert!(KINDS.contains(&case.reaction.as_str()), "{}: {} is no reason", case.id, case.reaction);
            continue;
        };
        let expected = match case.reaction.strip_prefix("N ").and_then(|rest| rest.split_once(' ')) {
            Some((codes, data)) => {
                let data: String = hex(data).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("N {codes} {data}")
            }
            None => case.reaction.clone(),
        };
        let found = reaction(&bytes, &case.context);
        // A row without data accepts any data.
        let agrees = found == expected
            || (expected.starts_with("N ")
                && expected.matches(' ').count() == 1
                && found.starts_with(&format!("{expected} ")));
        if !agrees {
            wrong.push(format!("{} {:?} {:?}: {found}, not {expected}", case.id, case.when, case.how));
        }
        // Only messages that the decoder accepts reach the session.
        if case.answer.is_some() {
            assert!(!found.starts_with("N ") && found != "close", "{}", case.id);
        }
        // A truncated message is incomplete, or has an error in its header.
        let first = decode(&bytes, &case.context).ok().flatten().map_or(bytes.len(), |(_, size)| size);
        for cut in 0..first.min(64) {
            let short = decode(&bytes[..cut], &case.context);
            assert!(!matches!(short, Ok(Some(_))), "{} cut to {cut}", case.id);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn table_contains_all_194_cases() {
    let named: BTreeSet<&str> = cases().iter().map(|case| case.id).collect();
    let all = [("H", 22), ("O", 47), ("N", 11), ("U", 28), ("A", 63), ("F", 23)];
    let expected: BTreeSet<String> =
        all.iter().flat_map(|(kind, last)| (1..=*last).map(move |n| format!("{kind}{n:02}"))).collect();
    assert_eq!(expected.len(), 194);
    assert_eq!(named, expected.iter().map(String::as_str).collect());
}

#[test]
fn only_unknown_well_known_attributes_end_the_session() {
    let context = DecodeContext::new(Asn(64512), Asn(65001));
    let mut count = 0;
    for (bytes, fatal) in case_u28() {
        match decode(&bytes, &context) {
            Ok(Some(_)) => assert!(!fatal, "{bytes:02x?}"),
            Err(DecodeError::Notify(error)) => assert_eq!((fatal, error.code, error.subcode), (true, 3, 2)),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        count += 1;
    }
    assert_eq!(count, 10_752);
}

fn contexts() -> impl Strategy<Value = DecodeContext> {
    (any::<[bool; 7]>()).prop_map(|[internal, four, long, refresh, hop, ipv4, ipv6]| {
        let mut context = DecodeContext::new(Asn(64512), Asn(if internal { 64512 } else { 65001 }));
        context.four_octet_asn = four;
        context.extended_messages = long;
        context.enhanced_refresh = refresh;
        context.extended_next_hop = hop;
        (context.ipv4, context.ipv6) = (ipv4, ipv6);
        context
    })
}

/// The messages of the table, except for very long ones.
static ROWS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    cases().into_iter().filter_map(|case| case.bytes).filter(|bytes| (20..5_000).contains(&bytes.len())).collect()
});

proptest! {
    #[test]
    fn damaged_messages_never_panic(
        context in contexts(), pick: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = pick.get(&ROWS).clone();
        for (at, value) in damage {
            // The marker stays intact, so that decoding does not stop there.
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] = value;
        }
        reaction_of_any(&bytes, &context);
    }

    #[test]
    fn random_bodies_never_panic(
        context in contexts(), code in 0_u8..7, body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        reaction_of_any(&message(code, &body), &context);
    }
}

/// Decodes a message, iterates over all prefixes, and checks that the data of errors is a part of the message.
fn reaction_of_any(bytes: &[u8], context: &DecodeContext) {
    match decode(bytes, context) {
        Ok(Some((Message::Update(update), size))) => {
            assert!(size <= bytes.len());
            assert_eq!(update.announced_v4().count() + update.announced_v6().count(), update.announced());
            assert!(update.withdrawn_v4().count() + update.withdrawn_v6().count() <= bytes.len());
        }
        Err(DecodeError::Notify(error)) => assert!(error.data.len() <= bytes.len().min(4096)),
        _ => {}
    }
}

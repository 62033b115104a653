//! Checks on the reader of BGP messages: it never panics, quotes only what it received, and reads again what it wrote.

use std::collections::BTreeSet;

use metallb_bgp::types::{Asn, Attributes, Family};
use metallb_bgp::wire::template::{Encoding, Template};
use metallb_bgp::wire::{DecodeContext, DecodeError, Message, decode};

/// One octet that says what was negotiated, then a stream of messages.
pub fn bgp_message(data: &[u8]) {
    let Some((&flags, mut rest)) = data.split_first() else { return };
    let bit = |n: u8| flags & 1 << n != 0;
    let context = DecodeContext {
        local_asn: Asn(64512),
        remote_asn: Asn(if bit(0) { 64512 } else { 65001 }),
        four_octet_asn: !bit(1),
        extended_messages: bit(2),
        enhanced_refresh: bit(3),
        extended_next_hop: bit(4),
        ipv4: !bit(5),
        ipv6: !bit(6),
    };
    loop {
        match decode(rest, &context) {
            Ok(Some((message, size))) => {
                again(&message, &context);
                rest = &rest[size..];
            }
            Ok(None) | Err(DecodeError::BrokenNotification) => return,
            Err(DecodeError::Notify(error)) => {
                let version = (error.code, error.subcode) == (2, 1);
                let received = error.data.is_empty() || rest.windows(error.data.len()).any(|part| part == error.data);
                assert!(version || received, "{error:?} quotes what was not received");
                return;
            }
        }
    }
}

/// What was read can be written, and is read back as the same.
fn again(message: &Message<'_>, context: &DecodeContext) {
    let mut out = Vec::new();
    match message {
        Message::Open(open) => {
            open.encode(&mut out);
            match decode(&out, context) {
                Ok(Some((Message::Open(read), _))) => assert_eq!(read.capabilities, open.capabilities),
                other => panic!("{open:?} became {other:?}"),
            }
        }
        Message::Update(update) => {
            let v4: Vec<_> = update.announced_v4().collect();
            assert_eq!(v4.len() + update.announced_v6().count(), update.offered());
            if v4.is_empty() {
                return;
            }
            let encoding =
                Encoding { asn: context.remote_asn, internal: false, four_octet_asn: context.four_octet_asn };
            let external = DecodeContext { local_asn: Asn(1), ..*context };
            let next_hop = "10.0.0.1".parse().expect("an address");
            let template = Template::announce(&encoding, &Attributes::default(), next_hop, Family::Ipv4);
            template.write(&mut out, &v4);
            let (mut rest, mut read) = (&out[..], BTreeSet::new());
            while let Ok(Some((Message::Update(update), size))) = decode(rest, &external) {
                read.extend(update.announced_v4());
                rest = &rest[size..];
            }
            assert_eq!(read, v4.into_iter().collect());
        }
        Message::Notification(notification) => {
            notification.encode(&mut out);
            assert!(
                matches!(decode(&out, context), Ok(Some((Message::Notification(read), _))) if read == *notification)
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_holds() {
        let corpus = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/bgp_message")).expect("a corpus");
        let mut count = 0;
        for entry in corpus {
            bgp_message(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
            count += 1;
        }
        assert!(count > 200);
    }
}

//! Checks on the reader of BGP messages: it never panics, quotes only what it received, and reads again what it wrote.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_bgp::peer::Peer;
use metallb_bgp::rib::NextHops;
use metallb_bgp::session::{Action, BfdState, ConnectionError, Mode, RemoteAsn, SessionConfig, Slot, State, Stop};
use metallb_bgp::types::{Asn, Attributes, Family, RouterId};
use metallb_bgp::wire::refresh::RouteRefresh;
use metallb_bgp::wire::template::{Encoding, Template};
use metallb_bgp::wire::{DecodeContext, DecodeError, Message, decode};

/// One octet that says what was negotiated, then a stream of messages.
pub fn bgp_message(data: &[u8]) {
    if let Some((&flags, stream)) = data.split_first() {
        read(negotiated(flags), stream);
    }
}

/// One octet that says what was negotiated, then the body of an OPEN: nothing is lost on finding a marker and a length.
pub fn bgp_open(data: &[u8]) {
    body(1, data);
}

/// The same for an UPDATE.
pub fn bgp_update(data: &[u8]) {
    body(2, data);
}

/// The same for a NOTIFICATION.
pub fn bgp_notification(data: &[u8]) {
    body(3, data);
}

/// The same for a ROUTE-REFRESH.
pub fn bgp_refresh(data: &[u8]) {
    body(5, data);
}

fn body(kind: u8, data: &[u8]) {
    if let Some((&flags, body)) = data.split_first() {
        read(negotiated(flags), &framed(kind, body));
    }
}

fn negotiated(flags: u8) -> DecodeContext {
    let bit = |n: u8| flags & 1 << n != 0;
    let mut context = DecodeContext::new(Asn(64512), Asn(if bit(0) { 64512 } else { 65001 }));
    context.four_octet_asn = !bit(1);
    context.extended_messages = bit(2);
    context.enhanced_refresh = bit(3);
    context.extended_next_hop = bit(4);
    (context.ipv4, context.ipv6) = (!bit(5), !bit(6));
    context
}

fn read(context: DecodeContext, mut rest: &[u8]) {
    loop {
        match decode(rest, &context) {
            Ok(Some((message, size))) => {
                again(&message, &context);
                rest = &rest[size..];
            }
            Ok(None) | Err(DecodeError::TruncatedNotification) => return,
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
                Ok(Some((Message::Open(read), _))) => {
                    let mut sent = open.capabilities.clone();
                    // Other families are read and never sent.
                    sent.other_families = false;
                    assert_eq!(read.capabilities, sent);
                }
                other => panic!("{open:?} became {other:?}"),
            }
        }
        Message::Update(update) => {
            let withdrawn = update.withdrawn_v4().count() + update.withdrawn_v6().count();
            assert!(withdrawn <= 65_535 && update.announced() <= 65_535, "a prefix takes an octet at least");
            let v4: Vec<_> = update.announced_v4().collect();
            assert_eq!(v4.len() + update.announced_v6().count(), update.announced());
            if v4.is_empty() {
                return;
            }
            let encoding =
                Encoding { asn: context.remote_asn, internal: false, four_octet_asn: context.four_octet_asn };
            let mut external = *context;
            external.local_asn = Asn(1);
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
            let words = notification.to_string();
            assert!(!words.contains(char::is_control), "{words:?} could forge a line of the log");
        }
        Message::RouteRefresh(refresh) => {
            let Some(family) = refresh.family else { return };
            RouteRefresh::encode(&mut out, refresh.kind, family);
            assert!(matches!(decode(&out, context), Ok(Some((Message::RouteRefresh(read), _))) if read == *refresh));
        }
        Message::Keepalive => {}
    }
}

/// Operations on a peer: one octet says which, the next one for what. Whatever the order, it never panics, speaks only
/// in whole messages, says nothing after a NOTIFICATION, and what is to be sent stays bounded.
pub fn bgp_session(data: &[u8]) {
    let Some(([setting, seed], mut rest)) = data.split_first_chunk::<2>() else { return };
    let start = Instant::now();
    let mut now = start;
    let mut config = SessionConfig::new(Asn(64512), RemoteAsn::Number(Asn(65001)));
    config.mode = [Mode::Active, Mode::Passive, Mode::Both][usize::from(setting % 3)];
    config.graceful_restart = setting & 4 != 0;
    config.extended_messages = setting & 8 != 0;
    config.delay_open = Duration::from_secs(u64::from(setting >> 4 & 1) * 3);
    config.families = vec![Family::Ipv4, Family::Ipv6];
    let mut peer = Peer::new(config, u64::from(*seed), now);
    let id = RouterId([10, 0, 0, seed | 1].into());
    let hops = NextHops {
        v4: Some([10, 0, 0, 1].into()),
        v6: (setting & 32 != 0).then(|| [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
    };
    let mut streams: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    while let Some(([operation, what], tail)) = rest.split_first_chunk::<2>() {
        rest = tail;
        let slot = Slot::ALL[usize::from(operation >> 7)];
        match operation & 15 {
            0 => peer.handle_connected(now, id, hops),
            1 => drop(peer.handle_accepted(now, id, hops).map(|slot| streams[slot as usize].clear())),
            2 => peer.handle_failed(now, slot, ConnectionError::ClosedByPeer),
            3 => peer.handle_bytes(now, slot, &open(*what)),
            4 => peer.handle_bytes(now, slot, &framed(4, &[])),
            5 => peer.handle_bytes(now, slot, &framed(5, &[0, 1 + (what & 1), what >> 1 & 3, 1])),
            6 => peer.handle_bytes(now, slot, &framed(3, &[6, *what])),
            7 => {
                let (body, next) = rest.split_at(usize::from(*what).min(rest.len()));
                rest = next;
                peer.handle_bytes(now, slot, &framed(2, body));
            }
            8 => {
                let (bytes, next) = rest.split_at(usize::from(*what).min(rest.len()));
                rest = next;
                peer.handle_bytes(now, slot, bytes);
            }
            9 => now += Duration::from_secs(u64::from(*what)),
            10 => now = peer.poll_timeout().map_or(now, |at| now.max(at)),
            11 => {
                let route = |n: u8| (std::net::IpAddr::from([10, 1, 0, n]).into(), Arc::default());
                peer.set_routes(now, (0..*what).map(route));
            }
            12 => peer.handle_send(now, slot, what & 1 == 0),
            13 => peer.handle_bfd(now, [BfdState::Up, BfdState::Down, BfdState::AdminDown][usize::from(what % 3)]),
            14 => peer.set_draining(now, what & 1 == 0),
            _ if *what < 8 => peer.stop(now, Stop::Restart("fuzz".into())),
            _ => {}
        }
        peer.handle_timeout(now);
        for slot in Slot::ALL {
            let bytes = peer.poll_transmit(slot);
            assert!(bytes.len() < 1 << 20, "{} bytes wait", bytes.len());
            streams[slot as usize].extend(bytes);
        }
        while let Some(action) = peer.poll_action() {
            let (Action::Close(slot) | Action::Connect(slot)) = action;
            whole(&std::mem::take(&mut streams[slot as usize]));
        }
        while peer.poll_event().is_some() {}
        assert!(peer.rib().advertised() == 0 || peer.state() == State::Established);
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    metallb_bgp::wire::message(&mut out, kind, |out| out.extend_from_slice(body));
    out
}

/// An OPEN that is right but for what `what` makes wrong, with capabilities by its bits.
fn open(what: u8) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9];
    if what & 1 != 0 {
        capabilities.extend([2, 0, 70, 0]);
    }
    if what & 2 != 0 {
        capabilities.extend([64, 2, 0x40, 120]);
    }
    if what & 4 != 0 {
        capabilities.extend([6, 0]);
    }
    let length = capabilities.len() as u8;
    let hold = if what & 8 != 0 { 0 } else { 90 };
    let version = if what > 240 { 3 } else { 4 };
    framed(
        1,
        &[&[version, 0xfd, 0xe9, 0, hold, 10, 0, 0, what >> 4 | 1, length + 2, 2, length][..], &capabilities].concat(),
    )
}

/// All that was said on one connection is whole messages, and nothing follows a NOTIFICATION.
fn whole(mut stream: &[u8]) {
    let mut context = DecodeContext::default();
    context.extended_messages = true;
    let mut last = false;
    while !stream.is_empty() {
        assert!(!last, "something follows a NOTIFICATION");
        match decode(stream, &context) {
            Ok(Some((message, size))) => {
                last = matches!(message, Message::Notification(_));
                stream = &stream[size..];
            }
            other => panic!("{other:?}"),
        }
    }
}

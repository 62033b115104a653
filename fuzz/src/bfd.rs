//! BFD: any datagrams, at any times, to an engine with a session.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use metallb_bgp::bfd::{Engine, Hops, Meta, Profile, RoutingDomain, SessionKey, TTL};

/// Input: repeatedly one octet of waiting time, one of length, and the datagram. The session survives all of it,
/// nothing due stays undone, and one input never provokes more than a few packets.
pub fn control(data: &[u8]) {
    let mut now = Instant::now();
    let remote = IpAddr::from([10, 9, 0, 2]);
    let key = SessionKey::new(remote, Hops::Single);
    let mut engine = Engine::new(1);
    let mine = engine.add_session(now, key, Profile::default()).expect("a fresh engine takes it").get().to_be_bytes();
    let meta = Meta {
        remote,
        local: IpAddr::from([10, 9, 0, 1]),
        interface: 1,
        domain: RoutingDomain::default(),
        ttl: TTL,
        hops: Hops::Single,
    };
    let mut rest = data;
    while let Some(([wait, length], tail)) = rest.split_first_chunk::<2>() {
        let (datagram, next) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = next;
        now += Duration::from_millis(u64::from(*wait) * 10);
        let mut datagram = datagram.to_vec();
        // 0xff: the discriminator that a fuzzer cannot guess.
        if let Some(yours) = datagram.get_mut(8..12).filter(|yours| *yours == [0xff; 4]) {
            yours.copy_from_slice(&mine);
        }
        let _ = engine.handle_packet(now, &meta, &datagram);
        let _ = engine.handle_echo(now, &meta, &datagram);
        engine.handle_timeout(now);
        let sent = std::iter::from_fn(|| engine.poll_transmit()).count();
        assert!(sent <= 5, "{sent} packets for one datagram");
        while engine.poll_event().is_some() {}
        assert!(engine.poll_timeout().is_none_or(|at| at > now));
    }
    assert!(engine.session(&key).is_some());
}

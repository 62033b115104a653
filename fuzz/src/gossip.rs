//! Checks on membership: whatever comes, sealed or not, a member neither panics nor wedges, sends nothing beyond bounds, and goes on
//! to know the one that lives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_membership::engine::{Config, Engine, Timing};
use metallb_membership::wire::identity::Identity;
use metallb_membership::wire::message::{Body, Message, Readiness};
use metallb_membership::wire::seal::{DATAGRAM_MAX, Keyring};

/// Datagrams of a host without the key, and bodies of one that has it: each a length (2), then the standing and the message.
pub fn gossip_frame(data: &[u8]) {
    if let Some(body) = Body::decode(data)
        && let Some(bytes) = body.encode()
    {
        assert_eq!(Body::decode(&bytes), Some(body), "what is written is read");
    }
    let mut pair = Pair::new();
    pair.run(300);
    // Without the key nothing is believed, nor answered.
    let counted = pair.engines[0].counters();
    pair.engines[0].handle_datagram(pair.now, hostile(), data);
    let counters = pair.engines[0].counters();
    assert_eq!((counters.received, counters.sent), (counted.received, counted.sent));
    // With the key it first becomes a peer, then says anything.
    let identity = Identity::new("hostile".into(), hostile(), 1);
    let hello =
        Body { receiver_session: SESSIONS[0], readiness: Readiness::Ready, message: Message::JoinAck(identity) };
    pair.hostile(&hello.encode().unwrap_or_default());
    let mut rest = data;
    let mut said = 0;
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && said < 64
    {
        let (body, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        pair.hostile(&[&SESSIONS[0].to_be_bytes()[..], body].concat());
        rest = after;
        said += 1;
        pair.run(1);
    }
    pair.run(12_000);
    let live = pair.engines[0].live();
    assert!(["n0", "n1"].iter().all(|name| live.iter().any(|node| node.as_str() == *name)), "{live:?}");
}

/// Two members that hear each other, and the hostile host.
struct Pair {
    now: Instant,
    keys: Keyring,
    engines: [Engine; 2],
    sequence: u64,
}

impl Pair {
    fn new() -> Self {
        let (now, keys) = (Instant::now(), Keyring::new([&b"key"[..]]));
        let engines = [0, 1].map(|index| {
            let me = Identity::new(format!("n{index}").into(), address(index), 1000);
            let (session, timing) = (SESSIONS[index], Timing::default());
            let mut engine = Engine::new(Config { me, session, keys: keys.clone(), timing, wan: false }, 7, now);
            engine.join(now, [address(0), address(1)]);
            engine.monitor(now, ["n0".into(), "n1".into()]);
            engine
        });
        Self { now, keys, engines, sequence: 0 }
    }

    fn hostile(&mut self, body: &[u8]) {
        self.sequence += 1;
        let datagram = self.keys.seal(0xbad, self.sequence, body);
        self.engines[0].handle_datagram(self.now, hostile(), &datagram);
    }

    /// Runs for so many milliseconds; datagrams take none.
    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        let mut steps = 0;
        loop {
            self.deliver();
            let due = self.engines.iter().filter_map(Engine::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            let now = self.now;
            self.engines.iter_mut().for_each(|engine| engine.handle_timeout(now));
            steps += 1;
            assert!(steps < 20_000, "it wakes up for nothing");
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let mut sent = 0;
        loop {
            let mut flying = Vec::new();
            for (index, engine) in self.engines.iter_mut().enumerate() {
                while engine.poll_event().is_some() {}
                flying.extend(std::iter::from_fn(|| engine.poll_transmit()).map(|transmit| (address(index), transmit)));
            }
            if flying.is_empty() {
                return;
            }
            sent += flying.len();
            assert!(sent < 20_000, "a word makes two");
            for (from, transmit) in flying {
                assert!(transmit.datagram.len() <= DATAGRAM_MAX);
                if let Some(index) = (0..2).find(|&index| address(index) == transmit.to) {
                    self.engines[index].handle_datagram(self.now, from, &transmit.datagram);
                }
            }
        }
    }
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8], 7946))
}

/// Where the hostile host is.
fn hostile() -> SocketAddr {
    address(9)
}

const SESSIONS: [u64; 2] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222];

//! Answers ARP (RFC 826, RFC 5227) and NDP (RFC 4861) requests for virtual IP addresses, and announces them.
//!
//! ```text
//!   wire  <──  responder, announce, outgoing, conflict, limit, group  <──  engine  <──  io (feature `io`)
//!   codecs     one question each, no IO                                    decisions    AF_PACKET, netlink, a thread
//! ```
//!
//! [`engine::Engine`] is sans-IO: frames and time go in, frames come out. Time and the seed of its random numbers are
//! arguments, so the same inputs give the same bytes. `io::Driver` connects an engine to the interfaces of a Linux host
//! and needs `CAP_NET_RAW` only.
//!
//! # Driving the engine
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use metallb_l2::engine::{Config, Engine, Received};
//! use metallb_l2::interface::{Interface, MacAddr, Scope};
//! use metallb_l2::wire::arp::Arp;
//! use metallb_l2::wire::ndp::Checksum;
//!
//! let now = Instant::now();
//! let mut engine = Engine::new(Config::default(), 42, now);
//! engine.set_interfaces(now, [Interface::new(1, "eth0", MacAddr([2, 0, 0, 0, 0, 1]), None)]);
//! engine.set_addresses(now, [("192.0.2.1".parse()?, Scope::All)]);
//!
//! // Drain the outputs after every input. The first round of the burst is a gratuitous request and reply.
//! let burst: Vec<_> = std::iter::from_fn(|| engine.poll_transmit()).collect();
//! assert_eq!(burst.len(), 2);
//! assert_eq!(engine.poll_announced(), Some("192.0.2.1".parse()?));
//!
//! // A request is answered at once.
//! let client = MacAddr([2, 0, 0, 0, 0, 9]);
//! let request = Arp::request(client, "192.0.2.9".parse()?, "192.0.2.1".parse()?);
//! let received = Received { interface: 1, bytes: request.as_bytes(), checksum: Checksum::Present };
//! let reply = engine.handle_frame(now, &received).expect("the address is announced");
//! assert_eq!(reply.as_bytes()[..6], client.0);
//!
//! // Then wait for frames, at most until `poll_timeout`: the next round is due 1.1 to 1.21 s after the first one.
//! let next = engine.poll_timeout().expect("four rounds are left");
//! assert!(next >= now + Duration::from_millis(1100) && next < now + Duration::from_millis(1210));
//! engine.handle_timeout(next);
//! assert_eq!(std::iter::from_fn(|| engine.poll_transmit()).count(), 2);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests choose the time"))]

mod announce;
mod conflict;
mod counters;
pub mod engine;
mod foreign;
mod group;
pub mod interface;
#[cfg(feature = "io")]
pub mod io;
mod limit;
#[cfg(feature = "io")]
mod links;
mod outgoing;
mod responder;
mod vip;
pub mod wire;

// An engine may be moved to the thread that drives it.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<engine::Engine>();
    assert_send_sync::<engine::Counters>();
};

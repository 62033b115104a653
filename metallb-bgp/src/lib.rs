//! An announce-only BGP-4 speaker (RFC 4271) and BFD (RFC 5880), sans-IO.
//!
//! ```text
//!   wire  <──  rib  <──  session  <──  peer  <──  io (feature `io`)
//!   bytes      routes    one TCP       one        sockets and tasks
//!                        connection    router
//!
//!   bfd   <──  io::bfd_udp (feature `io`)
//! ```
//!
//! The speaker advertises routes of IPv4 and IPv6 unicast and accepts none: announced prefixes are parsed, counted and
//! dropped.
//!
//! Without the feature `io` the crate reads no clock, opens no socket and uses no operating-system randomness: time and
//! seeds are arguments. With it, [`io::Speaker`] runs any number of peers inside a tokio runtime.
//!
//! # Driving the engine
//!
//! [`peer::Peer`] takes inputs by its `handle_*` methods. After each input the driver drains `poll_transmit`,
//! `poll_action` and `poll_event`, then waits until `poll_timeout`. Here two peers exchange their messages in memory:
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use metallb_bgp::peer::Peer;
//! use metallb_bgp::rib::NextHops;
//! use metallb_bgp::session::{Action, Mode, RemoteAsn, SessionConfig, Slot, State};
//! use metallb_bgp::types::{Asn, Attributes, RouterId};
//!
//! let now = Instant::now();
//! let ours = SessionConfig::new(Asn(64512), RemoteAsn::Number(Asn(64513)));
//! let mut theirs = SessionConfig::new(Asn(64513), RemoteAsn::Number(Asn(64512)));
//! theirs.mode = Mode::Passive;
//! let (mut speaker, mut router) = (Peer::new(ours, 1, now), Peer::new(theirs, 2, now));
//! speaker.set_routes(now, [("192.0.2.1/32".parse()?, Arc::new(Attributes::default()))]);
//!
//! // The engine asks for a connection; the driver reports both ends as open.
//! assert_eq!(speaker.poll_action(), Some(Action::Connect(Slot::One)));
//! let next_hops = NextHops { v4: Some(Ipv4Addr::new(10, 0, 0, 1).into()), v6: None };
//! speaker.handle_connected(now, RouterId(Ipv4Addr::new(10, 0, 0, 1)), next_hops);
//! let router_id = RouterId(Ipv4Addr::new(10, 0, 0, 2));
//! let slot = router.handle_accepted(now, router_id, next_hops).expect("it accepts connections");
//!
//! // The driver moves bytes until neither end has output.
//! loop {
//!     let (sent, received) = (speaker.poll_transmit(Slot::One), router.poll_transmit(slot));
//!     if sent.is_empty() && received.is_empty() {
//!         break;
//!     }
//!     router.handle_bytes(now, slot, &sent);
//!     speaker.handle_bytes(now, Slot::One, &received);
//! }
//! assert_eq!((speaker.state(), router.state()), (State::Established, State::Established));
//! assert_eq!((speaker.rib().advertised(), router.counters().prefixes_dropped), (1, 1));
//! # Ok::<(), ipnet::AddrParseError>(())
//! ```

#![deny(unsafe_code)]

pub mod bfd;
pub mod discovery;
pub mod error;
#[cfg(feature = "io")]
pub mod io;
pub mod peer;
pub mod rib;
pub mod session;
pub mod types;
pub mod wire;

/// Prefixes in the public API are of this crate.
pub use ipnet;

pub(crate) const fn assert_send_sync<T: Send + Sync>() {}
const _: () = assert_send_sync::<peer::Peer>();
const _: () = assert_send_sync::<rib::AdjRibOut>();
const _: () = assert_send_sync::<bfd::Engine>();
const _: () = assert_send_sync::<discovery::Discovery>();

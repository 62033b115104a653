//! A table of ARP and NDP cases, run through the engine and through the driver on a real link.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(clippy::print_stdout, reason = "helpers of tests may fail as tests do, and say what they skip")]

mod arp;
mod catalogue;
mod events;
mod flows;
mod foreign;
mod frames;
mod lab;
mod ndp;
mod neighbours;
mod rx_queue;

use std::time::Instant;

use metallb_l2::engine::DropReason;
use metallb_l2::engine::{Config, Engine, Received};
use metallb_l2::interface::{ForeignAddresses, Interface, Scope};
use metallb_l2::wire::ndp::Checksum;

use self::frames::{
    OTHER_INTERFACE, US, US_GLOBAL, US_LINK_LOCAL, VIP4, VIP4_ELSEWHERE, VIP4_SENTINEL, VIP6, VIP6_ELSEWHERE, VIP6_TWIN,
};

/// One frame and its expected outcome.
struct Case {
    /// The identifier of the case.
    id: &'static str,
    /// The property of the frame that the case is about.
    what: String,
    frame: Vec<u8>,
    checksum: Checksum,
    /// The exact reply, or the reason why there is none.
    expected: Result<Vec<u8>, DropReason>,
    /// Whether the frame is a conflict: another host uses the announced address.
    conflict: bool,
}

impl Case {
    fn answered(id: &'static str, what: impl Into<String>, frame: Vec<u8>, answer: Vec<u8>) -> Self {
        Self { id, what: what.into(), frame, checksum: Checksum::Present, expected: Ok(answer), conflict: false }
    }

    fn silent(id: &'static str, what: impl Into<String>, frame: Vec<u8>, reason: DropReason) -> Self {
        Self { id, what: what.into(), frame, checksum: Checksum::Present, expected: Err(reason), conflict: false }
    }

    fn conflict(mut self) -> Self {
        self.conflict = true;
        self
    }

    fn offloaded(mut self) -> Self {
        self.checksum = Checksum::Offloaded;
        self
    }
}

fn table() -> Vec<Case> {
    arp::cases().into_iter().chain(ndp::cases()).collect()
}

/// The addresses that both runs announce.
fn owned() -> Vec<(std::net::IpAddr, Scope)> {
    let elsewhere = || Scope::Only([OTHER_INTERFACE.into()].into());
    vec![
        (VIP4.into(), Scope::All),
        (VIP4_SENTINEL.into(), Scope::All),
        (VIP4_ELSEWHERE.into(), elsewhere()),
        (VIP6.into(), Scope::All),
        (VIP6_TWIN.into(), Scope::All),
        (VIP6_ELSEWHERE.into(), elsewhere()),
    ]
}

#[test]
fn engine_has_the_expected_outcome_of_each_case() {
    let now = Instant::now();
    for case in table() {
        let mut engine = Engine::new(Config::default(), 1, now);
        let interface = Interface::new(1, "eth0", US, Some(US_LINK_LOCAL));
        engine.set_interfaces(now, [interface]);
        let mut foreign = ForeignAddresses::new();
        foreign.add_interface_address(&"eth0".into(), US_GLOBAL.into(), 64);
        engine.set_foreign_addresses(now, foreign);
        engine.set_addresses(now, owned());
        let received = Received { interface: 1, bytes: &case.frame, checksum: case.checksum };
        let answer = engine.handle_frame(now, &received).map(|frame| frame.as_bytes().to_vec());
        assert_eq!(answer, case.expected, "{}: {}", case.id, case.what);
        assert_eq!(engine.poll_event().is_some(), case.conflict, "{}: {}", case.id, case.what);
        let dropped: u64 = engine.counters().dropped.values().sum();
        assert_eq!(dropped, u64::from(case.expected.is_err()), "{}: every drop is counted once", case.id);
    }
}

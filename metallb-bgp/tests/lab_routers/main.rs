//! The speaker against FRR, BIRD, GoBGP, OpenBGPD and ExaBGP. Each has four sessions with one speaker of ours: over IPv4 and IPv6, with
//! an external and an internal neighbour, all of both families. What is compared is the router's whole table.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a test of real parts that may be absent, and that counts")]

mod bird;
#[path = "../support/frr.rs"]
#[allow(dead_code, reason = "another lab asks for more")]
mod frr;
#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "another lab asks for more")]
mod lab;
#[path = "../support/router.rs"]
mod router;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes, Family};
use tokio::sync::mpsc;

use self::lab::Lab;
use self::router::{ASN, KINDS, Kind, Neighbor, Router, Routes, Seen};

/// One of our sessions, and where it runs.
#[derive(Clone, Copy, Debug)]
struct Session {
    name: &'static str,
    ours: &'static str,
    /// Our address of the other family on the same cable: the next hop of that family.
    other: &'static str,
    theirs: &'static str,
    asn: u32,
}

const SESSIONS: [Session; 4] = [
    Session {
        name: "external over IPv4",
        ours: "172.16.1.11",
        other: "fd00:1::11",
        theirs: "172.16.1.254",
        asn: 4_200_000_001,
    },
    Session { name: "external over IPv6", ours: "fd00:1::11", other: "172.16.1.11", theirs: "fd00:1::254", asn: 7776 },
    Session { name: "internal over IPv4", ours: "172.16.2.11", other: "fd00:2::11", theirs: "172.16.2.254", asn: ASN },
    Session { name: "internal over IPv6", ours: "fd00:2::11", other: "172.16.2.11", theirs: "fd00:2::254", asn: ASN },
];

/// What one session offers.
type Offer = BTreeMap<IpNet, Arc<Attributes>>;

impl Session {
    fn neighbor(&self) -> Neighbor {
        Neighbor { address: self.ours.parse().unwrap(), local: self.theirs.parse().unwrap(), asn: self.asn }
    }

    fn peer(&self) -> PeerConfig {
        let address = SocketAddr::new(self.theirs.parse().unwrap(), 179);
        let distance = if self.asn == ASN { Distance::Routed } else { Distance::Direct };
        PeerConfig {
            session: SessionConfig {
                connect_time: Some(Duration::from_secs(1)),
                families: vec![Family::Ipv4, Family::Ipv6],
                ..SessionConfig::new(Asn(self.asn), RemoteAsn::Number(Asn(ASN)))
            },
            endpoint: Endpoint::new(address, distance),
            router_id: None,
            fallback_router_id: [192, 0, 2, 1].into(),
            bfd: None,
        }
    }

    /// Prefixes of its own, so that every one has a single path.
    fn prefixes(&self) -> [IpNet; 6] {
        let number = SESSIONS.iter().position(|one| one.name == self.name).unwrap();
        [
            format!("10.{number}.0.1/32"),
            format!("10.{number}.4.0/22"),
            format!("10.{number}.9.128/25"),
            format!("fd00:{number}ff::1/128"),
            format!("fd00:{number}ff:1::/64"),
            format!("fd00:{number}ff:2::/47"),
        ]
        .map(|prefix| prefix.parse().unwrap())
    }

    /// All prefixes: two plain, two with everything, two with a few communities.
    fn offer(&self) -> Offer {
        let plain = Arc::new(Attributes::default());
        let all = Arc::new(Attributes {
            med: Some(50),
            local_pref: Some(150),
            communities: [community(7776, 7), community(65_000, 65_535)].into(),
            large_communities: [(4_200_000_001, 1, u32::MAX), (7776, 0, 2)].into(),
        });
        let some = Arc::new(Attributes { communities: [community(1, 2)].into(), ..Attributes::default() });
        let sets = [&plain, &all, &some];
        let pick = |(number, prefix)| (prefix, Arc::clone(sets[number % sets.len()]));
        self.prefixes().into_iter().enumerate().map(pick).collect()
    }

    /// How the router should see a route.
    fn seen(&self, prefix: IpNet, attributes: &Attributes) -> Seen {
        let same_family = prefix.addr().is_ipv4() == self.ours.parse::<IpAddr>().unwrap().is_ipv4();
        let internal = self.asn == ASN;
        Seen {
            next_hop: if same_family { self.ours } else { self.other }.parse().unwrap(),
            as_path: if internal { Vec::new() } else { vec![self.asn] },
            med: attributes.med,
            local_pref: internal.then(|| attributes.local_pref.unwrap_or(100)),
            communities: attributes.communities.clone(),
            large_communities: attributes.large_communities.clone(),
        }
    }
}

const fn community(high: u32, low: u32) -> u32 {
    high << 16 | low
}

/// A router under test; every agreement of its view with what it should be, session by session, is counted.
struct Bench<'a> {
    kind: &'a Kind,
    router: &'a dyn Router,
    agreed: usize,
}

impl Bench<'_> {
    /// Waits until the router's table is exactly what the offers come to.
    async fn sees(&mut self, what: &str, offers: &[(&Session, Offer)]) {
        let expected: Routes = offers
            .iter()
            .flat_map(|(session, offer)| offer.iter().map(move |route| (session, route)))
            .map(|(session, (prefix, attributes))| {
                ((session.neighbor().address, *prefix), session.seen(*prefix, attributes))
            })
            .collect();
        let mut seen = Routes::new();
        self.patiently(|| {
            seen = self.router.routes();
            seen == expected
        })
        .await;
        for session in &SESSIONS {
            let of = |routes: &Routes| -> Routes {
                let is_his = |(from, _): &&(IpAddr, IpNet)| *from == session.neighbor().address;
                routes.iter().filter(|(key, _)| is_his(key)).map(|(key, seen)| (*key, seen.clone())).collect()
            };
            assert_eq!(of(&seen), of(&expected), "{}, {what}, {}", self.kind.name, session.name);
            self.agreed += 1;
        }
        assert_eq!(seen, expected, "{}, {what}: routes of somebody else", self.kind.name);
    }

    /// Waits until the router says of each session that it is up, or not.
    async fn says(&mut self, what: &str, up: impl Fn(&Session) -> bool) {
        for session in &SESSIONS {
            let mut state = !up(session);
            self.patiently(|| {
                state = self.router.established(session.neighbor().address);
                state == up(session)
            })
            .await;
            assert_eq!(state, up(session), "{}, {what}, {}", self.kind.name, session.name);
            self.agreed += 1;
        }
    }

    async fn patiently(&self, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn speaker() -> Speaker {
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    configure(&mut speaker, &SESSIONS);
    speaker
}

fn configure(speaker: &mut Speaker, sessions: &[Session]) {
    speaker.set_peers(sessions.iter().map(|session| (Arc::from(session.name), session.peer())).collect());
}

/// What every session offers, after a change.
fn offers(change: impl Fn(&Session, &mut Offer)) -> Vec<(&'static Session, Offer)> {
    let offer = |session: &'static Session| {
        let mut offer = session.offer();
        change(session, &mut offer);
        (session, offer)
    };
    SESSIONS.iter().map(offer).collect()
}

fn tell(speaker: &Speaker, offers: &[(&Session, Offer)]) {
    offers.iter().for_each(|(session, offer)| speaker.set_routes(session.name, offer.clone()));
}

/// From nothing to all routes, through changes, to a lost session and back to nothing.
async fn scenario(bench: &mut Bench<'_>) {
    let mut speaker = speaker();
    bench.says("all sessions come up", |_| true).await;

    let everything = offers(|_, _| {});
    tell(&speaker, &everything);
    bench.sees("all is offered", &everything).await;

    let changed = offers(|session, offer| {
        let again = Attributes { med: Some(7), local_pref: Some(90), ..Attributes::default() };
        for at in [0, 4] {
            offer.insert(session.prefixes()[at], Arc::new(again.clone()));
        }
    });
    tell(&speaker, &changed);
    bench.sees("attributes are replaced", &changed).await;

    let fewer = offers(|session, offer| {
        for at in [0, 2, 3] {
            offer.remove(&session.prefixes()[at]);
        }
    });
    tell(&speaker, &fewer);
    bench.sees("some are withdrawn, the others as before", &fewer).await;

    let nothing = offers(|_, offer| offer.clear());
    tell(&speaker, &nothing);
    bench.sees("all are withdrawn", &nothing).await;
    bench.says("no session minds", |_| true).await;

    tell(&speaker, &everything);
    bench.sees("all are offered again", &everything).await;

    let (lost, left) = SESSIONS.split_first().unwrap();
    configure(&mut speaker, left);
    bench.says("one session is taken away", |session| session.name != lost.name).await;
    bench
        .sees(
            "its routes go, and only they",
            &offers(|session, offer| {
                if session.name == lost.name {
                    offer.clear();
                }
            }),
        )
        .await;
    drop(speaker);
    bench.sees("the speaker is gone", &nothing).await;
    bench.says("and all sessions with it", |_| false).await;
}

#[test]
fn lab_routers_see_exactly_the_routes_that_are_offered() {
    // All start at once, each in a lab of its own, as most of the time somebody waits for somebody.
    let agreed: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = KINDS
            .iter()
            .filter_map(|kind| {
                let lab = Lab::new(&format!("lab_routers, {}", kind.name), kind.programs)?;
                Some(scope.spawn(move || {
                    lab.second_cable();
                    let router = (kind.start)(lab, &SESSIONS.map(|session| session.neighbor()));
                    let mut agreed = 0;
                    router.lab().on_host(|| async {
                        let mut bench = Bench { kind, router: &*router, agreed: 0 };
                        scenario(&mut bench).await;
                        agreed = bench.agreed;
                    });
                    println!("{}: {agreed} assertions on its view held", kind.name);
                    agreed
                }))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    println!("{} assertions on the views of {} routers held", agreed.iter().sum::<usize>(), agreed.len());
    // Seven looks at the table and four at the sessions, four sessions each.
    assert!(agreed.iter().all(|agreed| *agreed == 44), "{agreed:?}");
}

//! The speaker with FRR, BIRD, GoBGP, OpenBGPD and ExaBGP. Each router has four sessions with one speaker: over IPv4
//! and IPv6, external and internal, with both address families. The whole routing table of the router is compared.

mod bird;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes, Family};
use tokio::sync::mpsc;

use crate::support::lab::Lab;
use crate::support::router::{ASN, KINDS, Kind, Neighbor, Router, Routes, Seen};

/// One of the sessions of the speaker.
#[derive(Clone, Copy, Debug)]
struct Session {
    name: &'static str,
    ours: &'static str,
    /// The address of the other family on the same link, which is the next hop of that family.
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
        let mut session = SessionConfig::new(Asn(self.asn), RemoteAsn::Number(Asn(ASN)));
        session.connect_time = Some(Duration::from_secs(1));
        session.families = vec![Family::Ipv4, Family::Ipv6];
        PeerConfig::new(session, Endpoint::new(address, distance), [192, 0, 2, 1].into())
    }

    /// The prefixes of this session. Each prefix belongs to one session only.
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

    /// The routes of this session: two without attributes, two with all, two with communities only.
    fn offer(&self) -> Offer {
        let plain = Arc::new(Attributes::default());
        let all = Attributes::default().with_med(50).with_local_pref(150);
        let all = all.with_communities([community(7776, 7), community(65_000, 65_535)]);
        let all = Arc::new(all.with_large_communities([(4_200_000_001, 1, u32::MAX), (7776, 0, 2)]));
        let some = Arc::new(Attributes::default().with_communities([community(1, 2)]));
        let sets = [&plain, &all, &some];
        let pick = |(number, prefix)| (prefix, Arc::clone(sets[number % sets.len()]));
        self.prefixes().into_iter().enumerate().map(pick).collect()
    }

    /// The route as the router should see it.
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

/// A router under test. Each comparison of its state with the expected one is counted, session by session.
struct Bench<'a> {
    kind: &'a Kind,
    router: &'a dyn Router,
    agreed: usize,
}

impl Bench<'_> {
    /// Waits until the routing table of the router contains exactly the announced routes.
    async fn check_routes(&mut self, what: &str, offers: &[(&Session, Offer)]) {
        let expected: Routes = offers
            .iter()
            .flat_map(|(session, offer)| offer.iter().map(move |route| (session, route)))
            .map(|(session, (prefix, attributes))| {
                ((session.neighbor().address, *prefix), session.seen(*prefix, attributes))
            })
            .collect();
        let mut seen = Routes::new();
        self.wait_for(|| {
            seen = self.router.routes();
            seen == expected
        })
        .await;
        for session in &SESSIONS {
            let of = |routes: &Routes| -> Routes {
                let is_of_session = |(from, _): &&(IpAddr, IpNet)| *from == session.neighbor().address;
                routes.iter().filter(|(key, _)| is_of_session(key)).map(|(key, seen)| (*key, seen.clone())).collect()
            };
            assert_eq!(of(&seen), of(&expected), "{}, {what}, {}", self.kind.name, session.name);
            self.agreed += 1;
        }
        assert_eq!(seen, expected, "{}, {what}: routes of other peers", self.kind.name);
    }

    /// Waits until the router reports each session as established, or not.
    async fn check_sessions(&mut self, what: &str, up: impl Fn(&Session) -> bool) {
        for session in &SESSIONS {
            let mut state = !up(session);
            self.wait_for(|| {
                state = self.router.established(session.neighbor().address);
                state == up(session)
            })
            .await;
            assert_eq!(state, up(session), "{}, {what}, {}", self.kind.name, session.name);
            self.agreed += 1;
        }
    }

    async fn wait_for(&self, mut condition: impl FnMut() -> bool) {
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

/// The routes of all sessions, after a change.
fn offers(change: impl Fn(&Session, &mut Offer)) -> Vec<(&'static Session, Offer)> {
    let offer = |session: &'static Session| {
        let mut offer = session.offer();
        change(session, &mut offer);
        (session, offer)
    };
    SESSIONS.iter().map(offer).collect()
}

fn announce(speaker: &Speaker, offers: &[(&Session, Offer)]) {
    offers.iter().for_each(|(session, offer)| speaker.set_routes(session.name, offer.clone()));
}

/// Announces all routes, changes and withdraws some, removes a session, and ends the speaker.
async fn scenario(bench: &mut Bench<'_>) {
    let mut speaker = speaker();
    bench.check_sessions("all sessions come up", |_| true).await;

    let everything = offers(|_, _| {});
    announce(&speaker, &everything);
    bench.check_routes("all routes are announced", &everything).await;

    let changed = offers(|session, offer| {
        let again = Attributes::default().with_med(7).with_local_pref(90);
        for at in [0, 4] {
            offer.insert(session.prefixes()[at], Arc::new(again.clone()));
        }
    });
    announce(&speaker, &changed);
    bench.check_routes("attributes are replaced", &changed).await;

    let fewer = offers(|session, offer| {
        for at in [0, 2, 3] {
            offer.remove(&session.prefixes()[at]);
        }
    });
    announce(&speaker, &fewer);
    bench.check_routes("some routes are withdrawn", &fewer).await;

    let nothing = offers(|_, offer| offer.clear());
    announce(&speaker, &nothing);
    bench.check_routes("all routes are withdrawn", &nothing).await;
    bench.check_sessions("all sessions stay up", |_| true).await;

    announce(&speaker, &everything);
    bench.check_routes("all routes are announced again", &everything).await;

    let (lost, left) = SESSIONS.split_first().unwrap();
    configure(&mut speaker, left);
    bench.check_sessions("one session is removed", |session| session.name != lost.name).await;
    bench
        .check_routes(
            "only its routes are removed",
            &offers(|session, offer| {
                if session.name == lost.name {
                    offer.clear();
                }
            }),
        )
        .await;
    drop(speaker);
    bench.check_routes("the speaker was dropped", &nothing).await;
    bench.check_sessions("all sessions are down", |_| false).await;
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_routers_have_exactly_the_announced_routes() {
    // All labs run concurrently, because most of their time is waiting.
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
                    println!("{}: {agreed} assertions held", kind.name);
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
    // Seven comparisons of the table and four of the sessions, for four sessions each.
    assert!(agreed.iter().all(|agreed| *agreed == 44), "{agreed:?}");
}

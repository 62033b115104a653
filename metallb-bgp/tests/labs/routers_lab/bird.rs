//! BFD, graceful restart and extended messages with BIRD.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metallb_bgp::bfd::{Interval, Profile};
use metallb_bgp::io::BfdConfig;
use tokio::runtime::Runtime;

use super::*;
use crate::support::lab::{HOST_V4, HOST_V6, eventually};
use crate::support::router::Bird;

/// The two external sessions.
fn external() -> [Session; 2] {
    [SESSIONS[0], SESSIONS[1]]
}

fn bird(test: &str, sessions: &str, protocols: &str) -> Option<Bird> {
    let lab = Lab::new(test, KINDS[1].programs)?;
    Some(Bird::start(lab, &external().map(|session| session.neighbor()), sessions, protocols))
}

fn speaker_of(change: impl Fn(&mut PeerConfig)) -> Speaker {
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    let peer = |session: Session| {
        let mut peer = session.peer();
        change(&mut peer);
        (Arc::from(session.name), peer)
    };
    speaker.set_peers(external().map(peer).into());
    speaker
}

fn expected(sessions: &[Session]) -> Routes {
    let route = |session: &Session, prefix: IpNet, attributes: &Attributes| {
        ((session.neighbor().address, prefix), session.seen(prefix, attributes))
    };
    let of = |session: &Session| -> Vec<_> {
        session.offer().iter().map(|(prefix, attributes)| route(session, *prefix, attributes)).collect()
    };
    sessions.iter().flat_map(of).collect()
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bird_and_the_speaker_detect_failures_by_bfd() {
    let bfd = "protocol bfd { interface \"*\" { min rx interval 200 ms; min tx interval 200 ms; multiplier 3; }; }";
    let Some(bird) = bird("lab_bird_bfd", "bfd on; error wait time 1, 1;", bfd) else { return };
    bird.lab().on_host(|| async {
        let interval = Interval(200_000);
        let profile = Profile::default().with_interval(interval);
        let speaker = speaker_of(|peer| peer.bfd = Some(BfdConfig::new(profile)));
        external().iter().for_each(|session| speaker.set_routes(session.name, session.offer()));
        let all_is_well = || {
            let up = |session: &Session| bird.established(session.neighbor().address);
            [HOST_V4, HOST_V6].iter().all(|host| bird.bfd_is_up(host))
                && external().iter().all(up)
                && bird.routes() == expected(&external())
        };
        eventually("BFD is up, and the router has the routes", all_is_well).await;
        let states = || speaker.snapshot().into_values().map(|peer| peer.bfd.map(|bfd| bfd.state.to_string()));
        eventually("BFD is up on our side", || states().all(|state| state.as_deref() == Some("Up"))).await;
        let answer = bird.ask("show bfd sessions");
        let line = answer.lines().find(|line| line.starts_with(HOST_V4)).unwrap();
        assert!(line.ends_with("0.200    0.600"), "the router uses our intervals: {line}");

        // The hold timers would take 90 seconds.
        bird.lab().freeze("bird", true);
        let reasons = || speaker.snapshot().into_values().map(|peer| peer.last_down.map(|reason| reason.to_string()));
        eventually("the speaker detects it", || {
            reasons().all(|reason| reason.as_deref() == Some("sent Cease: BFD Down (6/10)"))
        })
        .await;
        bird.lab().freeze("bird", false);
        eventually("all comes back with the router", all_is_well).await;

        // Only BFD packets to the router are lost.
        let rules = bird.lab().write(
            "silence.nft",
            "table inet silence {\n chain out {\n  type filter hook output priority 0;\n  udp dport 3784 drop\n }\n}\n",
        );
        bird.lab().on_this_side("nft", &["-f", &rules]);
        eventually("the router detects it", || {
            external().iter().all(|session| !bird.established(session.neighbor().address)) && bird.routes().is_empty()
        })
        .await;
        bird.lab().on_this_side("nft", &["delete", "table", "inet", "silence"]);
        eventually("all comes back", all_is_well).await;
    });
}

/// A speaker with its runtime. Dropping the runtime is like killing the process: nothing is sent, and the kernel closes
/// the connections.
struct Process {
    speaker: Speaker,
    runtime: Runtime,
}

impl Process {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let speaker = runtime.block_on(async { speaker_of(|peer| peer.session.graceful_restart = true) });
        Self { speaker, runtime }
    }

    /// Announces all routes of all sessions, or all except for the second of each.
    fn offer(&self, all: bool) {
        for session in external() {
            let mut offer = session.offer();
            if !all {
                offer.remove(&session.prefixes()[1]);
            }
            self.speaker.set_routes(session.name, offer);
        }
    }

    fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        self.runtime.block_on(eventually(what, condition));
    }

    fn end(self, how: &str) {
        match how {
            "killed" => drop(self),
            _ => self.runtime.block_on(self.speaker.shutdown(true, Duration::from_secs(2))),
        }
    }
}

/// Compares the routing table of the router in a loop.
struct Monitor<'a> {
    bird: &'a Bird,
    /// Routes that must be present all the time.
    kept: &'a Routes,
    comparisons: AtomicUsize,
    over: AtomicBool,
}

impl Monitor<'_> {
    fn run(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let mut seen = self.bird.routes();
            seen.retain(|key, _| self.kept.contains_key(key));
            assert_eq!(seen, *self.kept, "comparison {}", self.comparisons.load(Ordering::Relaxed));
            self.comparisons.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A condition that becomes true after some more comparisons.
    fn went_on(&self) -> impl FnMut() -> bool {
        let before = self.comparisons.load(Ordering::Relaxed);
        move || self.comparisons.load(Ordering::Relaxed) > before + 20
    }
}

/// Ends the monitor when it is dropped, also if the test panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bird_keeps_every_route_while_the_speaker_restarts() {
    let Some(bird) = bird("lab_bird_graceful_restart", "graceful restart on;", "") else { return };
    let all = expected(&external());
    let mut kept = all.clone();
    kept.retain(|(_, prefix), _| external().iter().all(|session| session.prefixes()[1] != *prefix));
    let up = || external().iter().all(|session| bird.established(session.neighbor().address));
    let down = || external().iter().all(|session| !bird.established(session.neighbor().address));

    bird.lab().in_host(|| {
        let mut process = Process::new();
        process.offer(true);
        process.until("the router has the routes", || bird.routes() == all);
        let monitor = Monitor { bird: &bird, kept: &kept, comparisons: 0.into(), over: false.into() };
        std::thread::scope(|scope| {
            let _end = End(&monitor.over);
            scope.spawn(|| monitor.run());
            for how in ["killed", "stopped"] {
                process.end(how);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    eventually("the router sees the end of the sessions", down).await;
                    eventually("the routes stay meanwhile", monitor.went_on()).await;
                });
                assert_eq!(bird.routes(), all, "{how}");

                process = Process::new();
                process.until("the sessions are back", up);
                process.until("the routes stay until they are known", monitor.went_on());
                assert_eq!(bird.routes(), all, "{how}");
                process.offer(false);
                process.until("the route that is not announced again is removed", || bird.routes() == kept);
                process.offer(true);
                process.until("all is well", || bird.routes() == all);
            }
        });
        println!("the routes were present in all {} comparisons", monitor.comparisons.load(Ordering::Relaxed));
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bird_gets_extended_messages_if_negotiated() {
    for long in [true, false] {
        let option = if long { "enable extended messages on;" } else { "" };
        let Some(bird) = bird("lab_bird_long_messages", option, "") else { return };
        bird.lab().on_host(|| async {
            let speaker = speaker_of(|peer| peer.session.extended_messages = true);
            let attributes = Arc::new(Attributes::default());
            let offer: Offer = (0..COUNT)
                .map(|n| (IpNet::from(IpAddr::from((0x0b00_0000 + n).to_be_bytes())), attributes.clone()))
                .collect();
            speaker.set_routes(SESSIONS[0].name, offer);
            let count = || bird.ask("show route count protocol s0");
            eventually("the router has the routes", || count().contains(&format!("\n{COUNT} of "))).await;
            let told = speaker.snapshot()[SESSIONS[0].name].clone();
            assert_eq!(told.negotiated.unwrap().extended_messages, long);
            // And two marks of the end.
            let bytes = 5 * u64::from(COUNT);
            let messages = told.counters.updates_sent - 2;
            assert_eq!(messages, if long { bytes.div_ceil(65_500) } else { bytes.div_ceil(4050) });
            let session = bird.ask("show protocols all s0");
            // Both offers stand there, ours below the router's own.
            assert_eq!(session.matches("Extended message").count(), if long { 2 } else { 1 }, "{session}");
            assert!(session.contains("Established"), "{session}");
        });
    }
}

const COUNT: u32 = 20_000;

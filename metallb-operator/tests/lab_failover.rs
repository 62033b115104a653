//! Owners that die, leave and return, on a real segment, seen by a client that asks every five milliseconds over IPv4 and IPv6.
//!
//! Every case asserts that traffic comes back and that one owner is left. How long it took is printed and, with
//! `METALLB_FAILOVER_REPORT`, appended to a file; `scripts/failover-bench.sh` runs many trials (`METALLB_FAILOVER_TRIALS`) and makes
//! a table of them. No API server is involved, so that none can help.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what the client saw")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

#[path = "support/netns.rs"]
#[allow(dead_code, reason = "shared with labs that need more of it")]
mod netns;
#[path = "support/segment.rs"]
mod segment;

use netns::{missing_part, skip};
use nix::sys::signal::Signal;
use segment::{Prober, Seen, Segment, VIPS, monotonic};

/// Runs `fail` on the owner, measures, and has `mend` bring it back.
fn case(name: &str, segment: &mut Segment, fail: impl Fn(&mut Segment, usize), mend: impl Fn(&mut Segment, usize)) {
    let probers = VIPS.map(|vip| Prober::start(&segment.client, vip));
    let observers = VIPS.map(|vip| segment.observe(vip));
    for trial in 0..setting("METALLB_FAILOVER_TRIALS", 1) {
        let owner = segment.settle();
        // Not always at the same moment of the speakers' rounds.
        std::thread::sleep(Duration::from_millis(u64::try_from(trial * 37 % 100).unwrap()));
        probers.iter().for_each(Prober::begin);
        let (since, asked) = (Instant::now(), monotonic());
        fail(segment, owner);
        std::thread::sleep(Duration::from_millis(1500));
        probers.iter().for_each(Prober::flowing);
        let failed = probers.each_ref().map(|prober| prober.seen(since));
        let failed_owners = observers.each_ref().map(|observer| observer.two_owners(asked));
        let heir = segment.settle();
        probers.iter().for_each(Prober::begin);
        let (since, asked) = (Instant::now(), monotonic());
        mend(segment, owner);
        std::thread::sleep(Duration::from_millis(1000));
        let back = segment.settle();
        probers.iter().for_each(Prober::flowing);
        let mended = probers.each_ref().map(|prober| prober.seen(since));
        let mended_owners = observers.each_ref().map(|observer| observer.two_owners(asked));
        assert_eq!(back, owner, "the owner gets back what is its\n{}", segment.logs());
        let mut line = format!("{name} trial {trial}: owner {owner}, heir {heir};");
        for (what, seen, owners) in [("fail", failed, failed_owners), ("back", mended, mended_owners)] {
            for ((family, seen), two) in ["IPv4", "IPv6"].into_iter().zip(seen).zip(owners) {
                let Seen { gap, lost, pause } = seen;
                let (gap, two, pause) = (gap.as_millis(), two.as_millis(), pause.as_millis());
                let _ = write!(line, " {what} {family} gap {gap} ms (client {pause}) lost {lost} two owners {two} ms;");
                report(name, what, family, &seen, two);
            }
        }
        println!("{line}");
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn report(case: &str, what: &str, family: &str, seen: &Seen, two_owners: u128) {
    let Ok(path) = std::env::var("METALLB_FAILOVER_REPORT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let Seen { gap, lost, pause } = seen;
    let (gap, pause) = (gap.as_micros(), pause.as_micros());
    writeln!(file, "{case}\t{what}\t{family}\t{gap}\t{lost}\t{pause}\t{two_owners}").unwrap();
}

fn segment(test: &str) -> Option<Segment> {
    segment_of(test, 3)
}

/// So many nodes, unless `METALLB_FAILOVER_NODES` says otherwise.
fn segment_of(test: &str, nodes: usize) -> Option<Segment> {
    if let Some(part) = missing_part(&["nft", "arping", "python3"]) {
        skip(test, &part);
        return None;
    }
    Some(Segment::start(setting("METALLB_FAILOVER_NODES", nodes)))
}

fn signal(segment: &Segment, index: usize, signal: Signal) {
    segment.nodes[index].process.as_ref().unwrap().signal(signal);
}

fn port(segment: &Segment, index: usize, state: &str) {
    segment.switch.ip(&format!("link set port{} {state}", segment.nodes[index].number));
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_node_dies() {
    let Some(mut segment) = segment_of("lab_failover_node_dies", 5) else { return };
    case(
        "node dies",
        &mut segment,
        |segment, owner| {
            port(segment, owner, "nomaster");
            signal(segment, owner, Signal::SIGKILL);
        },
        |segment, owner| {
            port(segment, owner, "master br0");
            segment.start_speaker(owner);
        },
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_speaker_is_killed() {
    let Some(mut segment) = segment("lab_failover_speaker_is_killed") else { return };
    case(
        "speaker killed",
        &mut segment,
        // The node lives and would still take what neighbours send it: they must not, so it loses the address' traffic.
        |segment, owner| {
            signal(segment, owner, Signal::SIGKILL);
            segment.nodes[owner]
                .namespace
                .must("nft add chain inet lab gone '{ type filter hook prerouting priority raw; }'");
            segment.nodes[owner].namespace.must("nft add rule inet lab gone udp dport 9000 drop");
        },
        |segment, owner| {
            segment.nodes[owner].namespace.must("nft delete chain inet lab gone");
            segment.start_speaker(owner);
        },
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_link_is_lost() {
    let Some(mut segment) = segment("lab_failover_link_is_lost") else { return };
    case(
        "link lost",
        &mut segment,
        |segment, owner| port(segment, owner, "down"),
        |segment, owner| port(segment, owner, "up"),
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_speaker_is_stopped_and_continues() {
    let Some(mut segment) = segment("lab_failover_speaker_is_stopped_and_continues") else { return };
    case(
        "speaker stopped (SIGSTOP)",
        &mut segment,
        |segment, owner| signal(segment, owner, Signal::SIGSTOP),
        |segment, owner| signal(segment, owner, Signal::SIGCONT),
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_planned_end_of_a_speaker() {
    let Some(mut segment) = segment("lab_failover_planned_end_of_a_speaker") else { return };
    case("SIGTERM", &mut segment, |segment, owner| signal(segment, owner, Signal::SIGTERM), Segment::start_speaker);
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_exclude_label() {
    let Some(mut segment) = segment("lab_failover_exclude_label") else { return };
    case(
        "exclude label",
        &mut segment,
        |segment, owner| {
            segment.write_node(owner, ", node.kubernetes.io/exclude-from-external-load-balancers: ''");
        },
        |segment, owner| segment.write_node(owner, ""),
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_rolling_restart() {
    let Some(mut segment) = segment("lab_failover_rolling_restart") else { return };
    case(
        "rolling restart",
        &mut segment,
        |segment, _| {
            for index in 0..segment.nodes.len() {
                signal(segment, index, Signal::SIGTERM);
                let ended = segment.nodes[index].process.as_mut().unwrap().wait(Duration::from_secs(10));
                assert!(ended.is_some_and(|status| status.success()), "{}", segment.logs());
                segment.start_speaker(index);
                std::thread::sleep(Duration::from_millis(700));
            }
        },
        |_, _| {},
    );
}

/// The other side of a partition.
fn bridge(segment: &Segment) {
    segment.switch.ip("link add br1 type bridge");
    segment.switch.ip("link set br1 up");
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_partition_and_heal() {
    let Some(mut segment) = segment_of("lab_failover_partition_and_heal", 5) else { return };
    bridge(&segment);
    case(
        "partition",
        &mut segment,
        // The owner is alone on the other side, and so goes on answering there.
        |segment, owner| port(segment, owner, "master br1"),
        |segment, owner| port(segment, owner, "master br0"),
    );
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_long_partition_and_heal() {
    let Some(mut segment) = segment("lab_failover_long_partition_and_heal") else { return };
    bridge(&segment);
    case(
        "long partition",
        &mut segment,
        |segment, owner| port(segment, owner, "master br1"),
        |segment, owner| {
            // Gossip has given it up by then.
            std::thread::sleep(Duration::from_secs(6));
            // As after 40 s: each kernel asks for hardware addresses in vain, once a second.
            for node in &segment.nodes {
                node.namespace.ip("neighbour flush dev eth0");
            }
            std::thread::sleep(Duration::from_millis(100));
            port(segment, owner, "master br0");
        },
    );
}

/// Rules of the switch, one way only: what they drop is answered the other way.
fn drop_frames(segment: &Segment, what: &str) {
    segment.switch.must("nft add table bridge oneway");
    segment.switch.must("nft add chain bridge oneway forward '{ type filter hook forward priority 0; }'");
    segment.switch.must(&format!("nft add rule bridge oneway forward {what} drop"));
}

fn drop_nothing(segment: &mut Segment, _: usize) {
    segment.switch.must("nft delete table bridge oneway");
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_failover_one_way_partitions_and_heal() {
    let Some(mut segment) = segment("lab_failover_one_way_partitions_and_heal") else { return };
    let port = |segment: &Segment, index: usize| format!("port{}", segment.nodes[index].number);
    let next = |segment: &Segment, index: usize| (index + 1) % segment.nodes.len();
    // The others hear the owner, and it does not lose what it has over the word of one that does not.
    case(
        "one node does not hear the owner",
        &mut segment,
        |segment, owner| {
            let (from, to) = (port(segment, owner), port(segment, next(segment, owner)));
            drop_frames(segment, &format!("iifname {from} oifname {to}"));
        },
        drop_nothing,
    );
    case(
        "the owner does not hear one node",
        &mut segment,
        |segment, owner| {
            let (from, to) = (port(segment, next(segment, owner)), port(segment, owner));
            drop_frames(segment, &format!("iifname {from} oifname {to}"));
        },
        drop_nothing,
    );
    // It answers into the void, and hears that all the others live.
    case(
        "nobody hears the owner",
        &mut segment,
        |segment, owner| drop_frames(segment, &format!("iifname {}", port(segment, owner))),
        drop_nothing,
    );
    // Nobody asks it any more, and its answers to none would be heard by all.
    case(
        "the owner hears nobody",
        &mut segment,
        |segment, owner| drop_frames(segment, &format!("oifname {}", port(segment, owner))),
        drop_nothing,
    );
}

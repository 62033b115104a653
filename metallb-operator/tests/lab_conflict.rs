//! Whoever says that an address of ours is its own: another speaker, or a host that has nothing to do with us.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what it saw")]

use std::time::Duration;

#[path = "support/claim.rs"]
mod claim;
#[path = "support/netns.rs"]
#[allow(dead_code, reason = "shared with labs that need more of it")]
mod netns;
#[path = "support/segment.rs"]
#[allow(dead_code, reason = "shared with labs that need more of it")]
mod segment;

use claim::claim;
use netns::{eventually, missing_part, skip};
use segment::{Segment, VIPS};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_claim_of_another_speaker_is_counted_and_is_no_conflict_while_that_of_a_foreign_host_is() {
    const TEST: &str = "lab_claim_of_another_speaker_is_counted_and_is_no_conflict_while_that_of_a_foreign_host_is";
    if let Some(part) = missing_part(&["nft", "arping", "python3", "curl"]) {
        return skip(TEST, &part);
    }
    let segment = Segment::start(2);
    let owner = segment.settle();
    let other = 1 - owner;
    let metric = |name: &str| -> String {
        let text = segment.nodes[owner].namespace.must("curl --silent http://127.0.0.1:17472/metrics");
        text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
    };
    let count = |name: &str| -> u64 { metric(name).rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0) };
    let (friends, conflicts) = ("metallb_layer2_claims_of_speakers_total ", "metallb_layer2_conflicts_total{");
    // Before they met both may have answered for it.
    let before = count(friends);
    eventually("a claim of the other speaker is counted", PATIENCE, || {
        claim(&segment.nodes[other].namespace, VIPS[0]);
        let counted = count(friends);
        if counted > before { Ok(()) } else { Err(format!("{counted}\n{}", segment.logs())) }
    });
    assert_eq!(metric(conflicts), "", "{}", segment.logs());
    eventually("a claim of a foreign host is a conflict and is told with its hardware address", PATIENCE, || {
        claim(&segment.client, VIPS[0]);
        let log = std::fs::read_to_string(segment.log(owner)).unwrap();
        let told =
            log.lines().find(|line| line.contains("addressConflict") && line.contains(&segment.client.mac("eth0")));
        match told {
            Some(line) if count(conflicts) > 0 => {
                println!("{}\n{}\n{line}", metric(friends), metric(conflicts));
                Ok(())
            }
            _ => Err(segment.logs()),
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_address_of_a_router_is_refused_while_it_is_one_and_a_kernel_that_answers_is_found_on_any_node() {
    const TEST: &str =
        "lab_address_of_a_router_is_refused_while_it_is_one_and_a_kernel_that_answers_is_found_on_any_node";
    if let Some(part) = missing_part(&["nft", "curl"]) {
        return skip(TEST, &part);
    }
    let segment = Segment::start(2);
    let owner = segment.settle();
    let other = 1 - owner;
    let get = |node: usize, path: &str| -> String {
        segment.nodes[node].namespace.must(&format!("curl --silent http://127.0.0.1:17472/{path}"))
    };
    let await_line = |node: usize, path: &str, wanted: &str| {
        eventually(&format!("{wanted} on node {node}"), PATIENCE, || {
            let text = get(node, path);
            if text.contains(wanted) { Ok(()) } else { Err(format!("{text}\n{}", segment.logs())) }
        });
    };
    let (refused, answered) = ("metallb_layer2_refused_addresses", "metallb_layer2_answered_by_kernel_addresses");
    for node in [owner, other] {
        await_line(node, "metrics", &format!("\n{refused} 0\n"));
        await_line(node, "metrics", &format!("\n{answered} 0\n"));
    }
    segment.nodes[owner].namespace.ip(&format!("route add default via {}", VIPS[0]));
    await_line(owner, "metrics", &format!("\n{refused} 1\n"));
    let log = std::fs::read_to_string(segment.log(owner)).unwrap();
    let told = log.lines().find(|line| line.contains("announceFailed") && line.contains("default route")).unwrap();
    println!("{told}");
    segment.nodes[owner].namespace.ip(&format!("route delete default via {}", VIPS[0]));
    await_line(owner, "metrics", &format!("\n{refused} 0\n"));
    segment.nodes[other].namespace.ip(&format!("address add {}/32 dev lo", VIPS[0]));
    await_line(other, "metrics", &format!("\n{answered} 1\n"));
    let log = std::fs::read_to_string(segment.log(other)).unwrap();
    println!("{}", log.lines().find(|line| line.contains("answeredByKernel") && line.contains("strictARP")).unwrap());
    segment.nodes[other].namespace.must("sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore'");
    await_line(other, "metrics", &format!("\n{answered} 0\n"));
}

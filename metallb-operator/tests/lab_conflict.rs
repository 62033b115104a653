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

//! The checks of the fuzz targets, over their corpora: what was once found stays fixed without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/bfd.rs"]
mod bfd;
#[path = "../../fuzz/src/bgp.rs"]
mod bgp;
#[allow(dead_code, clippy::print_stdout, reason = "shared by the crates whose readers are fuzzed")]
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;

use corpus::{Random, run, seeds};

#[test]
fn bgp_message_corpus_holds() {
    run("bgp_message", bgp::bgp_message, 200);
}

#[test]
fn bgp_open_corpus_holds() {
    run("bgp_open", bgp::bgp_open, 40);
}

#[test]
fn bgp_update_corpus_holds() {
    run("bgp_update", bgp::bgp_update, 150);
}

#[test]
fn bgp_notification_corpus_holds() {
    run("bgp_notification", bgp::bgp_notification, 8);
}

#[test]
fn bgp_refresh_corpus_holds() {
    run("bgp_refresh", bgp::bgp_refresh, 5);
}

#[test]
fn bgp_session_corpus_holds() {
    run("bgp_session", bgp::bgp_session, 40);
}

#[test]
fn bfd_control_corpus_holds() {
    run("bfd_control", bfd::control, 4);
}

#[test]
fn damaged_seeds_hold() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    type Check = fn(&[u8]);
    let targets: [(&str, Check); 4] = [
        ("bgp_open", bgp::bgp_open),
        ("bgp_update", bgp::bgp_update),
        ("bgp_notification", bgp::bgp_notification),
        ("bgp_refresh", bgp::bgp_refresh),
    ];
    for (target, check) in targets {
        let seeds = seeds(target);
        for _ in 0..10_000 {
            let mut data = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                let at = random.below(data.len());
                match random.below(4) {
                    0 => data.truncate(at),
                    1 => data.insert(at.min(data.len()), random.octet()),
                    2 => data.extend_from_within(at.min(data.len())..),
                    _ => data.iter_mut().skip(at).take(1).for_each(|octet| *octet = random.octet()),
                }
            }
            check(&data);
        }
    }
}

#[test]
fn random_operations_hold() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        let data: Vec<u8> = (0..400).map(|_| random.octet()).collect();
        bgp::bgp_session(&data);
    }
}

//! `docs/reasons.md` lists every reason code; it is made from the code, so that it cannot be out of date.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]

use std::fmt::Write as _;
use std::path::Path;

use metallb_core::allocator::PoolRefusal;
use metallb_core::assignment::AssignReason;
use metallb_core::config::ConfigReason;
use metallb_core::election::{CandidateReason, L2Reason};
use metallb_core::plan::MissingReason;
use metallb_core::routes::BgpReason;

#[test]
fn reasons_document_says_what_the_code_says() {
    let mut text = String::from(
        "# Reason codes\n\nEvery decision carries one of these codes; Events, logs, `plan` and `explain` print the same ones. \
         This page is made by a test of `metallb-core`\n(`cargo test -p metallb-core --test reasons` rewrites it when it is out of date).\n",
    );
    section(
        &mut text,
        "Why a Service has its addresses, or none",
        AssignReason::ALL,
        AssignReason::as_str,
        AssignReason::meaning,
    );
    section(&mut text, "Why a pool was refused", PoolRefusal::ALL, PoolRefusal::as_str, PoolRefusal::meaning);
    section(&mut text, "Why a node answers, or nobody does (L2)", L2Reason::ALL, L2Reason::as_str, L2Reason::meaning);
    section(
        &mut text,
        "What speaks for or against a node (L2)",
        CandidateReason::ALL,
        CandidateReason::as_str,
        CandidateReason::meaning,
    );
    section(
        &mut text,
        "Why a node offers routes, or none (BGP)",
        BgpReason::ALL,
        BgpReason::as_str,
        BgpReason::meaning,
    );
    section(
        &mut text,
        "What `explain` says is missing",
        MissingReason::ALL,
        MissingReason::as_str,
        MissingReason::meaning,
    );
    section(
        &mut text,
        "What is wrong with a configuration",
        ConfigReason::ALL,
        ConfigReason::as_str,
        ConfigReason::meaning,
    );

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    if std::fs::read_to_string(&path).unwrap_or_default() != text {
        std::fs::write(&path, text).unwrap();
        panic!("docs/reasons.md was out of date and has been rewritten: commit it");
    }
}

fn section<R: Copy>(
    text: &mut String,
    title: &str,
    all: &[R],
    code: impl Fn(R) -> &'static str,
    meaning: impl Fn(R) -> &'static str,
) {
    let _ = write!(text, "\n## {title}\n\n| code | meaning |\n|---|---|\n");
    for &reason in all {
        let (code, meaning) = (code(reason), meaning(reason));
        assert!(!meaning.is_empty() && code.chars().all(char::is_alphanumeric), "{code}");
        let _ = writeln!(text, "| `{code}` | {meaning} |");
    }
}

//! Compares `docs/reasons.md` with the reason codes. `UPDATE=1 cargo test -p metallb-core reasons_page` rewrites it.

use std::fmt::Write as _;
use std::path::Path;

use metallb_core::allocator::PoolRefusal;
use metallb_core::assignment::AssignReason;
use metallb_core::config::ConfigReason;
use metallb_core::election::{CandidateReason, L2Reason};
use metallb_core::plan::MissingReason;
use metallb_core::routes::BgpReason;

#[test]
fn reasons_page_lists_every_code_with_its_meaning() {
    let page = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    for (number, (written, expected)) in written.lines().zip(page.lines()).enumerate() {
        assert_eq!(written, expected, "docs/reasons.md:{}: run this test with UPDATE=1", number + 1);
    }
    assert_eq!(written.len(), page.len(), "docs/reasons.md has lines too few or too many: run this test with UPDATE=1");
}

fn page() -> String {
    let mut text = String::from(INTRODUCTION);
    let title = "Why a Service has its addresses, or none";
    section(&mut text, title, AssignReason::ALL, AssignReason::as_str, AssignReason::meaning);
    section(&mut text, "Why a pool was refused", PoolRefusal::ALL, PoolRefusal::as_str, PoolRefusal::meaning);
    let title = "Why a node announces an address, or no node does (L2)";
    section(&mut text, title, L2Reason::ALL, L2Reason::as_str, L2Reason::meaning);
    let title = "Why a node is a candidate, or not (L2)";
    section(&mut text, title, CandidateReason::ALL, CandidateReason::as_str, CandidateReason::meaning);
    let title = "Why a node advertises routes, or none (BGP)";
    section(&mut text, title, BgpReason::ALL, BgpReason::as_str, BgpReason::meaning);
    let title = "What `explain` reports as missing";
    section(&mut text, title, MissingReason::ALL, MissingReason::as_str, MissingReason::meaning);
    section(&mut text, "Configuration problems", ConfigReason::ALL, ConfigReason::as_str, ConfigReason::meaning);
    text
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

const INTRODUCTION: &str = "\
# Reason codes

Every decision carries one of these codes; logs, `plan` and `explain` print them. Events on Services carry the reasons
of upstream, such as `AllocationFailed` (see [upstream-behaviour.md](upstream-behaviour.md#events)).

This page is generated from `metallb-core`; `UPDATE=1 cargo test -p metallb-core reasons_page` rewrites it.
";

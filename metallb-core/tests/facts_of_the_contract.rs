//! Every test fact of contract control-plane §11 has a test that names its number, or a reason why it is not ours.

#![allow(clippy::disallowed_methods, reason = "the test files are part of this one")]

/// First and last number, and the file whose tests name them.
const COVERED: [(u32, u32, &str); 3] = [
    (1, 37, include_str!("allocator_facts.rs")),
    (38, 78, include_str!("assignment_facts.rs")),
    (79, 112, include_str!("config_facts.rs")),
];

/// Facts that no decision of this crate is about.
const ELSEWHERE: [(u32, &str); 7] = [
    (99, "secret passthrough belongs to upstream's FRR back end, which does not exist here"),
    (113, "leniency of an admission webhook: there is none"),
    (114, "leniency of an admission webhook: there is none"),
    (115, "namespaces and deletions that an admission webhook refuses: there is none"),
    (116, "the reload channel of upstream's reconcilers; here a full pass always comes first"),
    (117, "errors of a full pass: the operator's queue tries again"),
    (118, "which changes of a Node wake the speaker: the operator compares what elections read"),
];

#[test]
fn facts_of_the_contract_are_all_covered() {
    for fact in 1..=118 {
        let elsewhere = ELSEWHERE.iter().any(|(number, _)| *number == fact);
        let (_, _, tests) =
            COVERED.iter().find(|(first, last, _)| (*first..=*last).contains(&fact)).unwrap_or(&(0, 0, ""));
        assert!(elsewhere || names(tests, fact), "no test names fact {fact}");
    }
}

/// Whether a file has the number as a word of its own, or as a part of a test's name.
fn names(text: &str, fact: u32) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let (number, bytes) = (fact.to_string(), text.as_bytes());
    // Behind the head of the file, which names ranges.
    let start = text.find("\nuse ").unwrap_or_default();
    text[start..].match_indices(&number).any(|(at, _)| {
        let (before, after) = ((start + at).checked_sub(1).and_then(|at| bytes.get(at)), start + at + number.len());
        let bounded = !is_digit(before) && !is_digit(bytes.get(after));
        let in_text = matches!(before, Some(b'.' | b'/' | b':' | b'-'));
        bounded && !in_text
    })
}

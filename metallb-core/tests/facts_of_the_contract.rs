//! Every test fact of contract control-plane §11, and every one of speaker §10 that a decision of this crate answers, has a test
//! that names its number, or a reason why it is not ours.

#![allow(clippy::disallowed_methods, reason = "the test files are part of this one")]

/// First and last number, and the file whose tests name them.
type Covered = (u32, u32, &'static str);

const CONTROL_PLANE: [Covered; 3] = [
    (1, 37, include_str!("allocator_facts.rs")),
    (38, 78, include_str!("assignment_facts.rs")),
    (79, 112, include_str!("config_facts.rs")),
];

/// Facts of the control plane that no decision of this crate is about.
const ELSEWHERE: [(u32, &str); 7] = [
    (99, "secret passthrough belongs to upstream's FRR back end, which does not exist here"),
    (113, "leniency of an admission webhook: there is none"),
    (114, "leniency of an admission webhook: there is none"),
    (115, "namespaces and deletions that an admission webhook refuses: there is none"),
    (
        116,
        "no reload channel as upstream has; that nothing is decided before the first full picture is tested where the operator's feed is",
    ),
    (117, "errors of a full pass: the operator's queue tries again"),
    (118, "which changes of a Node wake the speaker: tested where the operator's feed is"),
];

/// Speaker §10.1–10.5 and 10.7. Facts 63–68 are about responders, 91–110 about bytes on the wire: other crates.
const SPEAKER: [Covered; 6] = [
    (1, 49, include_str!("../src/election/tests.rs")),
    (50, 58, include_str!("config_facts.rs")),
    (59, 60, include_str!("../src/election/tests.rs")),
    (69, 71, include_str!("plan_facts.rs")),
    (72, 89, include_str!("../src/routes/tests.rs")),
    (111, 124, concat!(include_str!("config_facts.rs"), include_str!("../src/config/community.rs"))),
];

#[test]
fn facts_of_the_control_plane_are_all_covered() {
    for fact in 1..=118 {
        let elsewhere = ELSEWHERE.iter().any(|(number, _)| *number == fact);
        assert!(elsewhere || is_covered(&CONTROL_PLANE, fact), "no test names fact {fact}");
    }
}

#[test]
fn facts_of_the_speaker_about_decisions_are_all_covered() {
    for fact in SPEAKER.iter().flat_map(|&(first, last, _)| first..=last) {
        assert!(is_covered(&SPEAKER, fact), "no test names fact {fact}");
    }
}

fn is_covered(covered: &[Covered], fact: u32) -> bool {
    covered
        .iter()
        .any(|&(first, last, tests)| (first..=last).contains(&fact) && (names(tests, fact) || spans(tests, fact)))
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
        let in_text = matches!(before, Some(b'.' | b'/' | b':' | b'-')) || bytes.get(after) == Some(&b'.');
        bounded && !in_text
    })
}

/// Whether the name of a test says `facts_A_to_B` with the number in between.
fn spans(text: &str, fact: u32) -> bool {
    let is_test = |line: &&str| line.trim_start().starts_with("fn ") && line.contains("fact");
    text.lines().filter(is_test).any(|line| {
        let words: Vec<&str> = line.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
        words.windows(3).any(|words| match (words[0].parse::<u32>(), words[1], words[2].parse::<u32>()) {
            (Ok(first), "to", Ok(last)) => (first..=last).contains(&fact),
            _ => false,
        })
    })
}

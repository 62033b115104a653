//! Suggestions for misspelled names, and values that are safe to print in a message.

use std::fmt::Write as _;

/// The candidate that `word` most probably means; `None` if none is close.
///
/// Names that differ only in case, `-`, `_` or blanks are equal. Otherwise the edit distance (optimal string alignment)
/// decides: a third of the length of the longer word, and at least 1, is still close.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = simplified(word);
    let distance = |candidate: &str| {
        let candidate = simplified(candidate);
        let longest = plain.chars().count().max(candidate.chars().count());
        let distance = strsim::osa_distance(&plain, &candidate);
        (distance <= (longest / 3).max(1) && distance < longest).then_some(distance)
    };
    // A value from a file may be of any length; no name is this long.
    if plain.len() > LONGEST_NAME {
        return None;
    }
    let close = candidates.into_iter().filter_map(|candidate| Some((distance(candidate)?, candidate)));
    close.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// `: did you mean "…"?`, or nothing.
#[must_use]
pub fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(": did you mean \"{name}\"?")).unwrap_or_default()
}

/// The text in quotes for a message: at most 120 characters, with invisible characters escaped.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for (index, letter) in text.chars().enumerate() {
        if index == LONGEST_VALUE {
            let _ = write!(shown, "…\" ({} characters)", text.chars().count());
            return shown;
        }
        match letter {
            '"' | '\\' => shown.extend(['\\', letter]),
            // Letters and signs stay as they are; blanks and control characters that the eye takes for others do not.
            ' '..='~' => shown.push(letter),
            _ if letter.is_alphanumeric() || is_visible_sign(letter) => shown.push(letter),
            _ => shown.extend(letter.escape_default()),
        }
    }
    shown.push('"');
    shown
}

fn is_visible_sign(letter: char) -> bool {
    // Soft hyphen, marks of direction, joiners, variation selectors, private use.
    let invisible = matches!(
        u32::from(letter),
        0xad | 0x061c | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f | 0xfeff
            | 0xe000..=0xf8ff | 0xe0000..
    );
    !letter.is_whitespace() && !letter.is_control() && !invisible
}

fn simplified(word: &str) -> String {
    word.chars().filter(|letter| !matches!(letter, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

const LONGEST_NAME: usize = 80;
const LONGEST_VALUE: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_name_finds_the_name_that_was_meant() {
        let names = ["addresses", "autoAssign", "avoidBuggyIPs", "serviceAllocation", "ipAddressPools", "interfaces"];
        for (word, expected) in [
            ("autoassign", Some("autoAssign")),
            ("auto-assign", Some("autoAssign")),
            ("AvoidBuggyIps", Some("avoidBuggyIPs")),
            ("ipAddressPool", Some("ipAddressPools")),
            ("interface", Some("interfaces")),
            ("adresses", Some("addresses")),
            ("adddresses", Some("addresses")),
            ("addresess", Some("addresses")),
            ("serviceAlocation", Some("serviceAllocation")),
            ("protocol", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(9_000_000), names), None);
        assert_eq!(nearest("vrt", ["vrf", "bfdProfile"]), Some("vrf"));
    }

    #[test]
    fn value_is_cut_and_invisible_characters_are_escaped() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("10.0.0.5\u{200b}", "\"10.0.0.5\\u{200b}\""),
            ("a\u{a0}b", "\"a\\u{a0}b\""),
            ("tab\there", "\"tab\\there\""),
            ("line\nbreak", "\"line\\nbreak\""),
            ("quote\"", "\"quote\\\"\""),
            ("büro 1. OG – ok", "\"büro 1. OG – ok\""),
            ("\u{feff}x", "\"\\u{feff}x\""),
            ("١٠", "\"١٠\""),
            ("\u{202e}abc", "\"\\u{202e}abc\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
        let long = quoted(&"y".repeat(9_000));
        assert_eq!(long, format!("\"{}…\" (9000 characters)", "y".repeat(120)));
    }
}

//! Durations in the format of Go: `90s`, `1m30s`, `1.5h`, `500ms`, `0`.

use std::time::Duration;

/// Parses a non-negative Go duration of less than 2^63 nanoseconds. `None` for anything else.
#[must_use]
pub fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if (whole.is_empty() && fraction.is_empty()) || whole.trim_start_matches('0').len() > 19 {
            return None;
        }
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let nanoseconds: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<u128>().ok()? * nanoseconds)?;
        }
        let mut scale = nanoseconds;
        for digit in fraction.bytes() {
            scale /= 10;
            total += u128::from(digit - b'0') * scale;
        }
        rest = after;
    }
    let nanoseconds = u64::try_from(total).ok().filter(|&total| i64::try_from(total).is_ok())?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_like_go() {
        let rows = [
            ("90s", Some(90_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("0s", Some(0)),
            (".5s", Some(500)),
            ("+3s", Some(3_000)),
            ("+0", Some(0)),
            ("00000000000000000000003s", Some(3_000)),
            ("9223372036s", Some(9_223_372_036_000)),
            ("9223372037s", None),
            ("3", None),
            ("", None),
            ("-3s", None),
            ("s", None),
            ("3 s", None),
            ("3x", None),
            ("9999999999999999999h", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_go_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
        for text in ["2us", "2µs", "2μs", "2000ns", "1.5us500ns"] {
            assert_eq!(parse_go_duration(text), Some(Duration::from_micros(2)), "{text}");
        }
    }
}

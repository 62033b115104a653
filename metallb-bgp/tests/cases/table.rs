//! Parses the table of cases, `bgp.txt`.

use metallb_bgp::types::Asn;
use metallb_bgp::wire::DecodeContext;

/// One row of the table.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) context: DecodeContext,
    pub(crate) when: When,
    pub(crate) how: How,
    /// Whole messages, mostly one; `None` where no bytes show the case.
    pub(crate) bytes: Option<Vec<u8>>,
    /// The reaction of the decoder to the last message.
    pub(crate) reaction: String,
    /// The response of the session, if it differs from the reaction of the decoder.
    pub(crate) answer: Option<String>,
}

/// The state in which the router sends the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum When {
    OpenSent,
    OpenConfirm,
    Established,
}

/// How the router sends the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    /// In one segment.
    Whole,
    /// In two segments, once for each split position.
    Split,
    /// Truncated, followed by a close, once for each length.
    Cut,
    /// Truncated, followed by a reset, once for each length.
    Reset,
    /// In one segment, then nothing for longer than the hold time of three seconds.
    Silent,
}

/// The reasons for a case without bytes.
pub(crate) const KINDS: [&str; 4] = ["time", "connections", "kernel", "ours"];

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let rows = include_str!("bgp.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.flat_map(|row| each(row).into_iter().map(move |line| parse(row, &line))).collect()
}

/// Decodes bytes in the notation of the table.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let mut text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    for (name, meaning) in NAMES {
        text = text.replace(name, meaning);
    }
    // The innermost repetition first.
    while let Some(close) = text.find(')') {
        let open = text[..close].rfind('(').expect("an opening parenthesis");
        let (what, times) = text[open + 1..close].split_once('*').expect("a count");
        let repeated = what.repeat(times.parse().expect("a number"));
        text.replace_range(open..=close, &repeated);
    }
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Expands a row with a range of octets.
fn each(row: &str) -> Vec<String> {
    let Some((first, last)) = row.split_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.split_once('-')) else {
        return vec![row.to_owned()];
    };
    let octet = |text| u8::from_str_radix(text, 16).expect("an octet");
    let range = format!("[{first}-{last}]");
    (octet(first)..=octet(last)).map(|octet| row.replace(&range, &format!("{octet:02x}"))).collect()
}

fn parse(row: &'static str, line: &str) -> Case {
    let mut columns = line.split(" | ").map(str::trim);
    let (_, context, message, reaction) = (columns.next(), columns.next(), columns.next(), columns.next());
    let message = message.expect("a message");
    let bytes = (message != "-").then(|| parse_message(message));
    let opens = bytes.as_ref().is_some_and(|bytes| bytes.get(18) == Some(&1));
    let (context, when, how) = parse_context(context.expect("a context"));
    let reaction = reaction.unwrap_or_else(|| panic!("{line}"));
    let (reaction, answer) = reaction.split_once(" > ").map_or((reaction, None), |(one, two)| (one, Some(two)));
    Case {
        id: row.split(" | ").next().expect("an id"),
        context,
        when: when.unwrap_or(if opens { When::OpenSent } else { When::Established }),
        how,
        bytes,
        reaction: reaction.to_owned(),
        answer: answer.map(str::to_owned),
    }
}

fn parse_context(text: &str) -> (DecodeContext, Option<When>, How) {
    let mut parts = text.split('+');
    let kind = parts.next().expect("a kind");
    let remote_asn = Asn(if kind.starts_with('i') { 64512 } else { 65001 });
    let mut context = DecodeContext::new(Asn(64512), remote_asn);
    context.four_octet_asn = kind.ends_with('4');
    let (mut when, mut how) = (None, How::Whole);
    for part in parts {
        match part {
            "s" => when = Some(When::OpenSent),
            "c" => when = Some(When::OpenConfirm),
            "e" => when = Some(When::Established),
            "split" => how = How::Split,
            "cut" => how = How::Cut,
            "reset" => how = How::Reset,
            "silent" => how = How::Silent,
            "x" => context.extended_messages = true,
            "r" => context.enhanced_refresh = true,
            "n" => context.extended_next_hop = true,
            "4" => context.ipv6 = false,
            "6" => context.ipv4 = false,
            other => panic!("{other}"),
        }
    }
    (context, when, how)
}

fn parse_message(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_once(' ').expect("a kind");
    let (code, body) = match kind {
        "raw" => return hex(rest),
        "open" => (1, hex(rest)),
        "notify" => (3, hex(rest)),
        "body" => (2, hex(rest)),
        "update" => {
            let parts: Vec<Vec<u8>> = rest.split('/').map(hex).collect();
            let [withdrawn, attributes, prefixes] = parts.as_slice() else { panic!("{text}") };
            let length = |part: &[u8]| (part.len() as u16).to_be_bytes();
            (2, [&length(withdrawn), withdrawn.as_slice(), &length(attributes), attributes, prefixes].concat())
        }
        other => panic!("{other}"),
    };
    message(code, &body)
}

/// A message with its header.
pub(crate) fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[code], body].concat()
}

/// The messages of case U28 for an external peer with four-octet AS numbers: all attribute types, with all relevant
/// flags and some lengths. `true` marks the messages that end the session.
pub(crate) fn case_u28() -> impl Iterator<Item = (Vec<u8>, bool)> {
    const KNOWN: [u8; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 25, 32];
    let flags = [0x00, 0x40, 0x60, 0x80, 0xc0, 0xe0, 0xd0_u8];
    let lengths = [0, 1, 3, 4, 5, 255_u8];
    let all = (0..=255_u8).flat_map(move |code| flags.map(|flags| (code, flags)));
    all.flat_map(move |(code, flags)| lengths.map(|length| (code, flags, length))).map(|(code, flags, length)| {
        let head = if flags & 0x10 == 0 { vec![flags, code, length] } else { vec![flags, code, 0, length] };
        let value: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37).wrapping_add(code)).collect();
        let attributes = [head, value, hex("$A")].concat();
        let size = (attributes.len() as u16).to_be_bytes();
        let bytes = message(2, &[&[0, 0], &size[..], &attributes, &hex("$N")].concat());
        (bytes, flags & 0x80 == 0 && !KNOWN.contains(&code))
    })
}

const NAMES: [(&str, &str); 10] = [
    ("$K", "MK001304"),
    ("MK", "ffffffffffffffffffffffffffffffff"),
    ("$A", "$O$P$H"),
    ("$O", "40010100"),
    ("$P", "40020602010000fde9"),
    ("$2", "4002040201fde9"),
    ("$I", "400200"),
    ("$H", "4003040a000001"),
    ("$N", "18c00002"),
    ("$F", "04fde9005a0a000001"),
];
